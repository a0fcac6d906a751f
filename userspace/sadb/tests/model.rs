//! Random commands against a model: who owns which slot, what the data plane
//! has been told, and which numbers were used.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;

use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Selector, Suite};
use gm_region::Region;
use gm_sadb::{Change, Dir, NewSa, Sadb, SadbError, SetId, SlotState};
use proptest::prelude::*;

const SLOTS: u32 = 8;
/// Slots for inbound SAs: the lower half.
const INBOUND: u32 = SLOTS / 2;

/// One SA to be installed, from few enough choices that they collide.
#[derive(Clone, Debug)]
struct Pick {
    dir: Dir,
    /// Which reservation; none: the foreign SPI.
    reserved: Option<usize>,
    foreign: u32,
    suite: usize,
    key: u8,
    /// Tells selectors apart.
    port: u16,
    first: Option<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(Vec<u32>),
    Unreserve(usize),
    Install(u64, Vec<Pick>),
    Again(u64),
    Activate(u64),
    Retire(u64),
    Remove(u64),
    Release(u64),
    /// The worker uses this many numbers of every SA.
    Work(u64),
    /// The process dies and a successor takes over.
    Crash,
}

fn pick() -> impl Strategy<Value = Pick> {
    (
        prop_oneof![Just(Dir::In), Just(Dir::Out)],
        prop::option::of(0..3usize),
        300..304u32,
        0..8usize,
        0..2u8,
        5000..5003u16,
        prop::option::of(1..100u64),
    )
        .prop_map(|(dir, reserved, foreign, suite, key, port, first)| Pick {
            dir,
            reserved,
            foreign,
            suite,
            key,
            port,
            first,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let set = || 1..5u64;
    prop::collection::vec(
        prop_oneof![
            2 => prop::collection::vec(1_000_000_000..1_000_000_020u32, 0..4).prop_map(Step::Reserve),
            1 => (0..3usize).prop_map(Step::Unreserve),
            6 => (set(), prop::collection::vec(pick(), 0..5)).prop_map(|(s, p)| Step::Install(s, p)),
            1 => set().prop_map(Step::Again),
            3 => set().prop_map(Step::Activate),
            2 => set().prop_map(Step::Retire),
            2 => set().prop_map(Step::Remove),
            2 => set().prop_map(Step::Release),
            2 => (1..50u64).prop_map(Step::Work),
            1 => Just(Step::Crash),
        ],
        1..80,
    )
}

fn new_sa(pick: &Pick, reserved: &[(u32, u32)]) -> NewSa {
    let suite = Suite::every().nth(pick.suite).unwrap();
    let spi = match pick.reserved.and_then(|i| reserved.get(i)) {
        Some((_, spi)) => *spi,
        None => pick.foreign,
    };
    let (us, phone) = ([192, 0, 2, 1].into(), [192, 0, 2, 77].into());
    let (src, dst) = if pick.dir == Dir::In {
        (phone, us)
    } else {
        (us, phone)
    };
    NewSa {
        spec: SaSpec {
            spi,
            mode: Mode::Trans,
            selector: Selector {
                src,
                dst,
                src_port: Some(pick.port),
                dst_port: None,
                proto: SelProto::UdpTcp,
            },
            suite,
            outer: None,
            esn: false,
            replay_window: 64,
        },
        keys: EspKeys::expand(
            suite,
            &Ik::from_bytes([pick.key; 16]),
            &Ck::from_bytes([pick.key + 9; 16]),
        ),
        dir: pick.dir,
        first_seq: pick.first,
    }
}

/// Both ways together where both ends make nonces with one key.
fn numbers(key: (usize, u8), sa: &NewSa) -> (usize, u8, u32, Option<Dir>) {
    let both_ways = matches!(sa.spec.suite, Suite::AesGmacNull | Suite::NullAesGcm);
    (key.0, key.1, sa.spec.spi, (!both_ways).then_some(sa.dir))
}

/// One SA as the model knows it.
#[derive(Clone, Debug)]
struct Sa {
    slot: u32,
    new: NewSa,
    key: (usize, u8),
}

/// How many places a set's keys and addresses take: as many as there are
/// different ones, where the way back is the same.
fn groups(sas: &[Sa]) -> usize {
    let mut known: Vec<&NewSa> = Vec::new();
    for Sa { new, .. } in sas {
        let (src, dst) = (new.spec.selector.src, new.spec.selector.dst);
        let is_there = |other: &&NewSa| {
            let ends = (other.spec.selector.src, other.spec.selector.dst);
            other.keys == new.keys && (ends == (src, dst) || ends == (dst, src))
        };
        if !known.iter().any(is_there) {
            known.push(new);
        }
    }
    known.len()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Fresh,
    Active,
    Retired,
    Removed,
}

#[derive(Default)]
struct Model {
    free: VecDeque<u32>,
    reserved: Vec<(u32, u32)>,
    sets: BTreeMap<u64, (Life, Vec<Sa>)>,
    selected: HashMap<Selector, u32>,
    /// SAs ever released; the database remembers the numbers of the last ones.
    released: usize,
    /// Highest number used, by what must not use one twice.
    used: HashMap<(usize, u8, u32, Option<Dir>), u64>,
}

/// What the data plane has from the changes.
#[derive(Clone, Default, PartialEq, Debug)]
struct Plane {
    added: BTreeSet<u32>,
    published: BTreeMap<u32, bool>,
    selected: HashMap<Selector, u32>,
}

impl Plane {
    /// Steps of a command that is repeated: there is nothing left to do.
    fn carry_out_again(&mut self, changes: &[Change]) {
        let before = self.clone();
        for change in changes {
            match change {
                Change::Unpublish { slot, .. } => drop(self.published.remove(slot)),
                Change::Forget { slot, .. } => drop(self.added.remove(slot)),
                Change::Select { .. } | Change::Deselect { .. } => {
                    self.carry_out(std::slice::from_ref(change))
                }
                Change::Add { .. } | Change::Publish { .. } => panic!("{change:?} again"),
            }
        }
        assert_eq!(*self, before);
    }

    fn carry_out(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Add { slot, .. } => assert!(self.added.insert(*slot), "{slot} added twice"),
                Change::Publish { slot, foreign, .. } => {
                    assert!(
                        self.added.contains(slot),
                        "XDP would send to a worker without the SA"
                    );
                    assert!(self.published.insert(*slot, *foreign).is_none());
                }
                Change::Select { slot, sa } => {
                    assert!(self.added.contains(slot));
                    self.selected.insert(sa.selector(), *slot);
                }
                Change::Deselect { slot, sa } => {
                    if self.selected.get(&sa.selector()) == Some(slot) {
                        self.selected.remove(&sa.selector());
                    }
                }
                Change::Unpublish { slot, foreign, .. } => {
                    assert_eq!(self.published.remove(slot), Some(*foreign));
                }
                Change::Forget { slot, .. } => {
                    assert!(
                        !self.published.contains_key(slot),
                        "XDP still sends for {slot}"
                    );
                    assert!(!self.selected.values().any(|s| s == slot));
                    assert!(self.added.remove(slot));
                }
            }
        }
    }
}

