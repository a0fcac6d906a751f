//! Reads `tests/vectors` of the workspace: just enough pcap, TOML and JSON.

use gm_esp::{
    Ck, EspKeys, Ik, Legacy, Mode, Outer, OwnedWindow, Sa, SaSpec, SelProto, Selector, Suite,
};

/// SAs of a file with their windows.
pub type Sad = Vec<(Sa, OwnedWindow)>;

fn read(name: &str) -> Vec<u8> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors");
    std::fs::read(format!("{root}/{name}")).unwrap()
}

fn text(name: &str) -> String {
    String::from_utf8(read(name)).unwrap()
}

/// Packets of a little-endian pcap of raw IP (link type 101).
pub fn read_pcap(name: &str) -> Vec<Vec<u8>> {
    let bytes = read(name);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xa1b2_c3d4, 101), "{name}");
    let mut at = 24;
    let mut packets = vec![];
    while at < bytes.len() {
        let len = word(at + 8) as usize;
        packets.push(bytes[at + 16..at + 16 + len].to_vec());
        at += 16 + len;
    }
    packets
}

/// SPI, sequence number and verdict of each packet.
pub fn expectations(name: &str) -> Vec<(Option<u32>, Option<u32>, String)> {
    let number = |value: &serde_json::Value| value.as_u64().map(|n| n as u32);
    text(name)
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let verdict = line["verdict"].as_str().unwrap().to_owned();
            (number(&line["spi"]), number(&line["seq"]), verdict)
        })
        .collect()
}

/// The SAs of `NAME/sad.toml`.
pub fn sad(name: &str) -> Sad {
    let table: toml::Table = text(&format!("{name}/sad.toml")).parse().unwrap();
    let sas = table["sa"].as_array().unwrap();
    sas.iter()
        .map(|sa| {
            let text = |key: &str| sa[key].as_str().unwrap();
            let port = |key: &str| {
                let port = sa.get(key)?.as_integer()?;
                Some(u16::try_from(port).unwrap())
            };
            let suite = Suite::from_names_with(text("alg"), text("ealg"), Legacy::Allow).unwrap();
            let outer = || Outer {
                src: text("outer_src").parse().unwrap(),
                dst: text("outer_dst").parse().unwrap(),
                sport: port("encap_sport"),
                dport: port("encap_dport"),
            };
            let (mode, outer) = match text("mode") {
                "trans" => (Mode::Trans, None),
                _ => (Mode::UdpEncTun, Some(outer())),
            };
            let spec = SaSpec {
                spi: u32::try_from(sa["spi"].as_integer().unwrap()).unwrap(),
                mode,
                selector: Selector {
                    src: text("src").parse().unwrap(),
                    dst: text("dst").parse().unwrap(),
                    src_port: port("src_port"),
                    dst_port: port("dst_port"),
                    proto: SelProto::UdpTcp,
                },
                suite,
                outer,
                esn: false,
                replay_window: 64,
            };
            let (ik, ck) = (Ik::from_hex(text("ik")), Ck::from_hex(text("ck")));
            let keys = EspKeys::expand(suite, &ik.unwrap(), &ck.unwrap());
            (Sa::new(spec, &keys).unwrap(), OwnedWindow::new(64).unwrap())
        })
        .collect()
}
