//! `keys` and `pcap`: what needs no kernel.

use std::io::{self, Write};
use std::path::Path;

use gm_esp::keys::{Ck, EspKeys, Ik};
use gm_esp::suite::{Legacy, Suite};
use gm_xfrm::output::Secrecy;
use gm_xfrm::{ToolError, open, seal};
use serde::Serialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::args::{KeysArgs, OpenArgs, SealArgs};
use crate::common::{
    Failure, create, distinct, finish, input_name, load, misuse, one_stdin, open_input,
    read_secret, say, unreadable,
};

#[derive(Serialize, Zeroize, ZeroizeOnDrop)]
struct KeysReply {
    integrity_key: Option<String>,
    encryption_key: Option<String>,
    salt: Option<String>,
}

pub fn keys(mut args: KeysArgs) -> Result<(), Failure> {
    let given = (
        args.ik.take().map(Zeroizing::new),
        args.ck.take().map(Zeroizing::new),
    );
    // Whoever asks for a legacy suite's keys has packets of one.
    let suite = Suite::from_names_with(&args.alg, &args.ealg, Legacy::Allow).map_err(misuse)?;
    let (ik, ck) = match (given, &args.keys_from) {
        ((Some(ik), Some(ck)), _) => (
            Ik::from_hex(&ik).map_err(|e| misuse(format!("--ik: {e}")))?,
            Ck::from_hex(&ck).map_err(|e| misuse(format!("--ck: {e}")))?,
        ),
        (_, Some(path)) => keys_from(path)?,
        _ => return Err(misuse("give --ik and --ck, or --keys-from")),
    };
    let keys = EspKeys::expand(suite, &ik, &ck);
    let reply = KeysReply {
        integrity_key: keys.integrity().map(hex::encode),
        encryption_key: keys.encryption().map(hex::encode),
        salt: keys.salt().map(hex::encode),
    };
    let text = Zeroizing::new(if args.json {
        serde_json::to_string(&reply).map_err(unreadable)? + "\n"
    } else {
        let or_none = |key: &Option<String>| key.clone().unwrap_or("none".to_string());
        format!(
            "integrity_key   {}\nencryption_key  {}\nsalt            {}\n",
            or_none(&reply.integrity_key),
            or_none(&reply.encryption_key),
            or_none(&reply.salt)
        )
    });
    let mut stdout = io::stdout();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|e| unreadable(format!("cannot write to standard output: {e}")))
}

fn keys_from(path: &Path) -> Result<(Ik, Ck), Failure> {
    let text = read_secret(path, 4096)?;
    gm_api::keysfile::parse(&input_name(path), &text).map_err(misuse)
}

pub fn pcap_open(args: &OpenArgs) -> Result<(), Failure> {
    let taken = [("--sad", &args.sad), ("the input", &args.input)];
    distinct("--out", &args.out, &taken)?;
    distinct("--report", &args.report, &taken)?;
    distinct("--report", &args.report, &[("--out", &args.out)])?;
    one_stdin(&args.sad, &args.input)?;
    let sad = load(&args.sad)?;
    let input = open_input(&args.input)?;
    let mut plain = create(&args.out, Secrecy::Private)?;
    let mut report = create(&args.report, Secrecy::Usual)?;
    let totals = open::capture(&sad, args.replay_window, input, &mut plain, &mut report)
        .map_err(|e| failed(e, &args.input, &args.out, Some(&args.report)))?;
    finish(plain, &args.out)?;
    finish(report, &args.report)?;
    say(&totals.to_string());
    Ok(())
}

pub fn pcap_seal(args: &SealArgs) -> Result<(), Failure> {
    let taken = [("--sad", &args.sad), ("the input", &args.input)];
    distinct("--out", &args.out, &taken)?;
    one_stdin(&args.sad, &args.input)?;
    let sad = load(&args.sad)?;
    let mut sealer = seal::Sealer::new(&sad).map_err(misuse)?;
    let input = open_input(&args.input)?;
    let mut out = create(&args.out, Secrecy::Usual)?;
    let totals = seal::capture(&mut sealer, input, &mut out)
        .map_err(|e| failed(e, &args.input, &args.out, None))?;
    finish(out, &args.out)?;
    say(&totals.to_string());
    Ok(())
}

fn failed(error: ToolError, input: &Path, out: &Path, report: Option<&Path>) -> Failure {
    match error {
        ToolError::Input(e) => unreadable(format!("cannot read {}: {e}", input_name(input))),
        ToolError::Output(e) => unreadable(format!("cannot write {}: {e}", out.display())),
        ToolError::Report(e) => {
            let report = report.unwrap_or(out);
            unreadable(format!("cannot write {}: {e}", report.display()))
        }
        ToolError::Sa(e) => misuse(e),
    }
}
