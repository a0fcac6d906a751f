//! Sets of SAs by the numbers that people use. A SAD.toml names its sets; the
//! data plane numbers them its own way; the edge's get numbers too.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gm_api::control::{AddReply, AddedSet, ApiError, RemoveReply, SaName, SaStatus};
use gm_api::sad::{Dir, Sad, SadEntry};
use gm_dataplane::NewSa;
use gm_esp::Suite;

use crate::config::Config;
use crate::live;
use crate::plane::Plane;

/// First number of a set that was not given one. Files number from 1.
const FIRST_OWN: u64 = 10_001;
/// Sets that are removed at a time.
const RANGE: usize = 1024;
/// Removed sets whose numbers are kept, at least.
const DRAINED: usize = 1024;

/// The sets that are installed.
pub struct Sets {
    plane: Arc<dyn Plane>,
    book: Mutex<Book>,
}

struct Book {
    /// The data plane's number of each set that has not been removed.
    ids: BTreeMap<u64, u64>,
    /// People's number, also of sets that still drain.
    numbers: HashMap<u64, u64>,
    next: u64,
}

impl Sets {
    /// No sets yet.
    pub fn new(plane: Arc<dyn Plane>) -> Self {
        let book = Book {
            ids: BTreeMap::new(),
            numbers: HashMap::new(),
            next: FIRST_OWN,
        };
        Sets {
            plane,
            book: Mutex::new(book),
        }
    }

    /// The data plane below.
    pub fn plane(&self) -> &Arc<dyn Plane> {
        &self.plane
    }

    /// Installs a set under this number, or one that is free.
    pub fn install(&self, number: Option<u64>, sas: Vec<NewSa>) -> Result<u64, ApiError> {
        let mut book = self.book();
        let number = match number {
            Some(number) => book.still_free(number)?,
            None => book.free_number(),
        };
        let id = self.plane.install(sas)?;
        book.forget_drained();
        book.ids.insert(number, id);
        book.numbers.insert(id, number);
        Ok(number)
    }

    /// Notes a set that the data plane has taken over; its number.
    pub fn enroll(&self, id: u64) -> u64 {
        let mut book = self.book();
        let number = book.free_number();
        book.forget_drained();
        book.ids.insert(number, id);
        book.numbers.insert(id, number);
        number
    }

    /// Forgets a set that the data plane has given away.
    pub fn forget(&self, number: u64) {
        self.book().ids.remove(&number);
    }

    /// The data plane's number of a set; `None`: it was removed.
    pub fn plane_id(&self, number: u64) -> Option<u64> {
        self.book().ids.get(&number).copied()
    }

    /// Switches outbound traffic over to the set.
    pub fn activate(&self, number: u64) -> Result<(), ApiError> {
        self.plane.activate(self.id(number)?)
    }

    /// Outbound off, inbound still accepts.
    pub fn retire(&self, number: u64) -> Result<(), ApiError> {
        self.plane.retire(self.id(number)?)
    }

    /// Takes the set out.
    pub fn remove(&self, number: u64) -> Result<(), ApiError> {
        let mut book = self.book();
        let id = book
            .ids
            .get(&number)
            .copied()
            .ok_or_else(|| no_set(number))?;
        self.plane.remove(id)?;
        book.ids.remove(&number);
        Ok(())
    }

    /// People's number of a set of the data plane.
    pub fn number_of(&self, id: u64) -> Option<u64> {
        self.book().numbers.get(&id).copied()
    }

    /// All SAs, with people's numbers, in the order of those.
    pub fn list(&self) -> Result<Vec<SaStatus>, ApiError> {
        let mut book = self.book();
        let mut rows = self.plane.list()?;
        let seen: HashSet<u64> = rows.iter().filter_map(|row| row.sa.set).collect();
        let Book { ids, numbers, .. } = &mut *book;
        let live: HashSet<u64> = ids.values().copied().collect();
        numbers.retain(|id, _| seen.contains(id) || live.contains(id));
        for row in &mut rows {
            row.sa.set = row.sa.set.map(|id| numbers.get(&id).copied().unwrap_or(id));
        }
        rows.sort_by_key(|row| row.sa.set);
        Ok(rows)
    }

