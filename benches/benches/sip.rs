//! Complete registrations through gm-sip's edge, without I/O, on one core: SM1 to SM12, and
//! the end of it, by expiry or by de-registration. Every phone is another identity at
//! another address, and a batch of them is under way at once.
//!
//! The clock stands still while the edge does not work: what phones and core cost is a
//! figure of its own. The data plane is left out: each Install is answered at once.
//!
//! `-- --test` goes once through all of it. `GM_BENCH_SIP` names the rounds (default 9).

use std::time::{Duration, Instant};

use gm_sip::edge::{Edge, EdgeConfig, FlowEvent, Input, Output};
use gm_sip::{Message, Randomness, SetToken, Transport};

#[path = "sip/core.rs"]
mod core;
#[path = "sip/home.rs"]
mod home;
#[path = "sip/phone.rs"]
mod phone;
#[path = "sip/wire.rs"]
mod wire;

use phone::{CLEAR, PROTECTED, Phone};

const CORE: &str = "198.51.100.9:5060";
const CORE_LOCAL: &str = "198.51.100.1:5080";
/// Phones that are under way at once, and batches of a round.
const BATCH: u32 = 256;
const BATCHES: u32 = 16;
/// Granted to those that stay, and to those of a round.
const LONG: u32 = 600_000;
const SHORT: u32 = 60;

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
struct Spent {
    sm1: Duration,
    sm4: Duration,
    sm7: Duration,
    sm10: Duration,
    leave: Duration,
    expiry: Duration,
    /// Phones and core.
    others: Duration,
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
    fn registration(&self) -> Duration {
        self.sm1 + self.sm4 + self.sm7 + self.sm10 + self.expiry
    }
}

