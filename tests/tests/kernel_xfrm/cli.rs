//! `gm-xfrm install`, `list`, `diff`, `watch` and `remove`, as people and
//! programs use them.

use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use gm_tests::netns::NetNs;
use serde_json::Value;

use crate::ground::{Way, four, tables};

const IK: &str = "447266b1847a80f4d2b9e57fb4cd8316";
const CK: &str = "a85a9947c4b72d635fa18fb2f71764dc";

/// What the program did.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn program() -> PathBuf {
    let exe = std::env::current_exe().expect("a path");
    let target = exe.parent().and_then(|dir| dir.parent());
    let path = target.expect("a target directory").join("gm-xfrm");
    assert!(
        path.exists(),
        "cargo build --workspace --bins makes {}",
        path.display()
    );
    path
}

fn gm_xfrm(ns: &NetNs, words: &str, input: &str) -> Ran {
    ran(
        ns,
        Command::new(program()).args(words.split_whitespace()),
        input,
    )
}

fn ran(ns: &NetNs, command: &mut Command, input: &str) -> Ran {
    let out = ns.run(|| {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gm-xfrm runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        // It may end without reading.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("it ends")
    });
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let ran = Ran {
        code: out.status.code().expect("it ends by itself"),
        out: text(out.stdout),
        err: text(out.stderr),
    };
    // Whatever it says, and wherever.
    for secret in [&IK[..8], &IK[24..], &CK[..8], &CK[24..]] {
        let asked = command.get_args().any(|word| word == "--show-keys");
        let said = ran.out.contains(secret) && !asked || ran.err.contains(secret);
        assert!(!said, "{}{}", ran.out, ran.err);
    }
    ran
}