    /// The SAs of `limit` sets at most, from number `from` on, in the order of
    /// the numbers; sets that are being removed are not among them.
    pub fn list_from(&self, from: u64, limit: usize) -> Result<Vec<SaStatus>, ApiError> {
        let book = self.book();
        let sets = book.ids.range(from..).take(limit);
        let sets: Vec<(u64, u64)> = sets.map(|(number, id)| (*number, *id)).collect();
        drop(book);
        let mut rows = Vec::new();
        for (number, id) in sets {
            for mut row in self.plane.list_set(id)? {
                row.sa.set = Some(number);
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// Installs and activates every set of a SAD.toml, or nothing.
    pub fn add_sad(&self, config: &Config, sad: Sad) -> Result<AddReply, ApiError> {
        let mut warnings = Vec::new();
        let groups = group(config, sad, &mut warnings)?;
        // The file's own numbers are taken before others are chosen.
        let own: HashSet<u64> = groups.iter().filter_map(|g| g.number).collect();
        let mut book = self.book();
        let mut numbers = Vec::with_capacity(groups.len());
        let (mut sets, mut names) = (Vec::new(), Vec::new());
        for group in groups {
            numbers.push(match group.number {
                Some(number) => book.still_free(number)?,
                None => loop {
                    let number = book.free_number();
                    if !own.contains(&number) {
                        break number;
                    }
                },
            });
            sets.push(group.sas);
            names.push(group.names);
        }
        // All that can be installed; where one cannot, all of them go again.
        let (mut installed, mut refused) = (Vec::new(), None);
        for (number, done) in numbers.iter().zip(self.plane.install_many(sets)) {
            match done {
                Ok(id) => installed.push((*number, id)),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let ids: Vec<u64> = installed.iter().map(|(_, id)| *id).collect();
        let refused = refused.or_else(|| {
            let active = self.plane.activate_many(&ids);
            active.into_iter().find_map(Result::err)
        });
        if refused.is_some() {
            let removed = self.plane.remove_many(&ids).into_iter();
            let mut removed = removed.map(|removed| match removed {
                Ok(()) => true,
                // The first error is the one to tell; a set that cannot be taken
                // out again is in the list.
                Err(error) => {
                    tracing::error!(%error, "cannot take a set out again");
                    false
                }
            });
            installed.retain(|_| removed.next() != Some(true));
        }
        book.forget_drained();
        for (number, id) in installed {
            book.ids.insert(number, id);
            book.numbers.insert(id, number);
        }
        drop(book);
        let sets = numbers.into_iter().zip(names);
        refused.map_or_else(
            || {
                Ok(AddReply {
                    sets: sets.map(|(set, sas)| AddedSet { set, sas }).collect(),
                    warnings,
                })
            },
            Err,
        )
    }

    /// Removes a set and says what that was.
    pub fn delete(&self, number: u64) -> Result<RemoveReply, ApiError> {
        let sas = self.plane.list_set(self.id(number)?)?.len();
        self.remove(number)?;
        Ok(RemoveReply {
            sets: vec![number],
            sas,
        })
    }

    /// Removes the sets of these numbers, as far as there are any.
    pub fn delete_range(&self, from: u64, to: u64) -> Result<RemoveReply, ApiError> {
        let mut reply = RemoveReply {
            sets: Vec::new(),
            sas: 0,
        };
        let mut next = Some(from);
        while let Some(from) = next.filter(|from| *from <= to) {
            // Others get their turn in between.
            let mut book = self.book();
            let there = book.ids.range(from..=to).take(RANGE);
            let (numbers, ids): (Vec<u64>, Vec<u64>) = there.map(|(n, id)| (*n, *id)).unzip();
            next = numbers.last().and_then(|last| last.checked_add(1));
            let mut counts = Vec::with_capacity(ids.len());
            for id in &ids {
                counts.push(self.plane.list_set(*id)?.len());
            }
            let removed = self.plane.remove_many(&ids).into_iter();
            let mut refused = None;
            for ((number, sas), removed) in numbers.into_iter().zip(counts).zip(removed) {
                if let Err(error) = removed {
                    refused = refused.or(Some(error));
                    continue;
                }
                book.ids.remove(&number);
                reply.sets.push(number);
                reply.sas += sas;
            }
            // What is gone is gone; whoever asks again gets at the rest.
            if let Some(error) = refused {
                return Err(error);
            }
        }
        if reply.sets.is_empty() {
            let message = format!("there is no set from {from} to {to}");
            return Err(
                ApiError::new("not-found", message).hint("gmespctl sa list shows what there is")
            );
        }
        Ok(reply)
    }

    /// Removes the set that holds this SA.
    pub fn delete_sa(&self, spi: u32, dst: IpAddr) -> Result<RemoveReply, ApiError> {
        let found = self.list()?.into_iter().find_map(|row| {
            let at = row.sa.outer_dst.unwrap_or(row.sa.dst);
            (row.sa.spi == spi && at == dst && row.state != "removing").then_some(row.sa.set)
        });
        match found.flatten() {
            Some(number) => self.delete(number),
            None => Err(
                ApiError::new("not-found", format!("there is no SA {spi} to {dst}"))
                    .hint("gmespctl sa list shows what there is"),
            ),
        }
    }

    fn id(&self, number: u64) -> Result<u64, ApiError> {
        self.book()
            .ids
            .get(&number)
            .copied()
            .ok_or_else(|| no_set(number))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change of the book is whole before anything can panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Keeps the numbers of removed sets for a while only: nobody may ever list.
    fn forget_drained(&mut self) {
        if self.numbers.len() > 2 * self.ids.len() + DRAINED {
            let live: HashSet<u64> = self.ids.values().copied().collect();
            self.numbers.retain(|id, _| live.contains(id));
        }
    }

    /// The number, if no set has it.
    fn still_free(&self, number: u64) -> Result<u64, ApiError> {
        match self.ids.contains_key(&number) {
            true => Err(
                ApiError::new("exists", format!("set {number} is installed already"))
                    .hint(format!("remove it first: gmespctl sa del --set {number}")),
            ),
            false => Ok(number),
        }
    }

    fn free_number(&mut self) -> u64 {
        while self.ids.contains_key(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }
}

fn no_set(number: u64) -> ApiError {
    ApiError::new("not-found", format!("there is no set {number}"))
        .hint("gmespctl sa list shows what there is")
}

/// The SAs of one set, in the order of the file.
struct Group {
    number: Option<u64>,
    sas: Vec<NewSa>,
    names: Vec<SaName>,
}

/// Entries with one `set` are one group, each entry without is its own.
fn group(config: &Config, sad: Sad, warnings: &mut Vec<String>) -> Result<Vec<Group>, ApiError> {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_number: HashMap<u64, usize> = HashMap::new();
    let Sad { name, entries } = sad;
    if entries.is_empty() {
        return Err(ApiError::new(
            "bad-sad",
            format!("{name}: holds no [[sa]] table"),
        ));
    }
    for mut entry in entries {
        let dir = direction(config, &name, &entry)?;
        warn(config, &name, &entry, dir, warnings);
        entry.spec.replay_window = entry.replay_window.unwrap_or(config.gm.replay_window);
        let sa_name = SaName {
            spi: entry.spec.spi,
            dst: entry.destination(),
            dir,
        };
        let number = entry.set;
        let sa = NewSa {
            spec: entry.spec,
            keys: entry.keys,
            dir: live::dir(dir),
            first_seq: entry.seq,
        };
        let known = number.and_then(|n| match by_number.entry(n) {
            Entry::Occupied(at) => groups.get_mut(*at.get()),
            Entry::Vacant(free) => {
                free.insert(groups.len());
                None
            }
        });
        match known {
            Some(group) => {
                group.sas.push(sa);
                group.names.push(sa_name);
            }
            None => groups.push(Group {
                number,
                sas: vec![sa],
                names: vec![sa_name],
            }),
        }
    }
    Ok(groups)
}

fn source(entry: &SadEntry) -> IpAddr {
    entry
        .spec
        .outer
        .as_ref()
        .map_or(entry.spec.selector.src, |outer| outer.src)
}

/// `dir`, or what the addresses say.
fn direction(config: &Config, file: &str, entry: &SadEntry) -> Result<Dir, ApiError> {
    if let Some(dir) = entry.dir {
        return Ok(dir);
    }
    if config.is_local(entry.destination()) {
        return Ok(Dir::In);
    }
    if config.is_local(source(entry)) {
        return Ok(Dir::Out);
    }
    let message = format!(
        "{file}: [[sa]] #{}: dir: missing, and neither end is one of [gm] addresses",
        entry.table
    );
    Err(ApiError::new("bad-sad", message).hint("write dir = \"in\" or dir = \"out\""))
}

fn warn(config: &Config, file: &str, entry: &SadEntry, dir: Dir, warnings: &mut Vec<String>) {
    let mut add = |what: String| warnings.push(format!("{file}: [[sa]] #{}: {what}", entry.table));
    let (end, port) = match dir {
        Dir::In => (entry.destination(), entry.spec.selector.dst_port),
        Dir::Out => (source(entry), entry.spec.selector.src_port),
    };
    let own = config.own(end);
    if own != end {
        add(format!(
            "{end} is what phones know {own} by ([gm] advertised); write {own}, or the SA will \
             see no packets"
        ));
    } else if !config.is_local(end) {
        add(format!(
            "{end} is none of [gm] addresses; the SA will see no packets"
        ));
    }
    if entry.spec.suite.is_legacy() {
        add(format!(
            "{} is a legacy suite, which the specification has dropped",
            entry.spec.suite
        ));
    }
    let counter_nonce = matches!(entry.spec.suite, Suite::NullAesGcm | Suite::AesGmacNull);
    if dir == Dir::Out && counter_nonce && entry.seq.is_none() {
        add(
            "no seq, so numbers begin at 1; where this key has sent before, name the next \
             unused number, or nonces repeat and the key is lost"
                .into(),
        );
    }
    match port {
        Some(port) if !config.is_protected(port) => add(format!(
            "port {port} is in neither [gm] server_ports nor client_ports; cleartext passes there"
        )),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sa_with_a_legacy_suite_is_warned_of() {
        let config = "[gm]\nuplinks = [\"eth0\"]\naddresses = [\"192.0.2.1\"]\n\
                      server_ports = [5064]\nclient_ports = [5065]\n";
        let config = Config::parse(config, std::path::Path::new("f.toml")).unwrap();
        let warnings = |alg: &str, ealg: &str| {
            let (ik, ck) = (crate::testing::IK, crate::testing::CK);
            let text = format!(
                "[[sa]]\nspi = 300\nmode = \"trans\"\nsrc = \"192.0.2.7\"\ndst = \"192.0.2.1\"\n\
                 dst_port = 5064\nalg = \"{alg}\"\nealg = \"{ealg}\"\nik = \"{ik}\"\nck = \"{ck}\"\n"
            );
            let mut warnings = Vec::new();
            group(&config, Sad::parse("s", &text).unwrap(), &mut warnings).unwrap();
            warnings
        };
        assert_eq!(warnings("hmac-sha-1-96", "null"), [""; 0]);
        let [warning] = &warnings("hmac-md5-96", "des-ede3-cbc")[..] else {
            panic!("one warning");
        };
        assert!(
            warning.starts_with("s: [[sa]] #1: hmac-md5-96/des-ede3-cbc is a legacy suite"),
            "{warning}"
        );
    }

    #[test]
    fn sets_that_are_gone_leave_nothing_behind() {
        let sets = Sets::new(Arc::new(crate::testing::Fake::default()));
        for _ in 0..3 * DRAINED {
            let number = sets.install(None, Vec::new()).unwrap();
            sets.remove(number).unwrap();
        }
        let kept = sets.install(None, Vec::new()).unwrap();
        assert!(sets.book().numbers.len() <= DRAINED + 2);
        let id = sets.id(kept).unwrap();
        assert_eq!(sets.number_of(id), Some(kept));
    }

    #[test]
    fn a_file_is_added_whole_or_not_and_sets_go_by_a_range() {
        let config = "[gm]\nuplinks = [\"eth0\"]\naddresses = [\"192.0.2.1\"]\n\
                      server_ports = [5064]\nclient_ports = [5065]\n";
        let config = Config::parse(config, std::path::Path::new("f.toml")).unwrap();
        let sa = |set: &str, spi: u32| {
            let (ik, ck) = (crate::testing::IK, crate::testing::CK);
            format!(
                "[[sa]]\n{set}spi = {spi}\nmode = \"trans\"\nsrc = \"192.0.2.7\"\n\
                 dst = \"192.0.2.1\"\nalg = \"hmac-sha-1-96\"\nealg = \"null\"\nik = \"{ik}\"\nck = \"{ck}\"\n"
            )
        };
        let sets = Sets::new(Arc::new(crate::testing::Fake::default()));
        let add = |text: &str| sets.add_sad(&config, Sad::parse("s", text).unwrap());
        // One without a number, and one that has the number that would be next.
        let text: String = [("", 300), ("set = 10001\n", 301), ("set = 10001\n", 302)]
            .map(|(set, spi)| sa(set, spi))
            .concat();
        let reply = add(&text).unwrap();
        let numbers: Vec<(u64, usize)> = reply.sets.iter().map(|s| (s.set, s.sas.len())).collect();
        assert_eq!(numbers, [(10_002, 1), (10_001, 2)]);
        // The last one is refused: none is there.
        let many: String = (0..40)
            .map(|n| sa("", 400 + n))
            .chain([sa("", 300)])
            .collect();
        assert_eq!(add(&many).unwrap_err().code, "exists");
        assert_eq!(sets.list().unwrap().len(), 3);
        let some = sets.list_from(10_002, 1).unwrap();
        assert_eq!((some.len(), some[0].sa.set), (1, Some(10_002)));
        let gone = sets.delete_range(0, u64::MAX).unwrap();
        assert_eq!((gone.sets, gone.sas), (vec![10_001, 10_002], 3));
        assert_eq!(sets.delete_range(0, 9).unwrap_err().code, "not-found");
    }
}