impl Model {
    /// Whether the SAs fit in, from first principles.
    fn accepts(&self, new: &[(NewSa, (usize, u8))]) -> bool {
        let mut there: Vec<(&NewSa, (usize, u8))> = self
            .sets
            .values()
            .flat_map(|(_, sas)| sas.iter().map(|s| (&s.new, s.key)))
            .collect();
        for (n, key) in new {
            let address = |o: &NewSa| (o.dir, o.spec.selector.dst, o.spec.spi);
            let collides = there.iter().any(|(o, other)| {
                let nonce = numbers(*other, o) == numbers(*key, n);
                address(o) == address(n) || nonce
            });
            if collides {
                return false;
            }
            there.push((n, *key));
        }
        [Dir::In, Dir::Out].into_iter().all(|dir| {
            let wanted = new.iter().filter(|(n, _)| n.dir == dir);
            let wanted = wanted.filter(|(n, _)| !self.is_reserved(n)).count();
            wanted <= self.free_for(dir).count()
        })
    }

    fn free_for(&self, dir: Dir) -> impl Iterator<Item = u32> {
        let free = self.free.iter().copied();
        free.filter(move |slot| (*slot < INBOUND) == (dir == Dir::In))
    }

    /// The slot that has been free for longest.
    fn next(&mut self, dir: Dir) -> Option<u32> {
        let slot = self.free_for(dir).next()?;
        self.free.retain(|s| *s != slot);
        Some(slot)
    }