struct Bench {
    edge: Edge,
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
    fn new() -> Bench {
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

    fn from_ue(&mut self, phone: &Phone, protected: bool, bytes: &[u8]) -> Vec<u8> {
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

    fn from_core(&mut self, bytes: &[u8]) -> Vec<u8> {
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
    fn round(&mut self, count: u32, expires: u32, leave: bool) -> Spent {
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
            both.map(|(phone, sm1)| self.from_ue(phone, false, sm1))
                .collect::<Vec<_>>()
        });
        spent.sm1 = took;
        let sm4 = sm2.iter().zip(&phones);
        let sm4 = sm4.map(|(sm2, phone)| core::challenge(&parse(sm2), phone.n()).to_bytes());
        let sm4: Vec<_> = sm4.collect();
        let (sm6, took) = timed(|| {
            sm4.iter()
                .map(|sm4| self.from_core(sm4))
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
            both.map(|(phone, sm7)| self.from_ue(phone, true, sm7))
                .collect::<Vec<_>>()
        });
        spent.sm7 = took;
        let sm10 = sm8.iter().zip(&phones);
        let sm10 = sm10.map(|(sm8, phone)| core::success(&parse(sm8), &phone.impu(), expires));
        let sm10: Vec<_> = sm10.map(|message| message.to_bytes()).collect();
        let (sm12, took) = timed(|| {
            let all = sm10.iter().map(|sm10| self.from_core(sm10));
            all.collect::<Vec<_>>()
        });
        spent.sm10 = took;
        assert!(sm12.iter().all(|sm12| sm12.starts_with(b"SIP/2.0 200")));
        if leave {
            let bye: Vec<_> = phones.iter().map(Phone::leave).collect();
            let (up, took) = timed(|| {
                let both = phones.iter().zip(&bye);
                both.map(|(phone, bye)| self.from_ue(phone, true, bye))
                    .collect::<Vec<_>>()
            });
            spent.leave = took;
            let done = up.iter().zip(&phones);
            let done = done.map(|(up, phone)| core::success(&parse(up), &phone.impu(), 0));
            let done: Vec<_> = done.map(|message| message.to_bytes()).collect();
            let (_, took) = timed(|| done.iter().for_each(|done| drop(self.from_core(done))));
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

/// Median and spread, (max - min) / median.
fn median(mut all: Vec<f64>) -> (f64, f64) {
    all.sort_by(f64::total_cmp);
    let median = all[all.len() / 2];
    (median, (all[all.len() - 1] - all[0]) / median)
}

fn engine(registered: u32, count: u32, rounds: usize) {
    let mut bench = Bench::new();
    bench.round(registered, LONG, false);
    assert_eq!(bench.edge.len().0, registered as usize);
    bench.round(count, SHORT, false);
    let rounds: Vec<_> = (0..rounds)
        .map(|n| bench.round(count, SHORT, n % 2 == 1))
        .collect();
    assert_eq!(
        bench.edge.len().0,
        registered as usize,
        "all of a round end"
    );
    let each = |of: &dyn Fn(&Spent) -> Duration| {
        let us = |s: &Spent| of(s).as_secs_f64() * 1e6 / f64::from(count);
        median(rounds.iter().map(us).collect())
    };
    let (us, spread) = each(&Spent::registration);
    println!(
        "sip/engine/{registered} registered: {:.0} registrations/s, {us:.1} us each (spread {spread:.2}) \
         [sm1 {:.1} sm4 {:.1} sm7 {:.1} sm10 {:.1} expiry {:.1}], phones and core beside it {:.1}",
        1e6 / us,
        each(&|s| s.sm1).0,
        each(&|s| s.sm4).0,
        each(&|s| s.sm7).0,
        each(&|s| s.sm10).0,
        each(&|s| s.expiry).0,
        each(&|s| s.others).0,
    );
    let leaving: Vec<_> = rounds.iter().filter(|s| !s.leave.is_zero()).collect();
    if !leaving.is_empty() {
        let us = |s: &&Spent| s.leave.as_secs_f64() * 1e6 / f64::from(count);
        let (us, spread) = median(leaving.iter().map(us).collect());
        println!(
            "sip/engine/{registered} registered: de-registration {us:.1} us (spread {spread:.2})"
        );
    }
}

fn sizes() {
    let mut bench = Bench::new();
    for n in 0..4 {
        let mut phone = Phone::new(n);
        let sm1 = phone.sm1();
        let sm2 = bench.from_ue(&phone, false, &sm1);
        let sm4 = core::challenge(&Message::parse(&sm2).expect("SIP"), n).to_bytes();
        let sm6 = bench.from_core(&sm4);
        phone.challenged(&sm6);
        let sm7 = phone.sm7();
        let sm8 = bench.from_ue(&phone, true, &sm7);
        let up = Message::parse(&sm8).expect("SIP");
        let sm10 = core::success(&up, &phone.impu(), 60).to_bytes();
        println!(
            "sip/sizes/{n}: sm1 {} sm4 {} sm6 {} sm7 {} sm10 {}",
            sm1.len(),
            sm4.len(),
            sm6.len(),
            sm7.len(),
            sm10.len()
        );
    }
}

/// With real sockets, by each number of registrations under way.
fn end_to_end(count: u32, concurrent: u32, rounds: usize) {
    let net = match wire::Net::new() {
        Ok(net) => net,
        Err(why) => return println!("sip/wire: not run: {why}"),
    };
    let mut all = Vec::new();
    for _ in 0..rounds {
        match net.run(count, concurrent) {
            Ok(rate) => all.push(rate),
            Err(why) => return println!("sip/wire: not run: {why}"),
        }
    }
    let each = |of: &dyn Fn(&wire::Rate) -> f64| median(all.iter().map(of).collect());
    let (rate, spread) = each(&|r| r.per_second);
    println!(
        "sip/wire/{count} phones, {concurrent} at a time: {rate:.0} registrations/s (spread \
         {spread:.2}); us each: gmespd {:.0}, of it gm-edge {:.0}; phones {:.0}, home {:.0}; failed {}",
        each(&|r| r.gmespd).0,
        each(&|r| r.edge).0,
        each(&|r| r.phones).0,
        each(&|r| r.home).0,
        all.iter().map(|r| r.failed).sum::<u64>(),
    );
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--home") {
        let local = args[at + 1].parse().expect("an address");
        return home::serve(local, args[at + 2].parse().expect("a number"));
    }
    let has = |arg: &str| args.iter().any(|a| a == arg);
    // As criterion's benches have it: what is not an option is what is wanted.
    let wanted = |part: &str| {
        let mut filters = args[1..].iter().filter(|a| !a.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|f| part.contains(f.as_str()))
    };
    let rounds = std::env::var("GM_BENCH_SIP").ok();
    let rounds = rounds.and_then(|n| n.parse().ok());
    if has("--test") {
        sizes();
        engine(100, 50, 2);
        return end_to_end(20, 10, 1);
    }
    if wanted("engine") {
        sizes();
        engine(0, BATCH * BATCHES, rounds.unwrap_or(9));
        engine(100_000, BATCH * BATCHES, rounds.unwrap_or(9));
    }
    if wanted("wire") {
        end_to_end(4_000, 200, rounds.unwrap_or(5));
    }
}