/// SAs to and from a phone: a suite each way, and a tunnel.
fn sad() -> String {
    let table = |spi: u32, dir: &str, ports: (u16, u16), suite: (&str, &str), more: &str| {
        let (src, dst) = match dir {
            "in" => ("192.0.2.2", "192.0.2.1"),
            _ => ("192.0.2.1", "192.0.2.2"),
        };
        let mode = match more {
            "" => "trans",
            _ => "udp-enc-tun",
        };
        format!(
            "[[sa]]\nspi = {spi}\nmode = \"{mode}\"\nsrc = \"{src}\"\ndst = \"{dst}\"\n\
             src_port = {}\ndst_port = {}\nalg = \"{}\"\nealg = \"{}\"\nik = \"{IK}\"\n\
             ck = \"{CK}\"\nset = 3\ndir = \"{dir}\"\n{more}",
            ports.0, ports.1, suite.0, suite.1
        )
    };
    [
        table(0x1000, "in", (6100, 5060), ("hmac-sha-1-96", "aes-cbc"), ""),
        table(0x1001, "out", (5060, 6100), ("null", "aes-gcm"), "")
            + "seq = 500\nreplay_window = 100\n",
        table(
            0x1002,
            "in",
            (6200, 5062),
            ("aes-gmac", "null"),
            "outer_src = \"198.51.100.7\"\nouter_dst = \"192.0.2.1\"\nencap_dport = 4500\n",
        ),
    ]
    .concat()
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.out))
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn install_list_diff_and_remove_agree() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    let sad = sad();
    let missing = gm_xfrm(&ns, "diff --sad -", &sad);
    assert_eq!(missing.code, 1);
    assert_eq!(
        missing
            .out
            .lines()
            .filter(|l| l.starts_with("missing: "))
            .count(),
        9
    );

    let first = gm_xfrm(&ns, "install --sad -", &sad);
    assert_eq!((first.code, first.err.as_str()), (0, ""));
    assert!(
        first
            .out
            .starts_with("installed: 3 states and 6 policies; 0 were"),
        "{}",
        first.out
    );
    let again = json(&gm_xfrm(&ns, "install --sad - --json", &sad));
    assert_eq!(
        again,
        serde_json::json!({"states": 0, "policies": 0, "kept": 9})
    );
    let same = gm_xfrm(&ns, "diff --sad - --json", &sad);
    assert_eq!(
        (same.code, json(&same)),
        (0, serde_json::json!({"differences": []}))
    );

    let list = json(&gm_xfrm(&ns, "list --json", ""));
    let states = list["states"].as_array().expect("states");
    assert_eq!(
        (states.len(), list["policies"].as_array().map(Vec::len)),
        (3, Some(6))
    );
    let out = &states[1];
    assert_eq!(
        (&out["spi"], &out["seq"], &out["replay_window"]),
        (&0x1001.into(), &499.into(), &128.into())
    );
    assert_eq!(
        (&out["alg"], &out["ealg"]),
        (&"null".into(), &"aes-gcm".into())
    );
    assert_eq!((&out["ours"], out.get("keys")), (&true.into(), None));
    let tunnel = &states[2];
    assert_eq!(
        tunnel["encap"],
        serde_json::json!({"sport": 0, "dport": 4500})
    );
    assert_eq!(tunnel["selector"]["src"], "192.0.2.2/32");
    assert_eq!(tunnel["src"], "198.51.100.7");

    let text = gm_xfrm(&ns, "list", "").out;
    assert!(
        text.contains("0x00001001") && text.contains("null/aes-gcm"),
        "{text}"
    );
    assert!(
        text.contains("tunnel UDP 0->4500") && text.contains("priority 26477"),
        "{text}"
    );
    // Keys are there when they are asked for, and only then.
    for words in ["list --show-keys", "list --show-keys --json"] {
        let shown = gm_xfrm(&ns, words, "").out;
        assert!(
            shown.contains(&format!("{IK}00000000")) && shown.contains(CK),
            "{shown}"
        );
    }

    let removed = gm_xfrm(&ns, "remove --sad -", &sad);
    assert!(
        removed
            .out
            .starts_with("removed: 3 states and 6 policies; 0 were"),
        "{}",
        removed.out
    );
    let gone = json(&gm_xfrm(&ns, "remove --sad - --json", &sad));
    assert_eq!(
        gone,
        serde_json::json!({"states": 0, "policies": 0, "kept": 9})
    );
    assert!(gm_xfrm(&ns, "list", "").out.starts_with("no states"));
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn an_sa_that_is_taken_leaves_nothing_behind_and_is_named() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    let mut other = four(0x1000, 1, Way::Trans4)[0].clone().state;
    (other.id.spi, other.reqid) = (0x1002, 77);
    tables(&ns, |xfrm| xfrm.add_state(&other)).expect("another program's state");
    let refused = gm_xfrm(&ns, "install --sad -", &sad());
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert_eq!(
        refused.err,
        "gm-xfrm: error: SPI 0x00001002 to 192.0.2.1: another state has this SPI and destination \
         already; all is as it was before\n"
    );
    let list = json(&gm_xfrm(&ns, "list --json", ""));
    assert_eq!(list["states"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["policies"].as_array().map(Vec::len), Some(0));
    assert_eq!(
        json(&gm_xfrm(&ns, "list --ours --json", ""))["states"],
        serde_json::json!([])
    );
    // Nor does `remove` touch it.
    let kept = gm_xfrm(&ns, "remove --sad -", &sad());
    assert_eq!(kept.code, 1);
    assert!(
        kept.err.contains("not one that this program made"),
        "{}",
        kept.err
    );
    let all = json(&gm_xfrm(&ns, "remove --all --json", ""));
    assert_eq!(all["states"], 0);
    tables(&ns, |xfrm| xfrm.delete_state(other.id)).expect("it is still there");
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn remove_all_takes_what_is_ours() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    assert_eq!(gm_xfrm(&ns, "install --sad -", &sad()).code, 0);
    let policies = "xfrm policy add src 192.0.2.0/24 dst 192.0.2.0/24 dir in action block";
    ns.ip(policies);
    let all = json(&gm_xfrm(&ns, "remove --all --json", ""));
    assert_eq!((&all["states"], &all["policies"]), (&3.into(), &6.into()));
    let list = json(&gm_xfrm(&ns, "list --json", ""));
    assert_eq!(list["policies"].as_array().map(Vec::len), Some(1));
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn watch_tells_what_others_do_and_no_key() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    let mut child = ns.run(|| {
        Command::new(program())
            .args(["watch", "--json", "--count", "18"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("gm-xfrm runs")
    });
    let stdout = child.stdout.take().expect("a pipe");
    let (heard, first) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let heard = lines.inspect(|_| _ = heard.send(()));
        heard.collect::<Vec<String>>()
    });
    // It listens from some time on: a policy comes and goes until it is heard.
    let policy = "dir out src 10.0.0.0/8 dst 10.0.0.0/8";
    while first
        .recv_timeout(std::time::Duration::from_millis(200))
        .is_err()
    {
        ns.ip(&format!("xfrm policy add {policy} action block"));
        ns.ip(&format!("xfrm policy delete {policy}"));
        assert!(
            child
                .try_wait()
                .expect("a status")
                .is_none_or(|status| status.success())
        );
    }
    assert_eq!(gm_xfrm(&ns, "install --sad -", &sad()).code, 0);
    assert_eq!(gm_xfrm(&ns, "remove --sad -", &sad()).code, 0);
    assert!(child.wait().expect("it ends").success());
    let all = reader.join().expect("lines");
    assert_eq!(all.len(), 18);
    let text = all.join("\n");
    assert!(
        !text.contains(&IK[..8]) && !text.contains(&CK[..8]),
        "{text}"
    );
    let events: Vec<Value> = all
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!(of("state-added"), 3, "{text}");
    let removed = events
        .iter()
        .find(|event| event["event"] == "state-removed");
    if let Some(removed) = removed {
        assert_eq!(removed["state"]["spi"], removed["spi"]);
    }
}

