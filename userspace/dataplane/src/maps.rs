//! The maps of the BPF object, with types, and what is written to them.
//!
//! Keys and values of several fields go as byte or word arrays: the layouts
//! are gm-abi's, whose sizes are asserted there and compared by the loader.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, XskMap};
use gm_abi::maps::{
    ABI_VERSION, Addr, CONFIG_LISTED, CONFIG_SHED_CLEARTEXT, ForeignKey, LISTED_ADDRS, STATE_WORDS,
};
use gm_abi::source::{FRAGMENT_WORDS, PREFIX_PLACES};
use gm_abi::verdict::Reason;
use gm_region::{MapValue, Mapped};
use gm_sadb::inbound;

use crate::attach::{bpf, errno_of};
use crate::config::map_addr;
use crate::devices::Devices;
use crate::publish::{Published, Values};
use crate::tables::Tables;
use crate::{Config, Error};

/// The maps that user space writes or reads after the load.
pub(crate) struct Maps {
    config: Array<MapData, [u32; 8]>,
    addrs: HashMap<MapData, Addr, u32>,
    listed: Array<MapData, [Addr; LISTED_ADDRS]>,
    ports: Array<MapData, u64>,
    /// The memory-mapped ones.
    shared: [(&'static str, MapData); 7],
    samples: Option<RingBuf<MapData>>,
    /// [`gm_abi::maps::Config::seed`].
    seed: u32,
    foreign: HashMap<MapData, [u8; 20], u32>,
    counters: BpfCounters,
    xsk_uplink: XskMap<MapData>,
    xsk_gm0x: XskMap<MapData>,
}

/// A map of the object that is an array, as its raw data.
fn array_data(ebpf: &mut Ebpf, name: &str) -> Result<MapData, Error> {
    match ebpf.take_map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(Error::Bpf {
            what: format!("map {name}"),
            detail: "not an array in the BPF object".into(),
        }),
    }
}

impl Maps {
    /// Takes the maps out of the loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Maps, Error> {
        let mut get = |name: &str| {
            ebpf.take_map(name).ok_or_else(|| Error::Bpf {
                what: format!("map {name}"),
                detail: "missing from the BPF object".into(),
            })
        };
        let e = |e: MapError| bpf("open a map of the BPF object", &e);
        let config = Array::try_from(get("CONFIG")?).map_err(e)?;
        let addrs = HashMap::try_from(get("ADDRS")?).map_err(e)?;
        let listed = Array::try_from(get("LISTED")?).map_err(e)?;
        let ports = Array::try_from(get("PORTS")?).map_err(e)?;
        let foreign = HashMap::try_from(get("FOREIGN")?).map_err(e)?;
        let counters = PerCpuArray::try_from(get("COUNTERS")?).map_err(e)?;
        let counters = BpfCounters(Arc::new(counters));
        let xsk_uplink = XskMap::try_from(get("XSK_UPLINK")?).map_err(e)?;
        let xsk_gm0x = XskMap::try_from(get("XSK_GM0X")?).map_err(e)?;
        let samples = RingBuf::try_from(get("SAMPLES")?).map_err(e)?;
        let mut data = |name: &'static str| Ok::<_, Error>((name, array_data(ebpf, name)?));
        let shared = [
            data(SLOTS)?,
            data(SLOT_DROPS)?,
            data(PREFIXES)?,
            data(SOURCE_LIMITS)?,
            data(FRAGMENT_TOKENS)?,
            data(SAMPLE_TOKENS)?,
            data(STATE)?,
        ];
        Ok(Maps {
            config,
            addrs,
            listed,
            ports,
            shared,
            samples: Some(samples),
            seed: random()?,
            foreign,
            counters,
            xsk_uplink,
            xsk_gm0x,
        })
    }

    /// Writes the whole policy. Done before anything is attached.
    pub(crate) fn write_policy(
        &mut self,
        cfg: &Config,
        dev: &Devices,
        cookie: u32,
    ) -> Result<(), Error> {
        let e = |e: MapError| bpf("write the policy maps", &e);
        for (i, word) in (0u32..).zip(cfg.port_words()) {
            self.ports.set(i, word, 0).map_err(e)?;
        }
        let listed = self.list(&cfg.addresses)?;
        // gm_abi::maps::Config, field by field.
        let config = [
            ABI_VERSION,
            inbound(cfg.slots()) - 1,
            dev.uplink,
            dev.gm0,
            cookie,
            u32::from(cfg.encap_port),
            // XDP is attached in driver mode only.
            CONFIG_SHED_CLEARTEXT | listed,
            self.seed,
        ];
        self.config.set(0, config, 0).map_err(e)
    }

