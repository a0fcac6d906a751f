use std::net::IpAddr;

use gm_api::sad::{Dir, Sad, SadEntry};
use gm_esp::Suite;

use super::*;
use crate::kernel::plan;

/// An SA of each suite and mode, and its keys' digits.
pub(crate) fn every(esn: bool) -> String {
    let mut text = String::new();
    for (n, suite) in Suite::every().enumerate() {
        for (tunnel, v6) in [(false, false), (false, true), (true, false)] {
            let spi = 0x1000_0000 + 16 * n + 2 * usize::from(tunnel) + usize::from(v6);
            let (here, there) = match v6 {
                true => ("2001:db8::1", "2001:db8::2"),
                false => ("192.0.2.1", "192.0.2.2"),
            };
            let (mode, outer) = match tunnel {
                true => (
                    "udp-enc-tun",
                    "outer_src = \"198.51.100.1\"\nouter_dst = \"198.51.100.2\"\n\
                     encap_sport = 4500\nencap_dport = 40001\n",
                ),
                false => ("trans", ""),
            };
            text.push_str(&format!(
                "[[sa]]\nspi = {spi}\nmode = \"{mode}\"\nsrc = \"{here}\"\ndst = \"{there}\"\n\
                 src_port = 5064\ndst_port = {}\nalg = \"{}\"\nealg = \"{}\"\n{outer}\
                 ik = \"a1a2a3a4a5a6a7a8a9aaabacadaeafa0\"\n\
                 ck = \"c1c2c3c4c5c6c7c8c9cacbcccdcecfc0\"\n\
                 dir = \"out\"\nset = 7\nseq = 1001\nesn = {esn}\n",
                40_000 + n,
                suite.alg(),
                suite.ealg(),
            ));
        }
    }
    text
}

fn sas(text: &str) -> Vec<SadEntry> {
    let sad = Sad::parse("SAD.toml", text).unwrap_or_else(|e| panic!("{e}"));
    sad.entries
}

fn fields(line: &str) -> Vec<&str> {
    line.split(',')
        .map(|field| field.trim_matches('"'))
        .collect()
}

#[test]
fn wireshark_gets_a_line_for_each_sa_that_it_knows() {
    let entries = sas(&every(false));
    let table = wireshark::table(&entries);
    let lines: Vec<&str> = table.lines().filter(|l| l.starts_with('"')).collect();
    let known = |sa: &&SadEntry| sa.spec.suite != Suite::AesGmacNull;
    assert_eq!(lines.len(), entries.iter().filter(known).count());
    for (line, sa) in lines.iter().zip(entries.iter().filter(known)) {
        let fields = fields(line);
        let [version, "*", "*", spi, _, encryption, _, integrity] = fields[..] else {
            panic!("{line}");
        };
        assert_eq!(
            version,
            if sa.destination().is_ipv6() {
                "IPv6"
            } else {
                "IPv4"
            }
        );
        assert_eq!(spi, format!("{:#010x}", sa.spec.spi));
        let salt = sa.keys.salt().unwrap_or_default();
        let salt = if sa.keys.salt().is_some() {
            &salt[..]
        } else {
            &[]
        };
        for (digits, key, salt) in [
            (encryption, sa.keys.encryption(), salt),
            (integrity, sa.keys.integrity(), &[][..]),
        ] {
            let wanted = key.map(|key| format!("0x{}", hex::encode([key, salt].concat())));
            assert_eq!(digits, wanted.unwrap_or_default(), "{}", sa.spec.suite);
        }
    }
    // What it has not is named, and its keys are not there.
    assert_eq!(
        table
            .matches("# (left out: Wireshark has no AES-GMAC")
            .count(),
        3
    );
}

