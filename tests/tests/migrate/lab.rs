//! The laboratory: Kamailio and the core in one namespace, the phone in the other.

use std::time::{Duration, Instant};

use gm_tests::netns::{End, NetNs, veth};
use gm_xfrm::kernel::{State, Xfrm};

use crate::common::{PCSCF, UE};
use crate::core::Core;
use crate::kamailio::Kamailio;
use crate::phone::Phone;

/// Longer than a loaded machine takes.
const WAIT: Duration = Duration::from_secs(60);

/// Namespaces, link, core, Kamailio.
pub struct Lab {
    // Processes end before their namespaces.
    pub kamailio: Option<Kamailio>,
    pub core: Core,
    pub dir: tempfile::TempDir,
    pub ue: NetNs,
    pub pcscf: NetNs,
}

impl Lab {
    /// Kamailio listens; the core challenges every REGISTER.
    pub fn new() -> Lab {
        let (ue, pcscf) = (NetNs::new().expect("root"), NetNs::new().expect("root"));
        veth(
            End {
                ns: &pcscf,
                name: "p0",
                addresses: &[&format!("{PCSCF}/24")],
            },
            End {
                ns: &ue,
                name: "u0",
                addresses: &[&format!("{UE}/24")],
            },
        );
        let dir = tempfile::tempdir().expect("a directory");
        let core = Core::start(&pcscf, true);
        Lab {
            kamailio: Some(Kamailio::start(&pcscf, dir.path())),
            core,
            dir,
            ue,
            pcscf,
        }
    }

    /// A phone that offers this suite and sends over "udp" or "tcp".
    pub fn phone(&self, suite: &str, transport: &str) -> Phone {
        Phone::start(&self.ue, self.dir.path(), suite, transport)
    }

    /// Waits until the core has had so many answers to MESSAGEs of its own: only then are
    /// all packets of them gone.
    pub fn answers(&self, count: usize) {
        let deadline = Instant::now() + WAIT;
        while self.core.answered() < count {
            let now = self.core.answered();
            assert!(Instant::now() < deadline, "{now} answers, not {count}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The states in the kernel of Kamailio's host.
    pub fn states(&self) -> Vec<State> {
        let all = || Xfrm::open().and_then(|mut xfrm| xfrm.states());
        self.pcscf.run(all).expect("the kernel's states")
    }

    /// The state with this SPI.
    pub fn state(&self, spi: u32) -> State {
        let mut all = self.states().into_iter();
        all.find(|state| state.id.spi == spi)
            .unwrap_or_else(|| panic!("no state with SPI {spi}"))
    }

    /// How many policies the kernel of Kamailio's host has.
    pub fn policies(&self) -> usize {
        let all = || Xfrm::open().and_then(|mut xfrm| xfrm.policies());
        self.pcscf.run(all).expect("the kernel's policies").len()
    }

    /// The kernel of Kamailio's host has dropped nothing for IPsec's sake.
    pub fn assert_nothing_dropped(&self) {
        let read = || std::fs::read_to_string("/proc/thread-self/net/xfrm_stat");
        let stat = self.pcscf.run(read).expect("the kernel's statistics");
        for line in stat.lines() {
            assert_eq!(line.split_whitespace().nth(1), Some("0"), "{line}");
        }
    }

    /// What Kamailio has logged.
    pub fn log(&self) -> String {
        self.kamailio
            .as_ref()
            .map(Kamailio::log)
            .unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Shown when the test fails.
        let all = || Xfrm::open().and_then(|mut xfrm| xfrm.states());
        println!("{:#?}", self.pcscf.run(all));
        println!("{}", self.pcscf.ip("xfrm policy"));
        let read = || std::fs::read_to_string("/proc/thread-self/net/xfrm_stat");
        println!("{}", self.pcscf.run(read).unwrap_or_default());
        println!("kamailio:\n{}", self.log());
    }
}
