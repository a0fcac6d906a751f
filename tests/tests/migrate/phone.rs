//! A gm-ue that is told what to do, line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gm_tests::netns::NetNs;
use gm_ue::events::UeEvent;

use crate::common::{DOMAIN, K, OPC, PCSCF, UE, program, write_private};

/// Longer than an emulated machine takes for a registration.
const WAIT: Duration = Duration::from_secs(60);

/// A registration, as the phone tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// "alg/ealg".
    pub suite: String,
    /// port_uc, port_us, port_pc, port_ps.
    pub ports: [u16; 4],
    /// spi_uc, spi_us, spi_pc, spi_ps.
    pub spis: [u32; 4],
}

/// It ends with the test.
pub struct Phone {
    child: Child,
    events: Receiver<UeEvent>,
    /// Everything that it has told so far.
    pub told: Vec<UeEvent>,
}

impl Phone {
    /// A phone that offers one suite and sends over "udp" or "tcp"; its keys go to
    /// keys.toml in `dir`.
    pub fn start(ns: &NetNs, dir: &Path, suite: &str, transport: &str) -> Phone {
        let config = dir.join("ue.toml");
        write_private(
            &config,
            &format!(
                "[ue]\nuplink = \"u0\"\naddress = \"{UE}\"\npcscf = \"{PCSCF}:5060\"\n\
                 domain = \"{DOMAIN}\"\nimpi = \"ue1@{DOMAIN}\"\nimpu = \"sip:ue1@{DOMAIN}\"\n\
                 k = \"{K}\"\nopc = \"{OPC}\"\nsuites = [\"{suite}\"]\n[ue.habits]\nrenew = false\n\
                 transport = \"{transport}\"\n"
            ),
        );
        let mut command = Command::new(program("gm-ue"));
        command
            .args(["run", "--json", "--config"])
            .arg(&config)
            .arg("--keys-out")
            .arg(dir.join("keys.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = ns.run(|| command.spawn()).expect("gm-ue starts");
        let stdout = child.stdout.take().expect("stdout");
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                println!("gm-ue: {line}");
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.send(event).is_err()
                {
                    return;
                }
            }
        });
        let mut phone = Phone {
            child,
            events,
            told: Vec::new(),
        };
        phone.until(|event| matches!(event, UeEvent::Ready { .. }).then_some(()));
        phone
    }

    /// Says a command.
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin");
        writeln!(stdin, "{line}").expect("gm-ue listens");
    }

    /// The next event that is wanted, after as many others as there are; a failure ends
    /// the test.
    pub fn until<T>(&mut self, wanted: impl Fn(&UeEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left);
            let event = event.unwrap_or_else(|_| panic!("nothing; told: {:#?}", self.told));
            self.told.push(event.clone());
            if let Some(found) = wanted(&event) {
                return found;
            }
            assert!(!matches!(event, UeEvent::Failed { .. }), "{event:?}");
        }
    }

    /// Registers, or registers again.
    pub fn register(&mut self) -> Registered {
        self.say("register");
        self.until(|event| match event {
            UeEvent::Registered {
                suite, ports, spis, ..
            } => Some(Registered {
                suite: suite.clone(),
                ports: *ports,
                spis: *spis,
            }),
            _ => None,
        })
    }

    /// A MESSAGE to the echo service, its answer, and the echo.
    pub fn echo(&mut self, text: &str) {
        self.say(&format!("message sip:echo@{DOMAIN} {text}"));
        let (mut sent, mut back) = (false, false);
        while !(sent && back) {
            let was_sent = self.until(|event| match event {
                UeEvent::MessageSent { status } => {
                    assert_eq!(*status, 200, "{text}");
                    Some(true)
                }
                UeEvent::MessageReceived { body, .. } if body == text => Some(false),
                _ => None,
            });
            sent |= was_sent;
            back |= !was_sent;
        }
    }

    /// Waits for a MESSAGE with this body.
    pub fn receive(&mut self, text: &str) {
        let is = |event: &UeEvent| matches!(event, UeEvent::MessageReceived { body, .. } if body == text);
        if !self.told.iter().any(is) {
            self.until(|event| is(event).then_some(()));
        }
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