    fn is_reserved(&self, n: &NewSa) -> bool {
        n.dir == Dir::In && self.reserved.iter().any(|(_, spi)| *spi == n.spec.spi)
    }

    fn take(&mut self, n: &NewSa) -> u32 {
        match self
            .reserved
            .iter()
            .position(|(_, spi)| n.dir == Dir::In && *spi == n.spec.spi)
        {
            Some(i) => self.reserved.remove(i).0,
            None => self.next(n.dir).unwrap(),
        }
    }

    fn activate(&mut self, set: u64) {
        let (life, sas) = self.sets.get_mut(&set).unwrap();
        *life = Life::Active;
        let mut done = BTreeSet::new();
        for sa in sas.iter().filter(|s| s.new.dir == Dir::Out) {
            if done.insert(sa.new.spec.selector.src_port) {
                self.selected.insert(sa.new.spec.selector, sa.slot);
            }
        }
    }

    fn deselect(&mut self, set: u64) {
        let slots: Vec<u32> = self.sets[&set].1.iter().map(|s| s.slot).collect();
        self.selected.retain(|_, slot| !slots.contains(slot));
    }

    fn release(&mut self, set: u64) {
        let (_, sas) = self.sets.remove(&set).unwrap();
        self.released += sas.len();
        self.free.extend(sas.iter().map(|s| s.slot));
    }

    fn state(&self, life: Life, sa: &Sa) -> SlotState {
        let selected = self.selected.get(&sa.new.spec.selector) == Some(&sa.slot);
        match (life, sa.new.dir) {
            (Life::Removed, _) => SlotState::Removing,
            (Life::Retired, _) => SlotState::Retiring,
            (_, Dir::In) => SlotState::Live,
            (_, Dir::Out) if selected => SlotState::Live,
            _ => SlotState::Standby,
        }
    }

    /// What a successor has to find: removed sets and reservations are gone,
    /// the rest is as it was.
    fn crash(&mut self) {
        let removed: Vec<u64> = self
            .sets
            .iter()
            .filter(|(_, (l, _))| *l == Life::Removed)
            .map(|(s, _)| *s)
            .collect();
        removed.into_iter().for_each(|set| self.release(set));
        self.free
            .extend(self.reserved.drain(..).map(|(slot, _)| slot));
        self.free.make_contiguous().sort_unstable();
    }
}

struct Test {
    sadb: Sadb,
    model: Model,
    plane: Plane,
}

impl Test {
    fn new() -> Test {
        let sadb = Sadb::create(SLOTS, 64).unwrap();
        let model = Model {
            free: (0..SLOTS).collect(),
            ..Model::default()
        };
        Test {
            sadb,
            model,
            plane: Plane::default(),
        }
    }

