//! SIPp on the phone's ports: it speaks TCP and knows nothing of ESP.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gm_sip::header::Via;
use gm_sip::{Message, Packet, SaSetRequest};

use crate::lab::DOMAIN;
use crate::net::Net;

/// A running SIPp; it ends by its own time-out at the latest.
pub struct Sipp {
    child: Child,
    messages: PathBuf,
}

impl Sipp {
    /// What answers on port_us.
    pub fn answers(net: &Net, set: &SaSetRequest) -> Sipp {
        let port = set.params.ue_ends.port_s;
        start(net, "phone_answer.xml", port, &[])
    }

    /// Sends a REGISTER as `gm_sip` has it, in SIPp's words, and goes on as the scenario
    /// says.
    pub fn sends(net: &Net, scenario: &str, packet: &Packet) -> Sipp {
        let message = Message::parse(&packet.bytes).expect("a REGISTER");
        let value = |name: &str| message.value(name).unwrap_or_default().into_owned();
        let all = |name: &str| message.elements(name).join(", ");
        let via = message.first_element("Via").and_then(|v| Via::parse(&v));
        let via = via.expect("a Via");
        let number = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
        let keys = [
            ("domain", DOMAIN.to_owned()),
            ("port_us", via.port.expect("port_us").to_string()),
            ("ue_branch", via.branch().expect("a branch").to_string()),
            ("from", value("From")),
            ("cseq", number(value("CSeq"))),
            ("authorization", value("Authorization")),
            ("client", all("Security-Client")),
            ("verify", all("Security-Verify")),
            ("expires", value("Expires")),
        ];
        let mut args = vec![packet.remote.to_string()];
        args.extend(["-cid_str".to_owned(), value("Call-ID")]);
        for (key, value) in keys {
            args.extend(["-key".to_owned(), key.to_owned(), value]);
        }
        start(net, scenario, packet.local.port(), &args)
    }

    /// Waits for its end, a scenario that went as written; what it received, in order.
    pub fn received(mut self) -> Vec<Vec<u8>> {
        let mut told = String::new();
        let stderr = self.child.stderr.take().expect("stderr");
        let _ = BufReader::new(stderr).read_to_string(&mut told);
        let status = self.child.wait().expect("sipp ends");
        let log = std::fs::read(&self.messages).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        assert_eq!(status.code(), Some(0), "sipp: {told}\n{log}");
        let messages = log.split("message received [").skip(1);
        let messages = messages.map(|rest| {
            let (len, rest) = rest.split_once("] bytes :\n\n")?;
            rest.as_bytes().get(..len.parse().ok()?)
        });
        let messages = messages.map(|m| m.unwrap_or_else(|| panic!("{log}")).to_vec());
        messages.collect()
    }
}

fn start(net: &Net, scenario: &str, port: u16, args: &[String]) -> Sipp {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp");
    let messages = net.lab.dir.path().join(format!("{scenario}.{port}.log"));
    let mut command = Command::new("sipp");
    command
        .args(args)
        .arg("-sf")
        .arg(scenarios.join(scenario))
        .args(["-t", "t1", "-i", net.map.public, "-p", &port.to_string()])
        .args(["-m", "1", "-nostdin", "-timeout", "60s", "-timeout_error"])
        .args(["-trace_err", "-trace_msg", "-message_file"])
        .arg(&messages)
        .current_dir(net.lab.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = net.lab.ue.run(|| command.spawn());
    let child = child.unwrap_or_else(|e| panic!("sipp: {e}; apt-get install sip-tester"));
    Sipp { child, messages }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
