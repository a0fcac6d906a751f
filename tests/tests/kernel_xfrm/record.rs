//! The kernel's messages as they come, read by what reads them anywhere.
//!
//! With `GM_RECORD=1` the bytes are printed, for xfrm-tools/tests/recorded:
//!
//! ```text
//! GM_RECORD=1 kernel_xfrm --ignored --nocapture record | sed -n 's/^RECORD //p'
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gm_esp::Suite;
use gm_tests::netns::NetNs;
use gm_xfrm::kernel::plan::{self, Dir};
use gm_xfrm::kernel::{Event, Mark, Message, Numbers, PolicyDir, Ports, StateId, Xfrm, read};
use netlink_sys::protocols::NETLINK_XFRM;
use netlink_sys::{Socket, SocketAddr};

use crate::ground::{PHONE, PORTS, PRIVATE, US, Way, address, keys, plan_of, spec, tables};
use crate::pair::{Two, hears, socket};

const NEWSA: u16 = 0x10;
const GETSA: u16 = 0x12;
const GETPOLICY: u16 = 0x15;
const DUMP: u16 = 0x301;

/// A socket that keeps what it hears.
struct Tape {
    socket: Socket,
    heard: Vec<Vec<u8>>,
}

impl Tape {
    /// Call in the namespace.
    fn new(groups: &[u32]) -> Tape {
        let mut socket = Socket::new(NETLINK_XFRM).expect("XFRM");
        socket.bind_auto().expect("bound");
        socket.set_cap_ack(true).expect("a setting");
        socket.set_ext_ack(true).expect("a setting");
        for group in groups {
            socket.add_membership(*group).expect("a group");
        }
        Tape {
            socket,
            heard: Vec::new(),
        }
    }

    fn receive(&mut self, flags: i32) -> Option<Vec<Message>> {
        let mut buffer = Vec::with_capacity(64 << 10);
        self.socket.recv_from(&mut buffer, flags).ok()?;
        let messages = read(&buffer);
        self.heard.push(buffer);
        Some(
            messages
                .into_iter()
                .map(|m| m.expect("a message"))
                .collect(),
        )
    }

    /// A request without a body, and all its answers.
    fn dump(&mut self, kind: u16) -> Vec<Message> {
        let words: [&[u8]; 4] = [
            &16u32.to_ne_bytes(),
            &kind.to_ne_bytes(),
            &DUMP.to_ne_bytes(),
            &[0; 8],
        ];
        self.socket
            .send_to(&words.concat(), &SocketAddr::new(0, 0), 0)
            .expect("sent");
        let mut all = Vec::new();
        while !matches!(all.last(), Some(Message::Verdict { .. })) {
            all.extend(self.receive(0).expect("an answer"));
        }
        all
    }

    /// What has come until now.
    fn drain(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.receive(64)).flatten().collect()
    }

    fn print(&self, name: &str) {
        if std::env::var_os("GM_RECORD").is_some() {
            for datagram in &self.heard {
                println!("RECORD {name} {}", hex::encode(datagram));
            }
        }
    }
}