#[test]
fn wireshark_checks_no_icv_where_it_would_be_wrong() {
    let table = wireshark::table(&sas(&every(true)));
    for line in table.lines().filter(|line| line.starts_with('"')) {
        assert_eq!(fields(line)[6], "ANY 96 bit authentication [no checking]");
    }
    assert_eq!(table.matches("\n\"").count(), 3 * 6);
}

#[test]
fn an_spi_that_occurs_twice_has_its_destination() {
    let one = "[[sa]]\nspi = 4096\nmode = \"trans\"\nsrc = \"192.0.2.1\"\ndst = \"192.0.2.2\"\n\
               alg = \"null\"\nealg = \"aes-gcm\"\nik = \"a1a2a3a4a5a6a7a8a9aaabacadaeafa0\"\n\
               ck = \"c1c2c3c4c5c6c7c8c9cacbcccdcecfc0\"\n";
    let other = one.replace("192.0.2.2", "192.0.2.3");
    let v6 = one.replace("192.0.2", "2001:db8:").replace(":.", "::");
    let table = wireshark::table(&sas(&format!("{one}{other}{v6}")));
    let destinations: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with('"'))
        .map(|line| fields(line)[2])
        .collect();
    assert_eq!(destinations, ["192.0.2.2", "192.0.2.3", "*"]);
}

#[test]
fn json_has_keys_only_when_asked() {
    let entries = sas(&every(false));
    let left = [json::Left {
        dst: IpAddr::from([192, 0, 2, 9]),
        spi: 300,
        why: "it is \"not\" ESP".into(),
    }];
    for keys in [false, true] {
        let text = json::object(&entries, &left, keys).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["left_out"][0]["why"], "it is \"not\" ESP");
        let rows = value["sas"].as_array().unwrap();
        assert_eq!(rows.len(), entries.len());
        for (row, sa) in rows.iter().zip(&entries) {
            assert_eq!(row["spi"], sa.spec.spi);
            assert_eq!(row["seq"], 1001);
            let integrity = sa.keys.integrity().filter(|_| keys).map(hex::encode);
            assert_eq!(
                row.get("integrity_key").and_then(|k| k.as_str()),
                integrity.as_deref()
            );
            let salt = sa.keys.salt().filter(|_| keys).map(hex::encode);
            assert_eq!(row.get("salt").and_then(|k| k.as_str()), salt.as_deref());
        }
        for digits in ["a1a2a3", "c1c2c3"] {
            assert_eq!(text.contains(digits), keys);
        }
    }
}

#[test]
fn what_is_written_as_sad_toml_reads_the_same() {
    for esn in [false, true] {
        let entries = sas(&every(esn));
        let text = sad::file("two\nlines", &entries).unwrap();
        assert!(text.starts_with("# two\n# lines\n\n[[sa]]\n"));
        let again = sas(&text);
        assert_eq!(again.len(), entries.len());
        for (a, b) in again.iter().zip(&entries) {
            assert_eq!((a.spec, a.set, a.dir, a.seq), (b.spec, b.set, b.dir, b.seq));
            assert!(a.keys == b.keys);
        }
    }
}

#[test]
fn a_batch_says_all_that_the_kernel_is_to_have() {
    let entries = sas(&every(false));
    let plans: Vec<plan::Plan> = entries.iter().map(|sa| plan::entry(sa).unwrap()).collect();
    let states: Vec<_> = plans.iter().map(|plan| plan.state.clone()).collect();
    let policies: Vec<_> = plans
        .iter()
        .flat_map(|plan| plan.policies.clone())
        .collect();
    let batch = ip_xfrm::batch(&states, &policies);
    let commands = |of: &str| batch.lines().filter(|line| line.starts_with(of)).count();
    assert_eq!(commands("xfrm state add src "), states.len());
    assert_eq!(commands("xfrm policy add src "), policies.len());
    assert_eq!(batch.matches("left out").count(), 0);
    let cbc = batch
        .lines()
        .find(|line| line.contains("enc cbc(aes)"))
        .unwrap();
    assert_eq!(
        cbc,
        "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x10000010 reqid 1735196679 \
         mode transport replay-window 64 replay-oseq 1000 \
         auth-trunc hmac(sha1) 0xa1a2a3a4a5a6a7a8a9aaabacadaeafa000000000 96 \
         enc cbc(aes) 0xc1c2c3c4c5c6c7c8c9cacbcccdcecfc0 \
         sel src 192.0.2.1/32 dst 192.0.2.2/32 sport 5064 dport 40001"
    );
}

