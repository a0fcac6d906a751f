//! Who is who: identities and keys, and which addresses and ports each phone has.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use gm_api::pattern;
use zeroize::Zeroizing;

use crate::config::{Config, key, read_private};

/// The first port for messages in clear of an address, above 4500, which is
/// encapsulated ESP's; the others follow.
const FIRST_CLEAR: u16 = 4_600;
/// The first port_us.
const FIRST_SERVER: u16 = FIRST_CLEAR + EACH as u16;
/// port_uc of one phone: one a set, and up to three sets live side by side.
const CLIENTS: u16 = 3;
/// Phones of one address: below the ports that the kernel draws from for others.
pub const EACH: usize = 5_600;
/// The first port_uc of an address.
const FIRST_CLIENT: u16 = FIRST_SERVER + EACH as u16;

/// One subscriber.
pub struct Subscriber {
    /// Private identity.
    pub impi: String,
    /// Public identity.
    pub impu: String,
    /// The subscriber's key.
    pub k: Zeroizing<[u8; 16]>,
    /// The operator's value, already mixed with K.
    pub opc: Zeroizing<[u8; 16]>,
}

/// All subscribers: a pattern with numbers, or one by one.
pub enum Subscribers {
    /// `{n}` in the identities, one pair of keys for all.
    Numbered {
        /// The pattern of the private identity.
        impi: String,
        /// The pattern of the public one.
        impu: String,
        /// K of all.
        k: Zeroizing<[u8; 16]>,
        /// OPc of all.
        opc: Zeroizing<[u8; 16]>,
        /// The number of the first.
        first: u64,
    },
    /// From a file.
    Listed(Vec<Subscriber>),
}

impl Subscribers {
    /// The pattern of ue.toml.
    ///
    /// # Errors
    /// When its identities have no place for a number and more than one is wanted.
    pub fn numbered(config: &Config, first: u64, count: usize) -> Result<Subscribers> {
        for (key, value) in [("impi", &config.impi), ("impu", &config.impu)] {
            ensure!(
                count == 1 || pattern::is_pattern(value),
                "[ue] {key}: {count} phones need different identities: write {{n}} where the \
                 number goes, such as ue{{n}}@home.test, or use --subscribers"
            );
        }
        Ok(Subscribers::Numbered {
            impi: config.impi.clone(),
            impu: config.impu.clone(),
            k: config.k.clone(),
            opc: config.opc.clone(),
            first,
        })
    }

    /// Lines `impi,impu,k,opc`, keys in hexadecimal digits; lines that begin with #
    /// and blank ones are stepped over. No error repeats a line.
    ///
    /// # Errors
    /// The file's mode, or the number of a line that is not of that form.
    pub fn read(path: &Path) -> Result<Subscribers> {
        let text = read_private(path)?;
        let listed = Subscribers::parse(&text);
        listed.with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Subscribers> {
        let mut all = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            let subscriber = match fields.as_slice() {
                [impi, impu, k, opc] => (|| {
                    Some(Subscriber {
                        impi: (*impi).to_owned(),
                        impu: (*impu).to_owned(),
                        k: key(k)?,
                        opc: key(opc)?,
                    })
                })(),
                _ => None,
            };
            match subscriber {
                Some(subscriber) => all.push(subscriber),
                None => bail!(
                    "line {}: not impi,impu,k,opc with keys of 32 hex digits",
                    at + 1
                ),
            }
        }
        Ok(Subscribers::Listed(all))
    }

    /// How many there are; none: as many as there are numbers.
    pub fn len(&self) -> Option<usize> {
        match self {
            Subscribers::Numbered { .. } => None,
            Subscribers::Listed(all) => Some(all.len()),
        }
    }

    /// The subscriber of a phone.
    pub fn get(&self, index: usize) -> Option<Subscriber> {
        match self {
            Subscribers::Numbered {
                impi,
                impu,
                k,
                opc,
                first,
            } => {
                let n = first + index as u64;
                Some(Subscriber {
                    impi: pattern::numbered(impi, n),
                    impu: pattern::numbered(impu, n),
                    k: k.clone(),
                    opc: opc.clone(),
                })
            }
            Subscribers::Listed(all) => all.get(index).map(|s| Subscriber {
                impi: s.impi.clone(),
                impu: s.impu.clone(),
                k: s.k.clone(),
                opc: s.opc.clone(),
            }),
        }
    }
}

/// What a phone has of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// Its port for messages in clear: a phone has a host of its own elsewhere, and
    /// is told from others by it.
    pub clear: u16,
    /// port_us.
    pub server: u16,
    /// Ports to draw port_uc from.
    pub clients: RangeInclusive<u16>,
}