    /// Makes `addresses` the Gm link's: new ones first, then the others go.
    pub(crate) fn write_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        let e = |e: MapError| bpf("write the map ADDRS", &e);
        let flag = self.list(addresses)?;
        self.set_config(6, |flags| flags & !CONFIG_LISTED | flag)?;
        let want: Vec<Addr> = addresses.iter().map(|a| map_addr(*a)).collect();
        let have: Vec<Addr> = self.addrs.keys().collect::<Result<_, _>>().map_err(e)?;
        for a in have.iter().filter(|a| !want.contains(a)) {
            self.addrs.remove(a).map_err(e)?;
        }
        Ok(())
    }

    /// Puts `addresses` into ADDRS, and where they all fit into LISTED as well.
    /// Which is to stand in the configuration's flags then.
    fn list(&mut self, addresses: &[IpAddr]) -> Result<u32, Error> {
        let e = |e: MapError| bpf("write the map ADDRS", &e);
        let want: Vec<Addr> = addresses.iter().map(|a| map_addr(*a)).collect();
        for a in &want {
            self.addrs.insert(a, 1, 0).map_err(e)?;
        }
        let have = self.listed.get(&0, 0).map_err(e)?;
        let Some(listed) = listed(&have, &want) else {
            return Ok(0);
        };
        self.listed.set(0, listed, 0).map_err(e)?;
        Ok(CONFIG_LISTED)
    }

    /// Says which device the uplink is by now; 0: none, so that nothing is
    /// injected and every device is closed to what is protected.
    pub(crate) fn set_uplink(&mut self, index: u32) -> Result<(), Error> {
        self.set_config(2, |_| index)
    }

    fn set_config(&mut self, word: usize, change: impl Fn(u32) -> u32) -> Result<(), Error> {
        let e = |e: MapError| bpf("write the map CONFIG", &e);
        let mut config = self.config.get(&0, 0).map_err(e)?;
        config[word] = change(config[word]);
        self.config.set(0, config, 0).map_err(e)
    }

    /// Fills FOREIGN with keys that no packet has (a test's fault).
    pub(crate) fn fill_foreign(&mut self) -> Result<(), Error> {
        for n in 0u32.. {
            let key = junk(n);
            if self.foreign.insert(key, 0, 0).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Takes these keys out again.
    pub(crate) fn empty_foreign(&mut self) -> Result<(), Error> {
        for n in 0u32.. {
            if self.foreign.remove(&junk(n)).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Lets XDP find the slot of an inbound SA whose SPI is not ours.
    pub(crate) fn add_foreign(&mut self, key: &ForeignKey, slot: u32) -> Result<(), Error> {
        self.foreign
            .insert(foreign_bytes(key), slot, 0)
            .map_err(|e| bpf("write the map FOREIGN", &e))
    }

    /// Takes that back; a key that is not there is no error.
    pub(crate) fn remove_foreign(&mut self, key: &ForeignKey) -> Result<(), Error> {
        match self.foreign.remove(&foreign_bytes(key)) {
            Err(e)
                if errno_of(&e) != Some(nix::libc::ENOENT)
                    && !matches!(e, MapError::KeyNotFound) =>
            {
                Err(bpf("write the map FOREIGN", &e))
            }
            _ => Ok(()),
        }
    }

    /// Hands the socket of an uplink queue to XDP.
    pub(crate) fn set_uplink_socket(
        &mut self,
        queue: u32,
        fd: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        self.xsk_uplink
            .set(queue, fd.as_raw_fd(), 0)
            .map_err(|e| bpf("write the map XSK_UPLINK", &e))
    }

    /// Hands the socket of a gm0x queue to XDP.
    pub(crate) fn set_gm0x_socket(&mut self, queue: u32, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.xsk_gm0x
            .set(queue, fd.as_raw_fd(), 0)
            .map_err(|e| bpf("write the map XSK_GM0X", &e))
    }

    /// What the BPF programs have counted, summed over the CPUs.
    pub(crate) fn counters(&self) -> Result<[u64; Reason::COUNT], Error> {
        self.counters.read()
    }

    /// The same for a reader of its own.
    pub(crate) fn counters_reader(&self) -> BpfCounters {
        self.counters.clone()
    }

    /// The memory-mapped maps, in this process's memory. `slots` is what the
    /// object was loaded with.
    pub(crate) fn published(&self, slots: u32) -> Result<Published, Error> {
        let words = |name, count| self.mapped(name, count);
        let tables = Tables {
            seed: self.seed,
            prefixes: self.mapped(PREFIXES, PREFIX_PLACES)?,
            source_limits: words(SOURCE_LIMITS, PREFIX_PLACES)?,
            fragment_tokens: words(FRAGMENT_TOKENS, FRAGMENT_WORDS)?,
            sample_tokens: words(SAMPLE_TOKENS, Reason::COUNT as u32)?,
            state: words(STATE, STATE_WORDS)?,
        };
        Ok(Published {
            slots: self.mapped(SLOTS, slots)?,
            drops: self.mapped(SLOT_DROPS, slots)?,
            tables,
        })
    }

    fn mapped<T: MapValue>(&self, name: &str, count: u32) -> Result<Values<T>, Error> {
        let e = |e| Error::io(format!("map {name} into memory"), e);
        let data = self.shared.iter().find(|(of, _)| *of == name);
        let (_, data) = data.ok_or_else(|| e(std::io::ErrorKind::NotFound.into()))?;
        Mapped::new(data.fd().as_fd(), count as usize)
            .map(Values::Map)
            .map_err(e)
    }

    /// Samples of dropped packets ([`gm_abi::sample::Sample`]), for the one
    /// who reads them; `None` the second time.
    pub(crate) fn take_samples(&mut self) -> Option<RingBuf<MapData>> {
        self.samples.take()
    }
}

/// The map `COUNTERS`.
#[derive(Clone)]
pub(crate) struct BpfCounters(Arc<PerCpuArray<MapData, u64>>);

impl BpfCounters {
    /// What the BPF programs have counted, summed over the CPUs.
    pub(crate) fn read(&self) -> Result<[u64; Reason::COUNT], Error> {
        let mut out = [0; Reason::COUNT];
        for (i, sum) in (0u32..).zip(&mut out) {
            let cpus = self
                .0
                .get(&i, 0)
                .map_err(|e| bpf("read the map COUNTERS", &e))?;
            *sum = cpus.iter().sum();
        }
        Ok(out)
    }
}

const SLOTS: &str = "SLOTS";
const SLOT_DROPS: &str = "SLOT_DROPS";
const PREFIXES: &str = "PREFIXES";
const SOURCE_LIMITS: &str = "SOURCE_LIMITS";
const FRAGMENT_TOKENS: &str = "FRAGMENT_TOKENS";
const SAMPLE_TOKENS: &str = "SAMPLE_TOKENS";
const STATE: &str = "STATE";

/// Where the addresses stand that are listed, if they all can be. What has a
/// place keeps it: BPF reads while this is written.
fn listed(have: &[Addr; LISTED_ADDRS], want: &[Addr]) -> Option<[Addr; LISTED_ADDRS]> {
    let mut places = have.map(|a| if want.contains(&a) { a } else { [0; 16] });
    for a in want {
        if !places.contains(a) {
            *places.iter_mut().find(|place| **place == [0; 16])? = *a;
        }
    }
    Some(places)
}

/// A key without address.
fn junk(n: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[16..].copy_from_slice(&n.to_be_bytes());
    key
}

fn foreign_bytes(key: &ForeignKey) -> [u8; 20] {
    let mut b = [0; 20];
    b[..16].copy_from_slice(&key.dst);
    b[16..].copy_from_slice(&key.spi);
    b
}

/// The mark of injected packets: random, so that nothing outside the host and
/// no other rule's mark meets it.
pub(crate) fn cookie() -> Result<u32, Error> {
    Ok(random()? | 1)
}

fn random() -> Result<u32, Error> {
    let mut b = [0; 4];
    getrandom::fill(&mut b).map_err(|e| Error::Bpf {
        what: "random bytes".into(),
        detail: e.to_string(),
    })?;
    Ok(u32::from_ne_bytes(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stays_keeps_its_place_in_the_list() {
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|n| [n; 16]);
        let none = [0; 16];
        assert_eq!(listed(&[none; 4], &[a, b]), Some([a, b, none, none]));
        assert_eq!(
            listed(&[a, b, none, none], &[c, b]),
            Some([c, b, none, none])
        );
        assert_eq!(listed(&[a, b, c, none], &[d, c]), Some([d, none, c, none]));
        assert_eq!(listed(&[a, b, c, d], &[b, e, a, d, a]), Some([a, b, e, d]));
        assert_eq!(listed(&[a, b, none, none], &[]), Some([none; 4]));
        assert_eq!(listed(&[a, b, c, d], &[a, b, c, d, e]), None);
    }
}