    fn step(&mut self, step: Step) {
        let Test { sadb, model, plane } = self;
        match step {
            Step::Reserve(avoid) => match sadb.reserve(&avoid) {
                Ok(r) => {
                    assert_eq!(Some(r.slot), model.next(Dir::In), "slots go round in order");
                    assert!(r.spi >= 1_000_000_000 && (r.spi - 1_000_000_000) % INBOUND == r.slot);
                    assert!(!avoid.contains(&r.spi));
                    let spis = model
                        .sets
                        .values()
                        .flat_map(|(_, s)| s.iter().map(|s| s.new.spec.spi));
                    assert!(
                        spis.chain(model.reserved.iter().map(|r| r.1))
                            .all(|s| s != r.spi)
                    );
                    model.reserved.push((r.slot, r.spi));
                }
                Err(error) => {
                    assert_eq!(
                        error,
                        SadbError::Full {
                            wanted: 1,
                            slots: SLOTS
                        }
                    );
                    assert_eq!(model.free_for(Dir::In).count(), 0);
                }
            },
            Step::Unreserve(i) => {
                if let Some((slot, spi)) = model.reserved.get(i).copied() {
                    sadb.unreserve(spi);
                    sadb.unreserve(spi);
                    model.reserved.remove(i);
                    model.free.push_back(slot);
                }
            }
            Step::Install(set, picks) => self.install(set, &picks),
            Step::Again(set) => {
                if let Some((life, sas)) = model.sets.get(&set) {
                    let new: Vec<NewSa> = sas.iter().map(|s| s.new.clone()).collect();
                    let again = sadb.install(SetId(set), &new);
                    if matches!(life, Life::Retired | Life::Removed) {
                        assert_eq!(again.unwrap_err(), SadbError::Retired(SetId(set)));
                        return;
                    }
                    let again = again.unwrap();
                    assert!(again.changes.is_empty());
                    assert_eq!(again.slots, sas.iter().map(|s| s.slot).collect::<Vec<_>>());
                }
            }
            Step::Activate(set) => match model.sets.get(&set).map(|(life, _)| *life) {
                None => assert!(matches!(
                    sadb.activate(SetId(set)),
                    Err(SadbError::UnknownSet(_))
                )),
                Some(Life::Retired | Life::Removed) => {
                    assert!(matches!(
                        sadb.activate(SetId(set)),
                        Err(SadbError::Retired(_))
                    ));
                }
                Some(_) => {
                    model.activate(set);
                    plane.carry_out(&sadb.activate(SetId(set)).unwrap());
                    plane.carry_out_again(&sadb.activate(SetId(set)).unwrap());
                }
            },
            Step::Retire(set) => {
                plane.carry_out(&sadb.retire(SetId(set)));
                plane.carry_out_again(&sadb.retire(SetId(set)));
                if model
                    .sets
                    .get(&set)
                    .is_some_and(|(life, _)| *life != Life::Removed)
                {
                    model.deselect(set);
                    model.sets.get_mut(&set).unwrap().0 = Life::Retired;
                }
            }
            Step::Remove(set) => {
                // A set that is removed already is removed again.
                if model
                    .sets
                    .get(&set)
                    .is_some_and(|(life, _)| *life != Life::Removed)
                {
                    plane.carry_out(&sadb.remove(SetId(set)));
                }
                plane.carry_out_again(&sadb.remove(SetId(set)));
                if model.sets.contains_key(&set) {
                    model.deselect(set);
                    model.sets.get_mut(&set).unwrap().0 = Life::Removed;
                }
            }
            Step::Release(set) => match model.sets.get(&set).map(|(life, _)| *life) {
                None => assert_eq!(sadb.release(SetId(set)), Ok(())),
                Some(Life::Removed) => {
                    assert_eq!(sadb.release(SetId(set)), Ok(()));
                    model.release(set);
                }
                Some(_) => assert_eq!(
                    sadb.release(SetId(set)),
                    Err(SadbError::NotRemoved(SetId(set)))
                ),
            },
            Step::Work(n) => {
                for sa in model.sets.values().flat_map(|(_, sas)| sas) {
                    let hot = sadb.region().slot(sa.slot).unwrap().hot();
                    let word = if sa.new.dir == Dir::Out {
                        &hot.seq
                    } else {
                        &hot.top
                    };
                    let last = word.load(Relaxed) + n;
                    word.store(last, Relaxed);
                    let used = model.used.entry(numbers(sa.key, &sa.new)).or_insert(0);
                    *used = last.max(*used);
                }
            }
            Step::Crash => {
                let fd = rustix::io::dup(sadb.region().fd()).unwrap();
                let recovered = Sadb::recover(Region::adopt(fd).unwrap());
                *sadb = recovered.sadb;
                *plane = Plane::default();
                plane.carry_out(&recovered.changes);
                model.crash();
            }
        }
    }

