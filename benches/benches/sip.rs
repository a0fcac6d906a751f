//! Complete registrations through gm-sip's edge, without I/O, on one core: SM1 to SM12, and
//! the end of it, by expiry or by de-registration. Every phone is another identity at
//! another address, and a batch of them is under way at once.
//!
//! The clock stands still while the edge does not work: what phones and core cost is a
//! figure of its own. The data plane is left out: each Install is answered at once.
//!
//! `-- --test` goes once through all of it.
#![allow(clippy::print_stdout, reason = "a bench's report goes there")]

use std::time::{Duration, Instant};

use gm_benches::report::{self, Table};
use gm_benches::stats::Figure;
use gm_sip::edge::{Edge, EdgeConfig, FlowEvent, Input, Output};
use gm_sip::{Message, Randomness, SetToken, Transport};
use serde_json::{Value, json};

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

/// The columns of the engine's table behind the first.
const STEPS: [&str; 10] = [
    "registered before",
    "registrations/s",
    "us each",
    "SM1",
    "SM4",
    "SM7",
    "SM10",
    "expiry",
    "de-registration",
    "phones and core",
];

/// A row: so many are registered already.
fn engine(registered: u32, count: u32, rounds: usize) -> [Value; 10] {
    let mut bench = Bench::new();
    bench.round(registered, LONG, false);
    assert_eq!(bench.edge.len().0, registered as usize);
    bench.round(count, SHORT, false);
    let staying: Vec<_> = (0..rounds)
        .map(|_| bench.round(count, SHORT, false))
        .collect();
    let leaving: Vec<_> = (0..rounds.div_ceil(4))
        .map(|_| bench.round(count, SHORT, true))
        .collect();
    assert_eq!(
        bench.edge.len().0,
        registered as usize,
        "all of a round end"
    );
    let us = |all: &[Spent], of: &dyn Fn(&Spent) -> Duration| -> Vec<f64> {
        let each = |s: &Spent| of(s).as_secs_f64() * 1e6 / f64::from(count);
        all.iter().map(each).collect()
    };
    let figure = |of: &dyn Fn(&Spent) -> Duration| Value::from(Figure::of(&us(&staying, of)));
    let whole = us(&staying, &Spent::registration);
    let rate: Vec<_> = whole.iter().map(|us| 1e6 / us).collect();
    [
        json!(registered),
        Figure::of(&rate).into(),
        Figure::of(&whole).into(),
        figure(&|s| s.sm1),
        figure(&|s| s.sm4),
        figure(&|s| s.sm7),
        figure(&|s| s.sm10),
        figure(&|s| s.expiry),
        Figure::of(&us(&leaving, &|s| s.leave)).into(),
        figure(&|s| s.others),
    ]
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

/// With real sockets; `None` where that cannot be.
fn end_to_end(count: u32, concurrent: u32, rounds: usize) -> Option<Table> {
    let say = |why: String| println!("sip: nothing end to end: {why}");
    let net = wire::Net::new().map_err(say).ok()?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        all.push(net.run(count, concurrent).map_err(say).ok()?);
    }
    let each = |of: fn(&wire::Rate) -> f64| -> Value {
        Figure::of(&all.iter().map(of).collect::<Vec<_>>()).into()
    };
    let table = Table::new(
        "Registrations end to end",
        "gmespd with XDP and AF_XDP on CPU 0, the home network and gm-ue load on CPU 1, a veth \
         between two network namespaces. Processor time in us for each registration; that of \
         phones has their start and end in it.",
    );
    let columns = [
        "phones",
        "at a time",
        "registrations/s",
        "gmespd",
        "its thread gm-edge",
        "phones' side",
        "home",
        "failed",
    ];
    Some(table.columns(&columns).row([
        json!(count),
        json!(concurrent),
        each(|r| r.per_second),
        each(|r| r.gmespd),
        each(|r| r.edge),
        each(|r| r.phones),
        each(|r| r.home),
        json!(all.iter().map(|r| r.failed).sum::<u64>()),
    ]))
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--home") {
        let local = args[at + 1].parse().expect("an address");
        return home::serve(local, args[at + 2].parse().expect("a number"));
    }
    // As criterion's benches have it: what is not an option is what is wanted.
    let wanted = |part: &str| {
        let mut filters = args[1..].iter().filter(|a| !a.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|f| part.contains(f.as_str()))
    };
    let small = gm_benches::smoke();
    let mut tables: Vec<Value> = Vec::new();
    if wanted("engine") {
        sizes();
        let note = "gm-sip's edge without I/O on one core, Installs answered at once; us of the \
                    engine for each registration from SM1 to SM12 and its expiry, by step; what \
                    phones and a core cost in the same loop is a column of its own and counts \
                    for nothing. 256 under way at once.";
        let table = Table::new("Registrations without I/O", note).columns(&STEPS);
        let rounds = gm_benches::rounds(15);
        let (few, many, count) = match small {
            true => (0, 100, 50),
            false => (0, 100_000, BATCH * BATCHES),
        };
        let table = table
            .row(engine(few, count, rounds))
            .row(engine(many, count, rounds));
        tables.push(table.into());
    }
    if wanted("wire") {
        let (count, concurrent) = if small { (20, 10) } else { (4_000, 200) };
        tables.extend(end_to_end(count, concurrent, gm_benches::rounds(5)).map(Value::from));
    }
    report::section("sip", tables);
}
