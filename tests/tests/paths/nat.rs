//! A P-CSCF behind a static 1:1 NAT, as clouds and Docker have it: phones know an address
//! that its host does not have. Registrations of gm-ue and messages both ways, ESP through
//! the kernel's own NAT.
//!
//! ```text
//! gmespd 10.0.0.5 --- 10.0.0.1 NAT 192.0.2.1 --- 192.0.2.10 phone
//!                                           \\--- 192.0.2.20 NAT --- 10.1.1.2 phone
//! ```

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use gm_dataplane::Config;
use gm_esp::{Mode, Suite};
use gm_tests::netns::{End, NetNs, veth};
use serde_json::Value;

use crate::daemon::{DOMAIN, K, Lab, OPC, PCSCF, Plan, UE, program, write_private};
use crate::lab::{Family, Lab as PlaneLab, NAMES, PORT_PC, PORT_PS, PORT_UC, PORT_US, config};
use crate::sockets::{WAIT, connect, megabyte, udp};

/// The P-CSCF's own address.
const OWN: &str = "10.0.0.5";
/// The phone's own address behind its NAT.
const HOME: &str = "10.1.1.2";

/// What gmespd is told of the NAT.
const TOLD: &str = "advertised = { \"10.0.0.5\" = \"192.0.2.1\" }\n";

fn forwards(ns: &NetNs) {
    ns.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("a router");
}

fn nft(ns: &NetNs, rules: &str) {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped());
    let mut nft = ns
        .run(|| nft.spawn())
        .expect("nft: apt-get install nftables");
    let mut stdin = nft.stdin.take().expect("stdin");
    stdin.write_all(rules.as_bytes()).expect("rules");
    drop(stdin);
    assert!(nft.wait().expect("an end").success(), "nft takes no rules");
}

/// Namespace, interface and address of either end.
fn join(a: (&NetNs, &str, &str), b: (&NetNs, &str, &str)) {
    let end = |(ns, name, address)| (ns, name, [address]);
    let (a, b) = (end(a), end(b));
    veth(
        End {
            ns: a.0,
            name: a.1,
            addresses: &a.2,
        },
        End {
            ns: b.0,
            name: b.1,
            addresses: &b.2,
        },
    );
}

/// The laboratory; namespaces of NATs live as long as it does.
struct Behind {
    lab: Lab,
    phone: &'static str,
    _nats: Vec<NetNs>,
}

impl Behind {
    /// With a phone that has an address of its own, or one behind a NAT of its own.
    fn new(home: bool, gm: &'static str) -> Behind {
        let [p, r, u] = [(); 3].map(|()| NetNs::new().expect("root"));
        forwards(&r);
        join((&p, "p0", "10.0.0.5/24"), (&r, "in", "10.0.0.1/24"));
        p.ip("route add default via 10.0.0.1");
        nft(
            &r,
            "table ip nat {
                chain pre { type nat hook prerouting priority dstnat;
                    iifname \"out\" ip daddr 192.0.2.1 dnat to 10.0.0.5; }
                chain post { type nat hook postrouting priority srcnat;
                    oifname \"out\" ip saddr 10.0.0.5 snat to 192.0.2.1; }
            }",
        );
        let mut nats = Vec::new();
        if home {
            let n = NetNs::new().expect("root");
            forwards(&n);
            join((&r, "out", "192.0.2.1/24"), (&n, "out", "192.0.2.20/24"));
            join((&n, "in", "10.1.1.1/24"), (&u, "u0", "10.1.1.2/24"));
            u.ip("route add default via 10.1.1.1");
            nft(
                &n,
                "table ip nat {
                    chain post { type nat hook postrouting priority srcnat;
                        oifname \"out\" masquerade; }
                }",
            );
            nats.push(n);
        } else {
            join((&r, "out", "192.0.2.1/24"), (&u, "u0", "192.0.2.10/24"));
        }
        nats.push(r);
        let plan = Plan {
            max_sas: 1024,
            own: OWN,
            gm,
            ..Plan::one()
        };
        Behind {
            lab: Lab::on(p, u, &plan),
            phone: if home { HOME } else { UE },
            _nats: nats,
        }
    }

    /// Runs `gm-ue register` with these arguments: exit code, result, trace.
    fn register(&self, args: &[&str]) -> (Option<i32>, Value, String) {
        let config = self.lab.dir.path().join("ue.toml");
        let text = format!(
            "[ue]\nuplink = \"u0\"\naddress = \"{}\"\npcscf = \"{PCSCF}:5060\"\n\
             domain = \"{DOMAIN}\"\nimpi = \"ue1@{DOMAIN}\"\nimpu = \"sip:ue1@{DOMAIN}\"\n\
             k = \"{K}\"\nopc = \"{OPC}\"\nudp_enc_tun = true\n",
            self.phone
        );
        write_private(&config, &text);
        let mut command = Command::new(program("gm-ue"));
        command
            .args(["register", "--json", "--config"])
            .arg(&config)
            .args(args)
            .stdin(Stdio::null());
        let output = self.lab.ue.run(|| command.output()).expect("gm-ue runs");
        let trace = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code(), told, trace)
    }

