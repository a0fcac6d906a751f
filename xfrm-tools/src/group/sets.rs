//! Which SAs are of one registration.
//!
//! Both ends have a client's and a server's port. Two SAs go between the local
//! server's and the remote client's, one each way, and two between the local
//! client's and the remote server's (TS 33.203 7.1). All have the keys of one
//! authentication, so that SAs with the same keys and hosts are of one set, but
//! for tests that have no other keys.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use gm_api::sad::Dir;
use gm_esp::{EspKeys, Mode, Suite};

use super::{LeftOut, Member, Set, Why};

/// What the SAs of a set have in common, and sets of different registrations
/// have not: `keys` numbers the different keys.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Common {
    local: IpAddr,
    remote: IpAddr,
    outside: IpAddr,
    mode: Mode,
    suite: Suite,
    keys: usize,
}

/// Local and remote port; `None`: any.
type Pair = (Option<u16>, Option<u16>);

/// A member with what tells it from others of its set.
struct Sa {
    /// Its place in the kernel's list.
    at: usize,
    dir: Dir,
    ports: Pair,
    member: Member,
}

/// SAs of a set are made one after the other; seconds, on the kernel's clock.
const TOGETHER: u64 = 1;

/// Puts members into sets. All have a direction.
pub(super) fn of(members: Vec<Member>) -> (Vec<Set>, Vec<LeftOut>) {
    let mut buckets: Vec<(Common, Vec<Sa>)> = Vec::new();
    let mut known: HashMap<Common, usize> = HashMap::new();
    let mut keys = Keys::default();
    for (at, member) in members.into_iter().enumerate() {
        // Those without a direction have been left out before.
        let Some(dir) = member.dir else { continue };
        let spec = &member.found.spec;
        let here_first = |src, dst| match dir {
            Dir::In => (dst, src),
            Dir::Out => (src, dst),
        };
        let (local, remote) = here_first(spec.selector.src, spec.selector.dst);
        let ports = match dir {
            Dir::In => (spec.selector.dst_port, spec.selector.src_port),
            Dir::Out => (spec.selector.src_port, spec.selector.dst_port),
        };
        let common = Common {
            local,
            remote,
            // The other end's address outside may change at a NAT.
            outside: here_first(spec.source(), spec.destination()).0,
            mode: spec.mode,
            suite: spec.suite,
            keys: keys.number(&member.found.keys),
        };
        let sa = Sa {
            at,
            dir,
            ports,
            member,
        };
        match known.get(&common).and_then(|n| buckets.get_mut(*n)) {
            Some((_, bucket)) => bucket.push(sa),
            None => {
                known.insert(common.clone(), buckets.len());
                buckets.push((common, vec![sa]));
            }
        }
    }
    let mut sets = Vec::new();
    let mut left_out = Vec::new();
    for (common, bucket) in buckets {
        let (groups, rest) = split(bucket);
        sets.extend(groups.into_iter().map(|sas| set(&common, sas)));
        left_out.extend(rest.into_iter().map(ambiguous));
    }
    sets.sort_by_key(|(first, _)| *first);
    (sets.into_iter().map(|(_, set)| set).collect(), left_out)
}

/// Numbers for different keys: a secret is no part of a map's key.
#[derive(Default)]
struct Keys {
    /// By a hash that is another one in each process.
    by_hash: HashMap<u64, Vec<(usize, EspKeys)>>,
    hasher: RandomState,
    count: usize,
}

impl Keys {
    fn number(&mut self, keys: &EspKeys) -> usize {
        let parts = (keys.integrity(), keys.encryption(), keys.salt());
        let hash = self.hasher.hash_one(parts);
        let known = self.by_hash.entry(hash).or_default();
        match known.iter().find(|(_, other)| other == keys) {
            Some((number, _)) => *number,
            None => {
                let number = self.count;
                self.count += 1;
                known.push((number, keys.clone()));
                number
            }
        }
    }
}

/// Sets out of SAs with the same keys and hosts: one, where they can be of one;
/// else those that were made together. What then cannot be of one set is given
/// back.
fn split(mut bucket: Vec<Sa>) -> (Vec<Vec<Sa>>, Vec<Sa>) {
    if fits(&bucket) {
        return (vec![bucket], Vec::new());
    }
    let made = |sa: &Sa| sa.member.state.counters.added;
    bucket.sort_by_key(|sa| (made(sa), sa.at));
    let mut groups: Vec<Vec<Sa>> = Vec::new();
    for sa in bucket {
        match groups.last_mut() {
            Some(group)
                if group
                    .first()
                    .is_some_and(|first| made(&sa) - made(first) <= TOGETHER) =>
            {
                group.push(sa);
            }
            _ => groups.push(vec![sa]),
        }
    }
    let (groups, ambiguous): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| fits(group));
    (groups, ambiguous.into_iter().flatten().collect())
}

/// Whether these can be of one set: between two pairs of ports at most, one SA
/// each way, and the pairs have no port in common.
fn fits(sas: &[Sa]) -> bool {
    let mut pairs: Vec<(Pair, Vec<Dir>)> = Vec::new();
    for sa in sas {
        match pairs.iter_mut().find(|(ports, _)| *ports == sa.ports) {
            Some((_, dirs)) if dirs.contains(&sa.dir) => return false,
            Some((_, dirs)) => dirs.push(sa.dir),
            None => pairs.push((sa.ports, vec![sa.dir])),
        }
    }
    match pairs.as_slice() {
        [] | [_] => true,
        [(a, _), (b, _)] => a.0 != b.0 && a.1 != b.1,
        _ => false,
    }
}

/// The set, and where it begins in the kernel's list.
fn set(common: &Common, mut sas: Vec<Sa>) -> (usize, Set) {
    let first = sas.iter().map(|sa| sa.at).min().unwrap_or(0);
    sas.sort_by_key(|sa| (sa.dir == Dir::Out, sa.ports, sa.at));
    let set = Set {
        local: common.local,
        remote: common.remote,
        sas: sas.into_iter().map(|sa| sa.member).collect(),
    };
    (first, set)
}

fn ambiguous(sa: Sa) -> LeftOut {
    LeftOut {
        id: sa.member.state.id,
        why: Why::Ambiguous,
        sa: Some(Box::new(sa.member)),
    }
}
