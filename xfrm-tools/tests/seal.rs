//! What `pcap seal` chooses, counts and refuses.

mod common;

use common::*;

/// A UDP packet over IPv4 between documentation addresses.
fn packet(src: u8, dst: u8, sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let len = (28 + payload.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(len.to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, src, 192, 0, 2, dst]);
    let sum: u32 = ip
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let sum = !((sum >> 16) as u16).wrapping_add(sum as u16);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    for word in [sport, dport, len - 20, 0] {
        ip.extend(word.to_be_bytes());
    }
    ip.extend(payload);
    ip
}

fn capture(packets: &[Vec<u8>]) -> Vec<u8> {
    let records: Vec<Record> = packets
        .iter()
        .map(|data| Record {
            sec: 1_800_000_000,
            fraction: 0,
            wire_len: data.len() as u32,
            data: data.clone(),
        })
        .collect();
    pcap(Order::Little, 0xa1b2_c3d4, 101, &records)
}

const KEYS: &str = "ik = \"447266b1847a80f4d2b9e57fb4cd8316\"
ck = \"a85a9947c4b72d635fa18fb2f71764dc\"
";

fn sa(spi: u32, dst: u8, more: &str) -> String {
    format!("[[sa]]\nspi = {spi}\nsrc = \"192.0.2.1\"\ndst = \"192.0.2.{dst}\"\n{KEYS}{more}\n")
}

const GCM: &str = "mode = \"trans\"\nalg = \"null\"\nealg = \"aes-gcm\"\n";
const CBC: &str = "mode = \"trans\"\nalg = \"hmac-sha-1-96\"\nealg = \"aes-cbc\"\n";

/// SPI and sequence number of a raw ESP packet over IPv4 without options.
fn head(packet: &[u8]) -> (u32, u32) {
    assert_eq!(packet[9], 50);
    let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().expect("word"));
    (word(20), word(24))
}

fn seal(sad: &str, packets_in: &[Vec<u8>]) -> (Vec<Vec<u8>>, String) {
    let dir = Dir::new();
    let sad = dir.put("sad.toml", sad);
    let (sealed, said) = dir.seal(&sad, &dir.put("in", capture(packets_in)));
    (packets(&sealed), said)
}

#[test]
fn the_first_sa_that_matches_seals_and_numbers_from_its_seq() {
    let sad = [
        sa(300, 2, &format!("{GCM}dst_port = 5060")),
        sa(301, 2, &format!("{GCM}seq = 1000")),
        sa(302, 2, GCM),
    ]
    .concat();
    let to = |port| packet(1, 2, 9, port, b"x");
    let other = packet(1, 3, 9, 5060, b"x");
    let input = [to(5060), to(5061), other, to(5060), to(7)];
    let (sealed, said) = seal(&sad, &input);
    let heads: Vec<_> = sealed.iter().map(|p| head(p)).collect();
    assert_eq!(heads, [(300, 1), (301, 1000), (300, 2), (301, 1001)]);
    assert_eq!(
        said,
        "gm-xfrm: 4 packets sealed, 1 left out: no SA matches\n"
    );
}

#[test]
fn numbers_end_and_never_begin_again() {
    let last = sa(300, 2, &format!("{GCM}seq = 4294967294"));
    let input = vec![packet(1, 2, 9, 9, b"x"); 4];
    let (sealed, said) = seal(&last, &input);
    let heads: Vec<_> = sealed.iter().map(|p| head(p)).collect();
    assert_eq!(heads, [(300, u32::MAX - 1), (300, u32::MAX)]);
    assert!(
        said.contains("2 left out: sequence numbers used up"),
        "{said}"
    );
}

#[test]
fn gcm_ivs_are_spi_and_number_and_cbc_ivs_are_random() {
    let input = vec![packet(1, 2, 9, 9, b"x"); 300];
    let (sealed, _) = seal(&sa(0x0102_0304, 2, GCM), &input);
    for packet in &sealed {
        assert_eq!(packet[20..28], packet[28..36]);
    }
    let cbc = sa(300, 2, CBC);
    let (first, second) = (seal(&cbc, &input).0, seal(&cbc, &input).0);
    let ivs = first.iter().chain(&second).map(|p| p[28..44].to_vec());
    let distinct: std::collections::BTreeSet<_> = ivs.collect();
    assert_eq!(distinct.len(), 600);
}

#[test]
fn two_sas_that_would_share_nonces_are_refused() {
    let dir = Dir::new();
    let sad = dir.put("sad.toml", [sa(300, 2, GCM), sa(300, 3, GCM)].concat());
    let input = dir.put("in", capture(&[]));
    let out = dir.path("out");
    let args = [
        "pcap".as_ref(),
        "seal".as_ref(),
        "--sad".as_ref(),
        sad.as_path(),
    ];
    let ran = run(&[&args[..], &["--out".as_ref(), out.as_path(), &input]].concat());
    assert_eq!(ran.code, 2);
    assert!(
        ran.err
            .contains("sad.toml: [[sa]] #2: spi: [[sa]] #1 has this SPI and these keys"),
        "{}",
        ran.err
    );
    assert_eq!(dir.names(), ["in", "sad.toml"]);
    // Opening with them is safe, and so is CBC.
    dir.open(&sad, &input, &[]);
    let (sealed, _) = seal(
        &[sa(300, 2, CBC), sa(300, 3, CBC)].concat(),
        &[packet(1, 2, 9, 9, b"x")],
    );
    assert_eq!(sealed.len(), 1);
}

#[test]
fn what_cannot_be_sealed_is_left_out_and_counted() {
    let tunnel = "mode = \"udp-enc-tun\"\nalg = \"aes-gmac\"\nealg = \"null\"\n\
                  outer_src = \"192.0.2.1\"\nouter_dst = \"192.0.2.99\"\nencap_sport = 4500\n";
    let sad = [sa(300, 2, GCM), sa(301, 3, tunnel)].concat();
    let good = packet(1, 2, 9, 9, &[7; 1000]);
    let mut lying = good.clone();
    lying[2] = 0xff;
    // Two fragments that belong together, and one that stays alone.
    let (mut first, mut last) = (good[..20 + 512].to_vec(), good[..20].to_vec());
    last.extend(&good[20 + 512..]);
    first[2..8].copy_from_slice(&[2, 20, 0, 9, 0x20, 0]);
    let len = (last.len() as u16).to_be_bytes();
    last[2..8].copy_from_slice(&[len[0], len[1], 0, 9, 0, 64]);
    let mut alone = first.clone();
    alone[5] = 77;
    let input = [
        good,
        packet(1, 3, 9, 9, b"no port"),
        lying,
        last,
        first,
        alone,
        packet(1, 2, 9, 9, &[7; 65_490]),
    ];
    let (sealed, said) = seal(&sad, &input);
    assert_eq!(
        said,
        "gm-xfrm: 2 packets sealed, 0 left out: no SA matches; \
         2 fragments put together, or never whole; \
         1 left out: SAD.toml names no encap_dport to send to; \
         2 left out: damaged, cut or too long\n"
    );
    assert_eq!(sealed.len(), 2);
    assert_eq!(sealed[0].len(), sealed[1].len());
}
