//! Sets of SAs by the numbers that people use. A SAD.toml names its sets; the
//! data plane numbers them its own way; the edge's get numbers too.

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
            Some(number) if book.ids.contains_key(&number) => {
                return Err(
                    ApiError::new("exists", format!("set {number} is installed already"))
                        .hint(format!("remove it first: gmespctl sa del --set {number}")),
                );
            }
            Some(number) => number,
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
        let seen: Vec<u64> = rows.iter().filter_map(|row| row.sa.set).collect();
        let Book { ids, numbers, .. } = &mut *book;
        numbers.retain(|id, _| seen.contains(id) || ids.values().any(|live| live == id));
        for row in &mut rows {
            row.sa.set = row.sa.set.map(|id| numbers.get(&id).copied().unwrap_or(id));
        }
        rows.sort_by_key(|row| row.sa.set);
        Ok(rows)
    }

    /// Installs and activates every set of a SAD.toml, or nothing.
    pub fn add_sad(&self, config: &Config, sad: Sad) -> Result<AddReply, ApiError> {
        let mut reply = AddReply {
            sets: Vec::new(),
            warnings: Vec::new(),
        };
        let groups = group(config, sad, &mut reply.warnings)?;
        let result = groups.into_iter().try_for_each(|group| {
            let number = self.install(group.number, group.sas)?;
            reply.sets.push(AddedSet {
                set: number,
                sas: group.names,
            });
            Ok(())
        });
        let result =
            result.and_then(|()| reply.sets.iter().try_for_each(|set| self.activate(set.set)));
        match result {
            Ok(()) => Ok(reply),
            Err(error) => {
                for set in reply.sets.iter().rev() {
                    // The first error is the one to tell; a set that cannot be
                    // taken out again is in the list.
                    if let Err(error) = self.remove(set.set) {
                        tracing::error!(set = set.set, %error, "cannot take a set out again");
                    }
                }
                Err(error)
            }
        }
    }

    /// Removes a set and says what that was.
    pub fn delete(&self, number: u64) -> Result<RemoveReply, ApiError> {
        let id = self.id(number)?;
        let sas = self
            .plane
            .list()?
            .iter()
            .filter(|row| row.sa.set == Some(id))
            .count();
        self.remove(number)?;
        Ok(RemoveReply {
            sets: vec![number],
            sas,
        })
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
        match groups
            .iter_mut()
            .find(|group| number.is_some() && group.number == number)
        {
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
}
