//! Batches of phones through one edge, and how long it works on them.

use std::time::{Duration, Instant};

use gm_sip::edge::{Edge, EdgeConfig, FlowEvent, Input, Output};
use gm_sip::{Message, Randomness, SetToken, Transport};

use crate::core;
use crate::phone::{CLEAR, PROTECTED, Phone};

const CORE: &str = "198.51.100.9:5060";
const CORE_LOCAL: &str = "198.51.100.1:5080";
/// Phones that are under way at once, and batches of a round.
pub const BATCH: u32 = 256;
pub const BATCHES: u32 = 16;
/// Granted to those that stay, and to those of a round.
pub const LONG: u32 = 600_000;
pub const SHORT: u32 = 60;

/// A counter that looks random enough.
struct Steps(u64);

impl Randomness for Steps {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            *byte = (self.0 >> 33) as u8;
        }
    }
}

/// How long the edge has worked, by step.
#[derive(Debug, Default, Clone, Copy)]
pub struct Spent {
    pub sm1: Duration,
    pub sm4: Duration,
    pub sm7: Duration,
    pub sm10: Duration,
    pub leave: Duration,
    pub expiry: Duration,
    /// Phones and core.
    pub others: Duration,
}

impl Spent {
    fn add(&mut self, more: &Spent) {
        self.sm1 += more.sm1;
        self.sm4 += more.sm4;
        self.sm7 += more.sm7;
        self.sm10 += more.sm10;
        self.leave += more.leave;
        self.expiry += more.expiry;
        self.others += more.others;
    }

    /// SM1 to SM12 and the expiry.
    pub fn registration(&self) -> Duration {
        self.sm1 + self.sm4 + self.sm7 + self.sm10 + self.expiry
    }
}

pub struct Bench {
    pub edge: Edge,
    now: u64,
    spi: u32,
    phone: u32,
    out: Vec<Output>,
}

/// What one phone sees of a step.
enum Seen {
    Core(Vec<u8>),
    Ue(Vec<u8>),
}

impl Bench {
    /// Limits as they are by default, but for the number of contacts.
    pub fn new() -> Bench {
        let core = CORE.parse().expect("an address");
        let mut config = EdgeConfig::new(core, CORE_LOCAL.parse().expect("an address"));
        config.limits.contacts = 400_000;
        // What the daemon does where phones and core have an MTU of their own.
        config.tcp_above = usize::MAX;
        let edge = Edge::new(config, &mut Steps(1)).expect("a configuration");
        Bench {
            edge,
            now: 1_000,
            spi: 1_000_000_000,
            phone: 0,
            out: Vec::new(),
        }
    }

    /// Takes everything out, answers installs, gives what is to be sent.
    fn drain(&mut self) -> Option<Seen> {
        let mut seen = None;
        loop {
            let Some(output) = self.edge.poll() else {
                break;
            };
            match output {
                Output::Install(request) => {
                    let set: SetToken = request.token;
                    let done = Input::Installed { set, ok: true };
                    self.edge.handle(self.now, done);
                }
                Output::ToUe(packet) => seen = Some(Seen::Ue(packet.bytes)),
                Output::ToCore { bytes, .. } => seen = Some(Seen::Core(bytes)),
                Output::Event(FlowEvent::Refused { why, .. }) => panic!("refused: {why:?}"),
                other => self.out.push(other),
            }
        }
        self.out.clear();
        seen
    }

    fn refill(&mut self) {
        while self.edge.wants_spis() {
            self.edge.add_spis([self.spi, self.spi + 1]);
            self.spi += 2;
        }
    }

    pub fn ue_sends(&mut self, phone: &Phone, protected: bool, bytes: &[u8]) -> Vec<u8> {
        self.refill();
        let (remote, local) = match protected {
            true => (phone.protected(), PROTECTED),
            false => (phone.clear(), CLEAR),
        };
        let transport = Transport::Udp;
        let input = Input::FromUe {
            local,
            remote,
            transport,
            bytes,
        };
        self.edge.handle(self.now, input);
        match self.drain() {
            Some(Seen::Core(bytes)) => bytes,
            _ => panic!("nothing for the core"),
        }
    }

