//! Kamailio's SAs change hands: gmespd takes them over and gives them back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gm_xfrm::kernel::State;
use serde_json::Value;

use crate::gm::Gm;
use crate::kamailio::Kamailio;
use crate::lab::Lab;
use crate::phone::{Phone, Registered};
use crate::{assert_in_kernel, four, leave, numbers};

/// Longer than an emulated machine takes for some echoes.
const WAIT: Duration = Duration::from_secs(60);

impl Phone {
    /// Echoes, one after the other, until `work` is done; how many that were. It has come
    /// to some before `work` begins, and goes on a little when it has ended.
    pub fn echoes_while(&mut self, work: impl FnOnce()) -> u64 {
        let (count, ends) = (AtomicU64::new(0), AtomicBool::new(false));
        let wait_for = |more: u64| {
            let (from, deadline) = (count.load(Ordering::Relaxed), Instant::now() + WAIT);
            while count.load(Ordering::Relaxed) < from + more && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        std::thread::scope(|s| {
            let echoes = s.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    self.echo(&format!("echo {}", count.load(Ordering::Relaxed)));
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            wait_for(3);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            wait_for(5);
            ends.store(true, Ordering::Relaxed);
            let echoed = echoes.join();
            for result in [done, echoed] {
                if let Err(panic) = result {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        count.into_inner()
    }
}

impl Lab {
    /// The socket, by its inode, of Kamailio's that is connected to a phone's client port.
    pub fn connection(&self, of: &Registered) -> String {
        let read = || std::fs::read_to_string("/proc/thread-self/net/tcp");
        let all = self.pcscf.run(read).expect("the kernel's connections");
        let (local, remote) = (of.ports[3], of.ports[0]);
        let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        let mut found = all.lines().map(words).filter(|w: &Vec<String>| {
            // 01 is ESTABLISHED.
            w[1].ends_with(&local) && w[2].ends_with(&remote) && w[3] == "01"
        });
        let connection = found.next().unwrap_or_else(|| panic!("none: {all}"));
        connection[9].clone()
    }
}

/// The last number of each SA, by SPI, when it moved.
fn moved(told: &Value) -> BTreeMap<u32, u64> {
    assert_eq!(told["left_out"], Value::Array(Vec::new()), "{told}");
    let sets = told["sets"].as_array().expect("sets");
    let sas = sets.iter().flat_map(|set| set["sas"].as_array());
    let number = |sa: &Value, name: &str| sa[name].as_u64().expect("a number");
    sas.flatten()
        .map(|sa| (number(sa, "spi") as u32, number(sa, "last")))
        .collect()
}

/// The last 32 numbers have all come to this inbound SA of the kernel's.
fn assert_no_hole(state: &State) {
    let numbers = &state.numbers;
    for back in 0..numbers.top.min(32) {
        let number = numbers.top - back;
        assert!(numbers.is_seen(number), "{number} of {}", numbers.top);
    }
}

#[test]
#[ignore = "needs a kernel with ESP, and kamailio"]
fn gmespd_takes_the_sas_over_and_gives_them_back_while_messages_go_on() {
    gm_tests::needs_esp!();
    for suite in ["hmac-sha-1-96/aes-cbc", "hmac-sha-1-96/null"] {
        let lab = Lab::new();
        let mut phone = lab.phone(suite, "udp");
        let registered = phone.register();
        phone.echo("before");
        let gm = Gm::start(&lab);
        // Beside gmespd the kernel's SAs go on.
        let before = numbers(&lab, &registered);
        phone.echo("beside");
        assert!(numbers(&lab, &registered).0 > before.0);
        assert_eq!(gm.sas().len(), 0);

        let would = gm.xfrm(&["adopt", "--dry-run"]);
        assert_eq!(moved(&would).len(), 4);
        assert_eq!((gm.sas().len(), lab.states().len()), (0, 4));

        let mut last = BTreeMap::new();
        phone.echoes_while(|| {
            last = moved(&gm.xfrm(&["adopt"]));
            assert_eq!((lab.states().len(), lab.policies()), (0, 0));
        });
        assert_eq!(gm.sas().len(), 4);
        for (spi, ..) in four(&registered) {
            // Every number since the move is one packet of gmespd's.
            let sa = gm.sa(spi);
            let number = sa.top.max(sa.sa.seq.unwrap_or_default());
            assert_eq!(sa.packets, number - last[&spi], "{sa:?}");
        }
        assert!(gm.sa(registered.spis[3]).packets > 0);
        gm.assert_nothing_dropped();

        phone.echoes_while(|| {
            last = moved(&gm.xfrm(&["give-back"]));
            assert_eq!((lab.states().len(), lab.policies()), (4, 4));
        });
        assert_in_kernel(&lab, &registered);
        assert_eq!(gm.sas().len(), 0);
        let [uc_ps, us_pc, ps_uc, pc_us] = four(&registered).map(|(spi, ..)| lab.state(spi));
        for state in [&uc_ps, &us_pc] {
            assert_no_hole(state);
            let since = state.numbers.top - last[&state.id.spi];
            assert_eq!(state.counters.packets, since, "{state:?}");
        }
        for state in [&ps_uc, &pc_us] {
            assert!(state.numbers.seq > last[&state.id.spi]);
        }
        assert!(uc_ps.counters.packets > 0 && pc_us.counters.packets > 0);
        gm.assert_nothing_dropped();
        lab.assert_nothing_dropped();

        gm.end();
        phone.echo("after");
        leave(&mut phone);
    }
}

#[test]
#[ignore = "needs a kernel with ESP, and kamailio"]
fn a_renewal_after_the_move_is_in_the_kernel_until_it_is_moved_too() {
    gm_tests::needs_esp!();
    let lab = Lab::new();
    let mut phone = lab.phone("hmac-sha-1-96/aes-cbc", "udp");
    let first = phone.register();
    let gm = Gm::start(&lab);
    gm.xfrm(&["adopt"]);
    // Its REGISTER and the challenge go through gmespd, Kamailio's new SAs are the kernel's.
    let second = phone.register();
    assert_in_kernel(&lab, &second);
    phone.echo("in the kernel");
    assert_eq!((gm.sas().len(), lab.states().len()), (4, 4));
    phone.echoes_while(|| drop(gm.xfrm(&["adopt"])));
    assert_eq!((gm.sas().len(), lab.states().len()), (8, 0));
    for (spi, ..) in four(&first).into_iter().chain(four(&second)) {
        gm.sa(spi);
    }
    gm.assert_nothing_dropped();
}

#[test]
#[ignore = "needs a kernel with ESP, and kamailio"]
fn a_restart_of_kamailio_leaves_gmespds_sas_and_phones_register_anew() {
    gm_tests::needs_esp!();
    let mut lab = Lab::new();
    let mut phone = lab.phone("hmac-sha-1-96/aes-cbc", "udp");
    let first = phone.register();
    let gm = Gm::start(&lab);
    gm.xfrm(&["adopt"]);
    // Kamailio flushes what is its in the kernel; gmespd's is not.
    lab.kamailio.take().expect("kamailio runs").end();
    assert_eq!(gm.sas().len(), 4);
    // A new one knows no phone and begins with the same SPIs, so this set has to go.
    lab.kamailio = Some(Kamailio::start(&lab.pcscf, lab.dir.path()));
    gm.remove_all();
    // Nor does a phone that still has SAs take the same SPIs again.
    drop(phone);
    let mut phone = lab.phone("hmac-sha-1-96/aes-cbc", "udp");
    let second = phone.register();
    assert_eq!(second.spis[2..], first.spis[2..]);
    assert_in_kernel(&lab, &second);
    phone.echoes_while(|| drop(gm.xfrm(&["adopt"])));
    assert_eq!((gm.sas().len(), lab.states().len()), (4, 0));
}

#[test]
#[ignore = "needs a kernel with ESP, and kamailio"]
fn connections_survive_the_move_and_the_way_back() {
    gm_tests::needs_esp!();
    let lab = Lab::new();
    let mut phone = lab.phone("hmac-sha-1-96/aes-cbc", "tcp");
    let registered = phone.register();
    phone.echo("before");
    let connection = lab.connection(&registered);
    let gm = Gm::start(&lab);
    phone.echoes_while(|| drop(gm.xfrm(&["adopt"])));
    assert_eq!(lab.connection(&registered), connection);
    phone.echoes_while(|| drop(gm.xfrm(&["give-back"])));
    assert_eq!(lab.connection(&registered), connection);
    gm.assert_nothing_dropped();
    lab.assert_nothing_dropped();
}