/// Addresses and ports, dealt out to the phones in turn.
#[derive(Debug)]
pub struct Places {
    addresses: Vec<IpAddr>,
    /// Phones of the address that has most.
    each: usize,
}

impl Places {
    /// For `count` phones.
    ///
    /// # Errors
    /// When the addresses have not ports enough.
    pub fn new(addresses: Vec<IpAddr>, count: usize) -> Result<Places> {
        let wanted = count.div_ceil(EACH);
        ensure!(
            !addresses.is_empty() && addresses.len() >= wanted,
            "{count} phones need {wanted} addresses of this host, {EACH} phones each: --address"
        );
        let each = count.div_ceil(addresses.len());
        Ok(Places { addresses, each })
    }

    /// All addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// A phone's place.
    pub fn of(&self, index: usize) -> Place {
        let turn = (index / self.addresses.len()) as u16;
        let client = FIRST_CLIENT + CLIENTS * turn;
        Place {
            address: self.addresses[index % self.addresses.len()],
            clear: FIRST_CLEAR + turn,
            server: FIRST_SERVER + turn,
            clients: client..=client + (CLIENTS - 1),
        }
    }

    /// The phone whose port this is.
    pub fn index(&self, local: SocketAddr) -> Option<usize> {
        let at = self.addresses.iter().position(|a| *a == local.ip())?;
        let turn = match local.port() {
            port @ FIRST_CLIENT.. => (port - FIRST_CLIENT) / CLIENTS,
            port @ FIRST_SERVER.. => port - FIRST_SERVER,
            port => port.checked_sub(FIRST_CLEAR)?,
        };
        let turn = usize::from(turn);
        (turn < self.each).then_some(turn * self.addresses.len() + at)
    }

    /// Every port_us.
    pub fn server_ports(&self) -> RangeInclusive<u16> {
        FIRST_SERVER..=FIRST_SERVER + (self.each.max(1) - 1) as u16
    }

    /// Every port_uc.
    pub fn client_ports(&self) -> RangeInclusive<u16> {
        FIRST_CLIENT..=FIRST_CLIENT + (CLIENTS * self.each.max(1) as u16 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(n: u8) -> Vec<IpAddr> {
        (1..=n).map(|i| [192, 0, 2, i].into()).collect()
    }

    #[test]
    fn every_phone_has_ports_of_its_own_and_is_found_by_them() {
        for (n, count) in [(1, EACH), (3, 1000), (4, 4 * EACH)] {
            let places = Places::new(addresses(n), count).unwrap();
            let mut seen = std::collections::HashSet::new();
            for index in (0..count).step_by(7) {
                let place = places.of(index);
                let (servers, clients) = (places.server_ports(), places.client_ports());
                assert!(servers.contains(&place.server) && !clients.contains(&place.server));
                assert!(place.clients.clone().all(|p| clients.contains(&p)));
                assert!(!servers.contains(&place.clear) && !clients.contains(&place.clear));
                for port in place.clients.chain([place.server, place.clear]) {
                    let at = SocketAddr::new(place.address, port);
                    assert!(seen.insert(at), "{at} twice");
                    assert_eq!(places.index(at), Some(index));
                }
            }
        }
        let places = Places::new(addresses(1), 10).unwrap();
        for port in [0, 4_500, 4_599, 4_610, 10_210, 15_830, 65_535] {
            assert_eq!(places.index(([192, 0, 2, 1], port).into()), None, "{port}");
        }
    }

    #[test]
    fn too_few_addresses_are_named() {
        let error = Places::new(addresses(1), EACH + 1).unwrap_err();
        assert!(error.to_string().contains("need 2 addresses"), "{error}");
        assert!(Places::new(Vec::new(), 1).is_err());
    }

    #[test]
    fn a_list_is_read_and_its_errors_show_no_key() {
        let k = "465b5ce8b199b49faa5f0a2ee238a6bc";
        let text = format!("# impi,impu,k,opc\n\na@h, sip:a@h, {k}, {k}\nb@h,sip:b@h,{k},{k}\n");
        let all = Subscribers::parse(&text).unwrap();
        assert_eq!(all.len(), Some(2));
        let b = all.get(1).unwrap();
        assert_eq!((b.impi.as_str(), b.impu.as_str()), ("b@h", "sip:b@h"));
        assert!(all.get(2).is_none());
        let error = Subscribers::parse(&text.replace("b@h,sip", "b@h;sip"));
        let error = error.err().unwrap().to_string();
        assert!(
            error.contains("line 4") && !error.contains("465b"),
            "{error}"
        );
    }
}
