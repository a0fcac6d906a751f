//! A folder of tests/vectors.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gm_abi::wire::{L3, parse_ip};
use gm_api::sad::{Sad, SadEntry};
use gm_esp::InnerFlow;
use gm_xfrm::capture::{Item, Reader};
use gm_xfrm::kernel::kernel_window;
use serde::Deserialize;

/// A line of expect.jsonl.
#[derive(Deserialize)]
struct Expected {
    spi: Option<u32>,
    seq: Option<u32>,
    verdict: String,
}

/// Packets, keys and verdicts.
pub struct Vectors {
    /// The SAs.
    pub sas: Vec<SadEntry>,
    /// What goes in, from the IP header on.
    packets: Vec<Vec<u8>>,
    /// What comes out, in this order.
    pub plain: Vec<Vec<u8>>,
    expected: Vec<Expected>,
}

impl Vectors {
    /// Reads a folder. Left out are SAs with windows that the kernel does not have:
    /// [`kernel_window`] says why.
    pub fn load(folder: &str) -> Vectors {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("vectors")
            .join(folder);
        let sad = Sad::load(&folder.join("sad.toml")).expect("a SAD");
        let lines = std::fs::read_to_string(folder.join("expect.jsonl")).expect("verdicts");
        let expected = lines.lines().map(serde_json::from_str);
        let has = |sa: &SadEntry| kernel_window(sa.spec.replay_window) == sa.spec.replay_window;
        let (sas, left_out): (Vec<_>, Vec<_>) = sad.entries.into_iter().partition(has);
        let mut plain = packets(folder.join("plain.pcap"));
        plain.retain(|packet| !left_out.iter().any(|sa| carries(sa, packet)));
        Vectors {
            sas,
            packets: packets(folder.join("esp.pcap")),
            plain,
            expected: expected.collect::<Result<_, _>>().expect("JSON lines"),
        }
    }

    /// Packets to be judged: what is no ESP goes where it wants.
    pub fn esp(&self) -> impl Iterator<Item = &Vec<u8>> {
        let all = self.packets.iter().zip(&self.expected);
        all.filter(|(_, e)| e.verdict != "not-esp").map(|(p, _)| p)
    }

    /// How many packets of an SA have this verdict.
    pub fn count(&self, spi: u32, verdict: &str) -> usize {
        let is = |e: &&Expected| e.spi == Some(spi) && e.verdict == verdict;
        self.expected.iter().filter(is).count()
    }

    /// How many of an SA have number 0 and end for it.
    pub fn zeros(&self, spi: u32) -> usize {
        let is = |e: &&Expected| e.spi == Some(spi) && e.seq == Some(0) && e.verdict == "replay";
        self.expected.iter().filter(is).count()
    }
}

fn packets(path: PathBuf) -> Vec<Vec<u8>> {
    let mut reader = Reader::new(File::open(path).expect("a capture")).expect("a capture");
    let mut all = Vec::new();
    while let Some(item) = reader.next().expect("a whole capture") {
        if let Item::Packet(packet) = item {
            all.push(packet.data);
        }
    }
    all
}

/// Whether an opened packet is one of this SA.
fn carries(sa: &SadEntry, packet: &[u8]) -> bool {
    match parse_ip(packet, 0) {
        L3::Ip(ip) => sa.spec.selector.matches(&InnerFlow::of(&ip)),
        _ => false,
    }
}

/// Where an IP packet goes.
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?)),
        6 => Some(IpAddr::from(
            <[u8; 16]>::try_from(packet.get(24..40)?).ok()?,
        )),
        _ => None,
    }
}