    /// Registers, sends a message to itself and hears it, twice on end.
    fn talks(&self, transport: &str, mode: &str) {
        let (code, told, trace) = self.register(&[
            "--message",
            "hello",
            "--expect",
            "5",
            "--again",
            "1",
            "--every",
            "0.1",
            "--transport",
            transport,
        ]);
        assert_eq!(code, Some(0), "{told}\n{trace}");
        assert_eq!(told["received"][0]["body"], "hello", "{told}");
        assert_eq!(told["deregistered"], true, "{told}");
        for registration in told["registrations"].as_array().expect("a list") {
            assert_eq!(registration["mode"], mode, "{told}");
        }
        self.lab.settles(0, 0);
        for reason in ["bad-icv", "selector-mismatch", "malformed", "mode-mismatch"] {
            assert_eq!(self.lab.count(reason), 0, "{reason}");
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_phone_registers_and_talks_in_transport_mode_across_a_static_nat() {
    let behind = Behind::new(false, TOLD);
    for transport in ["udp", "tcp"] {
        behind.talks(transport, "trans");
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_phone_behind_a_nat_of_its_own_registers_across_a_static_nat() {
    let behind = Behind::new(true, TOLD);
    for transport in ["udp", "tcp"] {
        behind.talks(transport, "udp-enc-tun");
    }
}

/// The opened packets are summed for an address that this host does not have: without being
/// told, its stack drops them all.
#[test]
#[ignore = "root: namespaces, BPF"]
fn without_being_told_of_the_nat_nothing_protected_is_heard() {
    let behind = Behind::new(false, "");
    let (code, told, _) = behind.register(&["--transport", "udp"]);
    assert_ne!(code, Some(0), "{told}");
    assert!(behind.lab.count("ok") > 0);
    assert_eq!(behind.lab.health().registrations, 0);
}

/// Data planes without SIP: both IP versions and modes, sizes that are cut, and TCP, whose
/// sums the P-CSCF's kernel checks.
#[test]
#[ignore = "root: namespaces, BPF"]
fn datagrams_and_tcp_cross_a_static_nat_in_both_ip_versions_and_modes() {
    let local: [IpAddr; 2] = ["10.78.0.5", "fd78::5"].map(|a| a.parse().unwrap());
    let known = [Family::V4, Family::V6].map(Family::addresses);
    let (lab, _nat) = planes(local);
    for mode in [Mode::Trans, Mode::UdpEncTun] {
        for (own, (public, u)) in local.into_iter().zip(known) {
            let views = [(own, u), (public, u)];
            let ports = [PORT_UC, PORT_US];
            let sets = lab.stand_by_seen(Suite::AesGmacNull, views, mode, ports);
            for (side, set) in [&lab.p, &lab.u].into_iter().zip(sets) {
                side.plane.activate(set).unwrap();
            }
            all_sizes(&lab, own, public, u);
            let listener = lab.p.ns.run(|| TcpListener::bind((own, PORT_PS)).unwrap());
            let client = lab.u.ns.run(|| connect((u, PORT_UC), (public, PORT_PS)));
            let (server, _) = listener.accept().unwrap();
            server.set_read_timeout(Some(WAIT)).unwrap();
            megabyte(client, server);
            let listener = lab.u.ns.run(|| TcpListener::bind((u, PORT_US)).unwrap());
            let client = lab.p.ns.run(|| connect((own, PORT_PC), (u, PORT_US)));
            let (server, from) = listener.accept().unwrap();
            assert_eq!(from, (public, PORT_PC).into());
            server.set_read_timeout(Some(WAIT)).unwrap();
            megabyte(server, client);
            crate::is_clean(&lab);
            for (side, set) in [&lab.p, &lab.u].into_iter().zip(sets) {
                side.plane.remove(set).unwrap();
            }
        }
    }
}

/// Two data planes, the P-CSCF's with these addresses behind a NAT, and the NAT.
fn planes(local: [IpAddr; 2]) -> (PlaneLab, NetNs) {
    let [p, r, u] = [(); 3].map(|()| NetNs::new().unwrap());
    forwards(&r);
    r.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1"))
        .unwrap();
    let legs = [
        ["10.78.0.5/24", "fd78::5/64"],
        ["10.78.0.1/24", "fd78::1/64"],
        ["10.77.0.1/24", "fd77::1/64"],
        ["10.77.0.2/24", "fd77::2/64"],
    ];
    let places = [(&p, NAMES[0]), (&r, "in"), (&r, "out"), (&u, NAMES[1])];
    let end = |i: usize| End {
        ns: places[i].0,
        name: places[i].1,
        addresses: &legs[i],
    };
    veth(end(0), end(1));
    veth(end(2), end(3));
    p.ip("route add default via 10.78.0.1");
    p.ip("-6 route add default via fd78::1");
    let known = [Family::V4, Family::V6].map(Family::addresses);
    for (ip, own, (public, _)) in [("ip", local[0], known[0]), ("ip6", local[1], known[1])] {
        nft(
            &r,
            &format!(
                "table {ip} nat {{
                    chain pre {{ type nat hook prerouting priority dstnat;
                        iifname \"out\" {ip} daddr {public} dnat to {own}; }}
                    chain post {{ type nat hook postrouting priority srcnat;
                        oifname \"out\" {ip} saddr {own} snat to {public}; }}
                }}"
            ),
        );
    }
    let pc = Config {
        advertised: local
            .into_iter()
            .zip(known.map(|(public, _)| public))
            .collect(),
        ..config(NAMES[0], local, [PORT_PS, PORT_PC], None)
    };
    let uc = config(NAMES[1], known.map(|(_, u)| u), [PORT_US, PORT_UC], None);
    (PlaneLab::with(p, u, [pc, uc]), r)
}

/// Datagrams both ways, larger than the MTU too.
fn all_sizes(lab: &PlaneLab, own: IpAddr, public: IpAddr, u: IpAddr) {
    let (ps, uc) = (
        lab.p.ns.run(|| udp(own, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    let mut got = vec![0; 65_536];
    let lost = |len, e| -> (usize, SocketAddr) {
        let sides = [&lab.p, &lab.u].map(|side| {
            let stats = side.plane.stats().unwrap();
            (crate::lab::named(&stats), stats.workers)
        });
        panic!("{len} bytes between {own} and {u}: {e}; {sides:?}")
    };
    for len in [0, 1, 100, 1400, 3000, 20_000] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        uc.send_to(&bytes, (public, PORT_PS)).unwrap();
        let (n, from) = ps.recv_from(&mut got).unwrap_or_else(|e| lost(len, e));
        assert!(got[..n] == bytes && from == (u, PORT_UC).into(), "{len}");
        ps.send_to(&bytes, (u, PORT_UC)).unwrap();
        let (n, from) = uc.recv_from(&mut got).unwrap_or_else(|e| lost(len, e));
        assert!(
            got[..n] == bytes && from == (public, PORT_PS).into(),
            "{len}"
        );
    }
}
