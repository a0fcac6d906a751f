//! The crate against vectors of an independent implementation: every packet of
//! `tests/vectors` gets its verdict, opens to its plaintext, and seals again to
//! something that opens to the same.

#[path = "vectors/files.rs"]
mod files;

use files::{Sad, expectations, read_pcap};
use gm_esp::{
    BufferedIv, Counter, EncapPort, EncapPorts, MAX_BACK, MAX_FRONT, PacketBuf, Reason, Received,
    Selected, inbound, outbound,
};

/// Opens a packet of a capture; the verdict as reports name it.
fn open(sad: &Sad, packet: &[u8]) -> (Option<u32>, Option<u32>, Result<Vec<u8>, Reason>) {
    let mut buffer = packet.to_vec();
    let end = buffer.len();
    let packet = PacketBuf::new(&mut buffer, 0, end);
    let received = match Received::parse(packet, EncapPort::Either(4500)) {
        Ok(received) => received,
        Err(rejected) => return (rejected.spi, rejected.seq, Err(rejected.reason)),
    };
    let (spi, seq) = (received.spi(), received.seq());
    let walk = || {
        let known = sad
            .iter()
            .find(|(sa, _)| (sa.spi(), sa.destination()) == (spi, received.destination()));
        let (sa, window) = known.ok_or(Reason::UnknownSpi)?;
        let checked = received.check(sa, &window.window())?;
        let opened = inbound::open_one(gm_engines::reference(), checked)?;
        let admitted = opened.commit(&window.window())?.admit()?;
        Ok(admitted.packet().data().to_vec())
    };
    (Some(spi), Some(seq), walk())
}

fn verdict(result: &Result<Vec<u8>, Reason>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(Reason::Keepalive | Reason::PassNonEspMarker) => Reason::NotEsp.name(),
        Err(reason) => reason.name(),
    }
}

fn check(name: &str) {
    let sad = files::sad(name);
    let packets = read_pcap(&format!("{name}/esp.pcap"));
    let expected = expectations(&format!("{name}/expect.jsonl"));
    assert_eq!(packets.len(), expected.len());
    let mut plain = read_pcap(&format!("{name}/plain.pcap")).into_iter();
    for (index, (packet, expected)) in packets.iter().zip(expected).enumerate() {
        let (spi, seq, result) = open(&sad, packet);
        let got = (spi, seq, verdict(&result).to_owned());
        assert_eq!(got, expected, "{name} packet {index}");
        if let Ok(opened) = result {
            assert_eq!(Some(opened), plain.next(), "{name} packet {index}");
        }
    }
    assert_eq!(plain.next(), None, "all of the plaintext came out");
}

#[test]
fn one_packet_for_each_sa() {
    check("esp");
}

#[test]
fn a_stream_with_every_verdict() {
    check("verdicts");
}

#[test]
fn sealed_again_they_open_again() {
    let sad = files::sad("esp");
    let mut byte = 0_u8;
    let mut iv = BufferedIv::new(|bytes: &mut [u8]| {
        for b in bytes {
            byte = byte.wrapping_mul(167).wrapping_add(13);
            *b = byte;
        }
    });
    for plain in read_pcap("esp/plain.pcap") {
        let mut buffer = vec![0; MAX_FRONT];
        buffer.extend_from_slice(&plain);
        let end = buffer.len();
        buffer.resize(end + MAX_BACK, 0);
        // Only one SA of the file takes it: its selectors name ports.
        let matching: Vec<_> = sad
            .iter()
            .filter(|(sa, _)| {
                let packet = PacketBuf::new(&mut buffer, MAX_FRONT, end);
                Selected::new(packet, sa).is_ok()
            })
            .collect();
        assert_eq!(matching.len(), 1);
        let (sa, _) = matching[0];
        let sent = 0.into();
        let packet = PacketBuf::new(&mut buffer, MAX_FRONT, end);
        let numbered = Selected::new(packet, sa)
            .unwrap()
            .number(&Counter(&sent), EncapPorts::default(), &mut iv)
            .unwrap();
        let sealed = outbound::seal_one(gm_engines::reference(), numbered).unwrap();
        let (spi, seq, opened) = open(&files::sad("esp"), sealed.packet().data());
        assert_eq!((spi, seq), (Some(sa.spi()), Some(1)));
        assert_eq!(opened, Ok(plain));
    }
}
