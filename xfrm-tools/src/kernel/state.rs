//! A state: one SA in the kernel.

use std::fmt;
use std::net::IpAddr;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::numbers::Numbers;
use super::select::{Selector, Wrap};

/// IP protocol number of ESP.
pub const ESP: u8 = 50;

/// What names a state in the kernel (beside a mark, which ours do not have).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId {
    /// Destination address outside.
    pub dst: IpAddr,
    /// SPI, host byte order.
    pub spi: u32,
    /// IP protocol, [`ESP`] for what this program makes.
    pub proto: u8,
}

impl StateId {
    /// An ESP state.
    pub const fn esp(dst: IpAddr, spi: u32) -> StateId {
        StateId {
            dst,
            spi,
            proto: ESP,
        }
    }
}

/// `SPI 0x12345678 to 192.0.2.1`.
impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SPI {:#010x} to {}", self.spi, self.dst)?;
        match self.proto {
            ESP => Ok(()),
            proto => write!(f, " (protocol {proto})"),
        }
    }
}

/// A key as the kernel has it, wiped when dropped. `Debug` shows its length;
/// comparing takes the same time wherever they differ.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A copy of the bytes; the caller wipes its own.
    pub fn new(bytes: &[u8]) -> Secret {
        Secret(Zeroizing::new(bytes.to_vec()))
    }

    /// Two parts one after the other, as the kernel has the key and salt of
    /// GCM and GMAC (RFC 4106 8.1).
    pub fn joined(first: &[u8], second: &[u8]) -> Secret {
        let mut bytes = Zeroizing::new(Vec::with_capacity(first.len() + second.len()));
        bytes.extend_from_slice(first);
        bytes.extend_from_slice(second);
        Secret(bytes)
    }

    /// The secret bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

/// An algorithm by the name that the kernel's cryptography has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// Such as `cbc(aes)`.
    pub name: String,
    /// Its key.
    pub key: Secret,
    /// Length of the ICV in bits; 0 where there is none, and where whoever
    /// made the state left it to the kernel.
    pub icv_bits: u32,
}

/// The algorithms of a state: `aead`, or `auth` and `crypt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Algorithms {
    /// Integrity.
    pub auth: Option<Algorithm>,
    /// Encryption.
    pub crypt: Option<Algorithm>,
    /// Both in one.
    pub aead: Option<Algorithm>,
}

/// The UDP header around ESP (RFC 3948), as packets of the state carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encap {
    /// UDP_ENCAP_ESPINUDP (2), or what else there is.
    pub kind: u16,
    /// Source port; 0: not known.
    pub sport: u16,
    /// Destination port; 0: not known.
    pub dport: u16,
}

/// UDP_ENCAP_ESPINUDP.
pub const ESP_IN_UDP: u16 = 2;

/// What a state has done. Times are of the system's clock, in seconds since
/// 1970; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes, of the IP packets inside.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// When it was made.
    pub added: u64,
    /// When it was used for the first time.
    pub first_used: u64,
    /// When it was used for the last time, where the kernel tells.
    pub last_used: Option<u64>,
    /// Packets left of the replay window.
    pub stale: u32,
    /// Packets whose number had come before.
    pub replay: u32,
    /// Packets with a wrong ICV.
    pub icv_failed: u32,
}

/// When a state or a policy ends by itself. What this project makes has none;
/// others set the registration's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes at which listeners are told, and at which it ends; `u64::MAX`:
    /// never.
    pub bytes: [u64; 2],
    /// The same in packets.
    pub packets: [u64; 2],
    /// The same in seconds after it was made; 0: never.
    pub added: [u64; 2],
    /// The same in seconds after its first use; 0: never.
    pub used: [u64; 2],
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes: [u64::MAX; 2],
            packets: [u64::MAX; 2],
            added: [0; 2],
            used: [0; 2],
        }
    }
}

impl Limits {
    /// What is left of the times after making it when it was made at `added`
    /// and made again at `now`, both in seconds since 1970; at least a second.
    #[must_use]
    pub fn made_again(mut self, added: u64, now: u64) -> Limits {
        for limit in self.added.iter_mut().filter(|limit| **limit > 0) {
            *limit = limit.saturating_sub(now.saturating_sub(added)).max(1);
        }
        self
    }
}

/// A mark that packets must carry to find a state or a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Value.
    pub value: u32,
    /// Bits that count.
    pub mask: u32,
}

/// One SA in the kernel. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its name.
    pub id: StateId,
    /// Source address outside.
    pub src: IpAddr,
    /// Transport or tunnel.
    pub wrap: Wrap,
    /// Which of the templates are for it.
    pub reqid: u32,
    /// Traffic that it is for; the kernel compares it after opening, and when
    /// it looks for a state to send with.
    pub selector: Selector,
    /// Algorithms and keys.
    pub algorithms: Algorithms,
    /// UDP around ESP.
    pub encap: Option<Encap>,
    /// Sequence numbers and replay window.
    pub numbers: Numbers,
    /// What it has done; not sent to the kernel.
    pub counters: Counters,
    /// When it ends by itself.
    pub limits: Limits,
    /// XFRM_STATE_* without the ESN bit, which `numbers` has.
    pub flags: u8,
    /// XFRM_SA_XFLAG_*.
    pub extra_flags: u32,
    /// Mark that packets need.
    pub mark: Option<Mark>,
    /// Of XFRM interfaces; 0: none.
    pub if_id: u32,
}

impl State {
    /// Whether all keys are zero, which the kernel shows instead of the real
    /// ones when it is locked down (`lockdown=confidentiality`).
    pub fn keys_are_hidden(&self) -> bool {
        let Algorithms { auth, crypt, aead } = &self.algorithms;
        let mut keys = [auth, crypt, aead]
            .into_iter()
            .flatten()
            .map(|a| a.key.bytes())
            .filter(|key| !key.is_empty())
            .peekable();
        keys.peek().is_some() && keys.all(|key| key.iter().all(|b| *b == 0))
    }

    /// Whether it is another state only in what changes by itself: numbers,
    /// counters and limits, and the ports of a NAT.
    pub fn is_same_sa(&self, other: &State) -> bool {
        self.id == other.id
            && self.src == other.src
            && self.wrap == other.wrap
            && self.reqid == other.reqid
            && self.selector == other.selector
            && self.algorithms == other.algorithms
            && self.encap.map(|e| e.kind) == other.encap.map(|e| e.kind)
            && self.numbers.esn == other.numbers.esn
            && self.numbers.window == other.numbers.window
            && self.flags == other.flags
            && self.extra_flags == other.extra_flags
            && self.mark == other.mark
            && self.if_id == other.if_id
    }
}