/// One of everything.
fn fill(xfrm: &mut Xfrm) -> (usize, usize) {
    let (mut states, mut policies) = (0, 0);
    let mut spi = 0x1000;
    for suite in Suite::every() {
        for way in Way::ALL {
            for dir in [Dir::In, Dir::Out] {
                spi += 1;
                let mut spec = spec(spi, suite, way, dir);
                spec.esn = spi % 2 == 0;
                spec.replay_window = 32 << (spi % 8);
                // Selectors of their own, so that all policies are there.
                spec.selector.src_port = Some(7000 + (spi % 0x1000) as u16);
                let numbers = Numbers::with_window(
                    u64::from(spi) * 3,
                    u64::from(spi) * 7,
                    spec.replay_window,
                    spec.esn,
                    |k| (k + spi) % 3 == 0,
                );
                let plan =
                    plan::sa_with(&spec, &keys(suite), dir, plan::reqid(spi.into()), numbers);
                xfrm.add_state(&plan.state).expect("a state");
                states += 1;
                for policy in &plan.policies {
                    xfrm.add_policy(policy).expect("a policy");
                    policies += 1;
                }
            }
        }
    }
    // The old form of the window; a mark; an interface; flags.
    let mut other = plan_of(0x2000, Suite::HmacSha1Null, Way::Trans4, Dir::In).state;
    other.numbers = Numbers::with_window(17, 40, 32, false, |k| k % 5 == 0);
    other.numbers.legacy = true;
    xfrm.add_state(&other).expect("a state");
    other.id.spi += 1;
    other.mark = Some(Mark {
        value: 0x1234,
        mask: 0xffff,
    });
    other.if_id = 77;
    other.extra_flags = 1;
    other.flags = 4;
    xfrm.add_state(&other).expect("a state");
    states += 2;
    for dir in [PolicyDir::In, PolicyDir::Out, PolicyDir::Forward] {
        let mut policy = plan::base(address(US[1]), plan::blocks(5060, 5063)[0], 6, dir);
        xfrm.add_policy(&policy).expect("a policy");
        policy.id.mark = other.mark;
        policy.id.selector.sport = Ports {
            port: 0x1200,
            mask: 0xff00,
        };
        xfrm.add_policy(&policy).expect("a policy");
        policies += 2;
    }
    (states, policies)
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn recorded_tables_are_read_whole() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    ns.run(|| {
        let mut xfrm = Xfrm::open().expect("XFRM");
        let (states, policies) = fill(&mut xfrm);
        let mut tape = Tape::new(&[]);
        let is_state = |m: &&Message| matches!(m, Message::Event(Event::StateAdded(_)));
        assert_eq!(tape.dump(GETSA).iter().filter(is_state).count(), states);
        tape.print("states");
        let mut tape = Tape::new(&[]);
        let is_policy = |m: &&Message| matches!(m, Message::Event(Event::PolicyAdded(_)));
        assert_eq!(
            tape.dump(GETPOLICY).iter().filter(is_policy).count(),
            policies
        );
        tape.print("policies");
    });
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn recorded_events_are_read_one_by_one() {
    gm_tests::needs_esp!();
    let two = Two::new();
    let encap = crate::pair::encap(&two);
    let [us, phone] = two.install(0x1000, 1, Suite::HmacSha1AesCbc, Way::Tunnel);
    let mut tape = two.us.run(|| Tape::new(&[1, 2, 3, 4, 5, 8]));

    // A packet; then one from another UDP port.
    let ps = socket(&two.us, address(US[0]), PORTS[1]);
    let uc = socket(&two.phone, address(PRIVATE), PORTS[2]);
    uc.send_to(b"up", (address(US[0]), PORTS[1])).expect("sent");
    hears(&ps, b"up");
    let moved = socket(&two.phone, address(PHONE[0]), 40_000);
    gm_xsk::esp_in_udp(&moved).expect("ESP in UDP");
    let mut state = phone[0].state.clone();
    state.encap.as_mut().expect("UDP").sport = 40_000;
    tables(&two.phone, |xfrm| xfrm.update_state(&state)).expect("an update");
    uc.send_to(b"up", (address(US[0]), PORTS[1])).expect("sent");
    hears(&ps, b"up");
    drop(encap);

    two.us.run(|| {
        let mut xfrm = Xfrm::open().expect("XFRM");
        let one = plan_of(0x5000, Suite::NullAesGcm, Way::Trans6, Dir::Out);
        xfrm.add_state(&one.state).expect("a state");
        xfrm.update_state(&one.state).expect("an update");
        let numbers = one.state.numbers.clone().after(9);
        xfrm.set_numbers(one.state.id, &numbers).expect("numbers");
        for policy in &one.policies {
            xfrm.add_policy(policy).expect("a policy");
            xfrm.update_policy(policy).expect("a policy");
            xfrm.delete_policy(&policy.id).expect("a policy");
        }
        xfrm.delete_state(one.state.id).expect("a state");
        // A policy without a state: somebody is asked for one.
        xfrm.delete_state(us[1].state.id).expect("a state");
        let _ = ps.send_to(b"down", (address(PRIVATE), PORTS[2]));
        // One that expires.
        two.us.ip(&format!(
            "xfrm state add src {} dst {} proto esp spi 0x6000 mode transport \
             aead rfc4106(gcm(aes)) 0x{} 128 limit time-soft 1 limit time-hard 2",
            PHONE[0],
            US[0],
            "11".repeat(20)
        ));
    });
    let expired = StateId::esp(address(US[0]), 0x6000);
    let is_gone = |m: &Message| matches!(m, Message::Event(Event::StateExpired { id, hard: true }) if *id == expired);
    let mut messages = tape.drain();
    let end = Instant::now() + Duration::from_secs(60);
    while !messages.iter().any(is_gone) {
        assert!(Instant::now() < end, "it does not expire: {messages:#?}");
        std::thread::sleep(Duration::from_millis(100));
        messages.extend(tape.drain());
    }
    two.us.ip("xfrm policy flush");
    two.us.ip("xfrm state flush");
    messages.extend(tape.drain());
    let names: BTreeSet<&str> = messages.iter().map(name).collect();
    let all = [
        "added",
        "expired",
        "flushed",
        "mapping",
        "numbers",
        "policies flushed",
        "policy added",
        "policy removed",
        "policy updated",
        "removed",
        "updated",
        "wanted",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), all);
    tape.print("events");
}