#[test]
#[ignore = "needs root"]
fn a_kernel_without_esp_and_a_user_without_rights_are_told() {
    let ns = NetNs::new().expect("root");
    let installed = gm_xfrm(&ns, "install --sad -", &sad());
    if installed.code != 0 {
        assert_eq!(installed.code, 1);
        assert!(
            installed.err.contains("modules esp4 and esp6"),
            "{}",
            installed.err
        );
        assert!(
            installed.err.contains("all is as it was before"),
            "{}",
            installed.err
        );
        assert!(gm_xfrm(&ns, "list", "").out.contains("no states"));
    }
    for words in [
        "list",
        "install --sad -",
        "diff --sad -",
        "remove --all",
        "watch",
    ] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups", "--inh-caps=-all"]);
        command.arg(program()).args(words.split_whitespace());
        let refused = ran(&ns, &mut command, &sad());
        let code = if words.starts_with("diff") { 2 } else { 1 };
        assert_eq!(refused.code, code, "{words}: {}", refused.err);
        assert!(
            refused.err.contains("CAP_NET_ADMIN"),
            "{words}: {}",
            refused.err
        );
    }
}

#[test]
#[ignore = "needs root"]
fn wrong_use_is_2_and_changes_nothing() {
    let ns = NetNs::new().expect("root");
    for words in [
        "install",
        "remove",
        "diff",
        "list --sad x",
        "remove --all --sad -",
        "watch x",
    ] {
        let refused = gm_xfrm(&ns, words, "");
        assert_eq!(refused.code, 2, "{words}");
    }
    let no_dir = sad().replace("dir = \"out\"\n", "");
    for words in ["install --sad -", "remove --sad -", "diff --sad -"] {
        let refused = gm_xfrm(&ns, words, &no_dir);
        assert_eq!(refused.code, 2, "{words}");
        assert!(
            refused.err.contains("[[sa]] #2: dir: missing"),
            "{}",
            refused.err
        );
    }
    assert!(gm_xfrm(&ns, "list", "").out.starts_with("no states"));
}
