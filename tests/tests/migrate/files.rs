//! What is in Kamailio's kernel as files: gm-xfrm import and export.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use gm_api::sad::{Dir, Sad, SadEntry};

use crate::common::program;
use crate::lab::Lab;
use crate::phone::Registered;
use crate::{assert_in_kernel, four};

/// `gm-xfrm` on Kamailio's host.
fn gm_xfrm(lab: &Lab, words: &[&str]) -> Output {
    let mut command = Command::new(program("gm-xfrm"));
    command.args(words);
    let output = lab.pcscf.run(|| command.output()).expect("gm-xfrm runs");
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "gm-xfrm {words:?}");
    output
}

/// The SA with this SPI.
fn entry(sad: &Sad, spi: u32) -> &SadEntry {
    let mut all = sad.entries.iter();
    all.find(|entry| entry.spec.spi == spi)
        .unwrap_or_else(|| panic!("{} has no SA with SPI {spi}", sad.name))
}

#[test]
#[ignore = "needs a kernel with ESP, and kamailio"]
fn import_writes_the_sas_that_the_phone_has() {
    gm_tests::needs_esp!();
    for suite in ["hmac-sha-1-96/aes-cbc", "hmac-sha-1-96/null"] {
        let lab = Lab::new();
        let mut phone = lab.phone(suite, "udp");
        let first = phone.register();
        phone.echo("hello");
        let second = phone.register();
        phone.echo("hello again");
        lab.answers(2);

        let file = lab.dir.path().join("before.toml");
        gm_xfrm(&lab, &["import", "--out", &file.display().to_string()]);
        let mode = std::fs::metadata(&file).expect("a file").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let sad = Sad::load(&file).expect("a SAD.toml");
        let theirs = Sad::load(&lab.dir.path().join("keys.toml")).expect("the phone's SAs");
        assert_eq!(sad.entries.len(), 8);
        for of in [&first, &second] {
            assert_in_kernel(&lab, of);
            assert_equal(&sad, &theirs, of);
        }
        assert_ne!(set_of(&sad, &first), set_of(&sad, &second));
        // What goes out next, and what may come next.
        for of in [&first, &second] {
            for (spi, ..) in four(of) {
                let numbers = lab.state(spi).numbers;
                let last = numbers.seq.max(numbers.top);
                assert_eq!(entry(&sad, spi).seq.unwrap_or(1), last + 1);
            }
        }
    }
}

/// The number that the four SAs of a registration share.
fn set_of(sad: &Sad, of: &Registered) -> u64 {
    let sets = four(of).map(|(spi, ..)| entry(sad, spi).set);
    assert!(sets.iter().all(|set| *set == sets[0]), "{sets:?}");
    sets[0].expect("a number")
}

/// Both ends have the same SAs of a registration: what comes in at one goes out at the
/// other.
fn assert_equal(ours: &Sad, theirs: &Sad, of: &Registered) {
    for (n, (spi, ..)) in four(of).into_iter().enumerate() {
        let (ours, theirs) = (entry(ours, spi), entry(theirs, spi));
        let (a, b) = (&ours.spec, &theirs.spec);
        assert_eq!((a.selector, a.mode, a.suite), (b.selector, b.mode, b.suite));
        assert!(ours.keys == theirs.keys, "SPI {spi}: other keys");
        let dirs = if n < 2 {
            [Dir::In, Dir::Out]
        } else {
            [Dir::Out, Dir::In]
        };
        assert_eq!([ours.dir, theirs.dir], dirs.map(Some));
    }
}

#[test]
#[ignore = "needs a kernel with ESP, and kamailio"]
fn export_shows_every_sa_of_kamailios_and_no_key() {
    gm_tests::needs_esp!();
    let lab = Lab::new();
    let registered = lab.phone("hmac-sha-1-96/aes-cbc", "udp").register();
    let told = gm_xfrm(&lab, &["export", "--format", "json"]).stdout;
    let text = String::from_utf8_lossy(&told).to_lowercase();
    let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
    let sas = told["sas"].as_array().expect("SAs");
    assert_eq!((sas.len(), &told["left_out"]), (4, &serde_json::json!([])));
    for (spi, from, to) in four(&registered) {
        let sa = sas.iter().find(|sa| sa["spi"] == spi);
        let sa = sa.unwrap_or_else(|| panic!("no {spi} in {told}"));
        assert_eq!(
            (&sa["src_port"], &sa["dst_port"]),
            (&from.into(), &to.into())
        );
        for key in [
            lab.state(spi).algorithms.auth,
            lab.state(spi).algorithms.crypt,
        ] {
            let key = key.expect("an algorithm").key;
            let hex: String = key.bytes().iter().map(|b| format!("{b:02x}")).collect();
            assert!(!text.contains(&hex));
        }
    }
}