fn name(message: &Message) -> &'static str {
    let Message::Event(event) = message else {
        return "another";
    };
    match event {
        Event::StateAdded(_) => "added",
        Event::StateUpdated(_) => "updated",
        Event::StateRemoved { last: Some(_), .. } => "removed",
        Event::StateRemoved { last: None, .. } => "removed without a word",
        Event::StateExpired { .. } => "expired",
        Event::StatesFlushed => "flushed",
        Event::PolicyAdded(_) => "policy added",
        Event::PolicyUpdated(_) => "policy updated",
        Event::PolicyRemoved(_) => "policy removed",
        Event::PoliciesFlushed => "policies flushed",
        Event::Mapping { .. } => "mapping",
        Event::Numbers { .. } => "numbers",
        Event::Wanted { .. } => "wanted",
        Event::Lost => "lost",
    }
}

/// Refusals, with the words that the kernel has for them.
#[test]
#[ignore = "needs root"]
fn recorded_refusals_have_the_kernels_words() {
    let ns = NetNs::new().expect("root");
    ns.run(|| {
        let mut tape = Tape::new(&[]);
        let mut refused = |kind: u16, body: &[u8]| {
            let length = 16 + body.len() as u32;
            let mut request = vec![0; 16];
            request[..4].copy_from_slice(&length.to_ne_bytes());
            request[4..6].copy_from_slice(&kind.to_ne_bytes());
            request[6..8].copy_from_slice(&5u16.to_ne_bytes());
            request.extend_from_slice(body);
            let kernel = SocketAddr::new(0, 0);
            tape.socket.send_to(&request, &kernel, 0).expect("sent");
            let answer = tape.receive(0).expect("an answer");
            let [Message::Verdict { code, text }] = answer.as_slice() else {
                panic!("{answer:?}");
            };
            println!("{code} {text}");
            *code
        };
        // A state that is not there.
        let mut name = [0; 24];
        name[..4].copy_from_slice(&[192, 0, 2, 1]);
        name[16..20].copy_from_slice(&0x1000u32.to_be_bytes());
        name[20..22].copy_from_slice(&2u16.to_ne_bytes());
        name[22] = 50;
        assert_eq!(refused(GETSA, &name), 3, "ESRCH");
        // Half a name.
        assert_eq!(refused(GETSA, &name[..8]), 22, "EINVAL");
        // A new state without algorithms; newer kernels have words about it.
        let mut state = [0; 224];
        state[76] = 50;
        state[212..214].copy_from_slice(&2u16.to_ne_bytes());
        assert_eq!(refused(NEWSA, &state), 22, "EINVAL");
        tape.print("refusals");
    });
}
