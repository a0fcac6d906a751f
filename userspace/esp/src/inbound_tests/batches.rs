//! Batches: order, holes, copies of one packet, bad neighbours.

use gm_abi::wire::EncapPort;

use super::super::*;
use crate::testing::{Link, Plain};
use crate::{Counter, EncapPorts, IvSource, Selected, Suite, outbound};

struct NoIv;

impl IvSource for NoIv {
    fn fill(&mut self, iv: &mut [u8; 16]) {
        *iv = [0x5c; 16];
    }
}

/// Seals `count` packets in one batch, with holes, and checks their order.
fn seal_batch(link: &Link, count: usize) -> Vec<Vec<u8>> {
    let plain = Plain::udp(link.v6(), 60).bytes();
    let mut buffers = vec![vec![0; 400]; count];
    let mut batch: Vec<_> = buffers
        .iter_mut()
        .enumerate()
        .map(|(i, buffer)| {
            let end = 100 + plain.len();
            buffer[100..end].copy_from_slice(&plain);
            let packet = PacketBuf::new(buffer, 100, end);
            let selected = Selected::new(packet, &link.sa).ok()?;
            (i % 7 != 3).then_some(())?;
            let counter = Counter(&link.sent);
            selected
                .number(&counter, EncapPorts::default(), &mut NoIv)
                .ok()
        })
        .collect();
    let mut sealed = vec![];
    let mut at = vec![];
    outbound::seal(gm_engines::reference(), &mut batch, |i, packet| {
        at.push(i);
        sealed.push(packet.ok().unwrap().packet().data().to_vec());
    });
    assert!(at.into_iter().eq((0..count).filter(|i| i % 7 != 3)));
    assert!(batch.iter().all(Option::is_none));
    sealed
}

#[test]
fn batches_of_any_length_open_in_order_and_bad_ones_poison_nobody() {
    for suite in Suite::every() {
        for count in [0, 1, 2, 8, 9, 63, 64, 65, 200] {
            let link = Link::new(suite, Mode::Trans, false);
            let mut packets = seal_batch(&link, count);
            for packet in packets.iter_mut().step_by(5) {
                let end = packet.len() - 1;
                packet[end] ^= 0x80;
            }
            let window = link.window.window();
            let mut batch: Vec<_> = packets
                .iter_mut()
                .map(|packet| {
                    let end = packet.len();
                    let packet = PacketBuf::new(packet, 0, end);
                    let received = Received::parse(packet, EncapPort::Dst(4500)).ok()?;
                    received.check(&link.sa, &window).ok()
                })
                .collect();
            let mut seen = vec![];
            open(gm_engines::reference(), &mut batch, |i, result| {
                let expected = if i % 5 == 0 {
                    Some(Reason::BadIcv)
                } else {
                    None
                };
                let admitted = result
                    .and_then(|opened| opened.commit(&window))
                    .and_then(|committed| committed.admit());
                assert_eq!(admitted.err(), expected);
                seen.push(i);
            });
            assert!(seen.into_iter().eq(0..count - (count + 3) / 7));
        }
    }
}

#[test]
fn eight_copies_in_one_batch_are_one() {
    for mut link in Link::all() {
        let mut copies = vec![link.sealed(50); 8];
        let window = link.window.window();
        let mut batch: Vec<_> = copies
            .iter_mut()
            .map(|packet| {
                let end = packet.len();
                let packet = PacketBuf::new(packet, 0, end);
                let received = Received::parse(packet, EncapPort::Dst(4500)).ok()?;
                received.check(&link.sa, &window).ok()
            })
            .collect();
        assert!(
            batch.iter().all(Option::is_some),
            "the first check passes all"
        );
        let mut verdicts = vec![];
        open(gm_engines::reference(), &mut batch, |_, opened| {
            verdicts.push(opened.and_then(|opened| opened.commit(&window)).err());
        });
        assert_eq!(verdicts[0], None);
        assert_eq!(verdicts[1..], [Some(Reason::Replay); 7]);
    }
}