#[test]
fn a_window_that_batch_cannot_say_begins_above_what_has_come() {
    let mut entries = sas(&every(false));
    entries.truncate(1);
    let mut plan = plan::entry(&entries[0]).unwrap();
    plan.state.numbers.top = 70_000;
    let batch = ip_xfrm::batch(std::slice::from_ref(&plan.state), &[]);
    assert!(
        batch.contains(" replay-window 64 replay-oseq 1000 replay-seq 70064 "),
        "{}",
        *batch
    );
    assert!(batch.contains("# Numbers to 70000 have come and are refused.\n"));
    plan.state.numbers.top = u32::MAX.into();
    let batch = ip_xfrm::batch(std::slice::from_ref(&plan.state), &[]);
    assert!(batch.contains(" replay-seq 4294967295 "), "{}", *batch);
    // Extended numbers have an upper half of their own.
    plan.state.numbers.esn = true;
    plan.state.numbers.seq = 5 << 32;
    let batch = ip_xfrm::batch(std::slice::from_ref(&plan.state), &[]);
    let wanted = " replay-oseq 0 replay-oseq-hi 5 replay-seq 63 replay-seq-hi 1 flag esn ";
    assert!(batch.contains(wanted), "{}", *batch);
}

#[test]
fn what_iproute2_cannot_say_is_a_comment_without_keys() {
    let entry = &sas(&every(false))[0];
    let plan = plan::entry(entry).unwrap();
    let mut states = vec![plan.state.clone(); 3];
    states[0].algorithms.auth.as_mut().unwrap().name = "hmac(sha1)\nxfrm state flush".into();
    states[1].wrap = crate::kernel::Wrap::Other(4);
    states[2].id.proto = 51;
    let base = plan::base(
        IpAddr::from([192, 0, 2, 1]),
        plan::blocks(5060, 5063)[0],
        17,
        crate::kernel::PolicyDir::In,
    );
    let batch = ip_xfrm::batch(&states, &[base]);
    assert_eq!(batch.matches("# (left out: ").count(), 4);
    assert!(
        batch
            .lines()
            .all(|line| line.is_empty() || line.starts_with('#')),
        "{}",
        *batch
    );
    assert!(!batch.contains("a1a2a3"));
}

#[test]
fn what_ends_by_itself_says_when() {
    let mut plan = plan::entry(&sas(&every(false))[0]).unwrap();
    plan.state.limits.added = [0, 3600];
    plan.state.limits.packets = [90, 100];
    plan.policies[0].limits.added = [0, 3599];
    let batch = ip_xfrm::batch(std::slice::from_ref(&plan.state), &plan.policies);
    let limits = " limit packet-soft 90 limit packet-hard 100 limit time-hard 3600 sel src ";
    assert!(batch.contains(limits), "{}", *batch);
    assert!(batch.contains(" limit time-hard 3599 tmpl src "));
    assert_eq!(batch.matches("limit").count(), 4);
}

#[test]
fn a_direction_that_is_turned_is_the_other_ends() {
    let entry = &sas(&every(false))[0];
    assert_eq!(entry.dir, Some(Dir::Out));
    let mut other = entry.clone();
    other.dir = Some(Dir::In);
    // The first number that this end sends is the first that the other accepts.
    let plan = plan::entry(&other).unwrap();
    assert!(plan.state.numbers.is_seen(1000) && !plan.state.numbers.is_seen(1001));
}