    pub fn core_sends(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.refill();
        let input = Input::FromCore {
            remote: CORE.parse().expect("an address"),
            transport: Transport::Udp,
            bytes,
        };
        self.edge.handle(self.now, input);
        match self.drain() {
            Some(Seen::Ue(bytes)) => bytes,
            _ => panic!("nothing for the phone"),
        }
    }

    /// `count` phones register in batches.
    pub fn round(&mut self, count: u32, expires: u32, leave: bool) -> Spent {
        let mut spent = Spent::default();
        let mut left = count;
        while left > 0 {
            let some = left.min(BATCH);
            spent.add(&self.batch(some, expires, leave));
            left -= some;
        }
        spent
    }

    /// `count` phones register at once, for so many seconds; they leave, or stay.
    fn batch(&mut self, count: u32, expires: u32, leave: bool) -> Spent {
        let mut spent = Spent::default();
        let began = Instant::now();
        let phones = self.phone..self.phone + count;
        self.phone += count;
        let mut phones: Vec<_> = phones.map(Phone::new).collect();
        let parse = |bytes: &Vec<u8>| Message::parse(bytes).expect("SIP");

        let sm1: Vec<_> = phones.iter().map(Phone::sm1).collect();
        let (sm2, took) = timed(|| {
            let both = phones.iter().zip(&sm1);
            both.map(|(phone, sm1)| self.ue_sends(phone, false, sm1))
                .collect::<Vec<_>>()
        });
        spent.sm1 = took;
        let sm4 = sm2.iter().zip(&phones);
        let sm4 = sm4.map(|(sm2, phone)| core::challenge(&parse(sm2), phone.n()).to_bytes());
        let sm4: Vec<_> = sm4.collect();
        let (sm6, took) = timed(|| {
            sm4.iter()
                .map(|sm4| self.core_sends(sm4))
                .collect::<Vec<_>>()
        });
        spent.sm4 = took;
        phones
            .iter_mut()
            .zip(&sm6)
            .for_each(|(phone, sm6)| phone.challenged(sm6));
        let sm7: Vec<_> = phones.iter().map(Phone::sm7).collect();
        let (sm8, took) = timed(|| {
            let both = phones.iter().zip(&sm7);
            both.map(|(phone, sm7)| self.ue_sends(phone, true, sm7))
                .collect::<Vec<_>>()
        });
        spent.sm7 = took;
        let sm10 = sm8.iter().zip(&phones);
        let sm10 = sm10.map(|(sm8, phone)| core::success(&parse(sm8), &phone.impu(), expires));
        let sm10: Vec<_> = sm10.map(|message| message.to_bytes()).collect();
        let (sm12, took) = timed(|| {
            let all = sm10.iter().map(|sm10| self.core_sends(sm10));
            all.collect::<Vec<_>>()
        });
        spent.sm10 = took;
        assert!(sm12.iter().all(|sm12| sm12.starts_with(b"SIP/2.0 200")));
        if leave {
            let bye: Vec<_> = phones.iter().map(Phone::leave).collect();
            let (up, took) = timed(|| {
                let both = phones.iter().zip(&bye);
                both.map(|(phone, bye)| self.ue_sends(phone, true, bye))
                    .collect::<Vec<_>>()
            });
            spent.leave = took;
            let done = up.iter().zip(&phones);
            let done = done.map(|(up, phone)| core::success(&parse(up), &phone.impu(), 0));
            let done: Vec<_> = done.map(|message| message.to_bytes()).collect();
            let (_, took) = timed(|| done.iter().for_each(|done| drop(self.core_sends(done))));
            spent.leave += took;
        }
        spent.others =
            began.elapsed() - (spent.sm1 + spent.sm4 + spent.sm7 + spent.sm10 + spent.leave);
        // Behind every transaction, and behind the end of those that do not stay.
        self.now += 40_000;
        let ((), took) = timed(|| self.expire());
        spent.expiry = took;
        self.now += u64::from(SHORT) * 1_000;
        let ((), took) = timed(|| self.expire());
        spent.expiry += took;
        spent
    }

    fn expire(&mut self) {
        while self.edge.next_timeout().is_some_and(|due| due <= self.now) {
            self.edge.handle_timeout(self.now);
            self.drain();
        }
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed())
}