    fn install(&mut self, set: u64, picks: &[Pick]) {
        let Test { sadb, model, plane } = self;
        let new: Vec<(NewSa, (usize, u8))> = picks
            .iter()
            .map(|p| (new_sa(p, &model.reserved), (p.suite, p.key)))
            .collect();
        let plain: Vec<NewSa> = new.iter().map(|(n, _)| n.clone()).collect();
        if model.sets.contains_key(&set) {
            // Other SAs under a number that is taken.
            let there = model.sets[&set].1.iter().map(|s| &s.new.spec);
            if !there.eq(plain.iter().map(|n| &n.spec)) {
                let refused = sadb.install(SetId(set), &plain).unwrap_err();
                assert_eq!(refused, SadbError::SetExists(SetId(set)));
            }
            return;
        }
        let before: Vec<_> = sadb.list().collect();
        let good = !new.is_empty() && model.accepts(&new);
        match sadb.install(SetId(set), &plain) {
            Ok(installed) => {
                assert!(good, "installed what collides: {new:?}");
                let mut sas = Vec::new();
                for (new, key) in new {
                    let slot = model.take(&new);
                    // Numbers that were used are never used again.
                    let hot = sadb.region().slot(slot).unwrap().hot();
                    let last = hot.seq.load(Relaxed).max(hot.top.load(Relaxed));
                    let used = model.used.entry(numbers(key, &new)).or_insert(0);
                    let first = new.first_seq.unwrap_or(1) - 1;
                    *used = first.max(*used);
                    if model.released <= SLOTS as usize {
                        assert_eq!(last, *used);
                    } else {
                        // The oldest numbers may be forgotten by now.
                        assert!((first..=*used).contains(&last));
                    }
                    sas.push(Sa { slot, new, key });
                }
                assert_eq!(
                    installed.slots,
                    sas.iter().map(|s| s.slot).collect::<Vec<_>>()
                );
                plane.carry_out(&installed.changes);
                model.sets.insert(set, (Life::Fresh, sas));
            }
            Err(error) => {
                assert!(!good, "refused what fits: {error}: {new:?}");
                assert_eq!(before, sadb.list().collect::<Vec<_>>());
            }
        }
    }

    fn check(&self) {
        let Test { sadb, model, plane } = self;
        let mut owners = BTreeSet::new();
        let mut rows = sadb.list();
        for (set, (life, sas)) in &model.sets {
            for sa in sas {
                let row = rows.next().expect("an SA is missing");
                assert_eq!(
                    (row.set, row.slot, row.dir, row.spec),
                    (SetId(*set), sa.slot, sa.new.dir, sa.new.spec)
                );
                assert_eq!(
                    row.state,
                    model.state(*life, sa),
                    "set {set} slot {}",
                    sa.slot
                );
                assert!(owners.insert(row.slot), "slot {} has two owners", row.slot);
            }
        }
        assert!(rows.next().is_none());
        for (slot, _) in &model.reserved {
            assert!(owners.insert(*slot), "slot {slot} has two owners");
        }
        assert_eq!(owners.len() + model.free.len(), SLOTS as usize);
        assert_eq!(sadb.free(), model.free.len());
        for slot in &model.free {
            let slot = sadb.region().slot(*slot).unwrap();
            assert_eq!(slot.hot().state(), SlotState::Free);
            assert_eq!(slot.record(), [0; gm_region::RECORD_BYTES]);
        }
        // As many keys as there are sets have something else than zeros.
        let places = (0..SLOTS).filter_map(|place| sadb.region().common(place));
        let used = places.filter(|common| {
            common.record() != [0; gm_region::COMMON_BYTES]
                || common.key_material().encryption != [0; 24]
        });
        let groups: usize = model.sets.values().map(|(_, sas)| groups(sas)).sum();
        assert_eq!(used.count(), groups);
        let there = model
            .sets
            .values()
            .filter(|(life, _)| *life != Life::Removed)
            .flat_map(|(_, sas)| sas);
        let added: BTreeSet<u32> = there.clone().map(|s| s.slot).collect();
        let inbound = there.filter(|s| s.new.dir == Dir::In);
        let foreign = |s: &Sa| s.new.spec.spi < 1_000_000_000;
        let published = inbound.map(|s| (s.slot, foreign(s))).collect();
        let expected = Plane {
            added,
            published,
            selected: model.selected.clone(),
        };
        assert_eq!(*plane, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_commands_agrees_with_the_model(steps in steps()) {
        let mut test = Test::new();
        for step in steps {
            test.step(step);
            test.check();
        }
    }
}
