//! Capture formats: what is not a packet stays as it was in the input.

mod common;

use common::*;

/// ESP and plain packets of the published vectors, raw IP.
fn pairs() -> Vec<(Vec<u8>, Vec<u8>)> {
    let esp = packets(&read(&case("esp/esp.pcap")));
    let plain = packets(&read(&case("esp/plain.pcap")));
    esp.into_iter().zip(plain).collect()
}

fn record(at: usize, data: &[u8]) -> Record {
    Record {
        sec: 1_800_000_000 + at as u32,
        fraction: 999_999_990 - 7 * at as u32,
        wire_len: data.len() as u32,
        data: data.to_vec(),
    }
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(if packet[0] >> 4 == 6 {
        [0x86, 0xdd]
    } else {
        [0x08, 0x00]
    });
    frame.extend(packet);
    frame
}

/// Opens `esp`; what comes out is `plain` byte for byte. Then seals `plain`
/// and opens that; again `plain` comes out.
fn both_ways(esp: &[u8], plain: &[u8]) {
    let dir = Dir::new();
    let sad = case("esp/sad.toml");
    let input = dir.put("esp", esp);
    let (opened, report) = dir.open(&sad, &input, &[]);
    assert!(verdicts(&report).iter().all(|v| v == "ok"), "{report}");
    assert!(opened == plain, "opened");
    let (sealed, _) = dir.seal(&sad, &dir.put("plain", plain));
    let (again, _) = dir.open(&sad, &dir.put("sealed", sealed), &[]);
    assert!(again == plain, "sealed and opened");
}

#[test]
fn pcap_in_every_byte_order_unit_and_link_type() {
    for order in [Order::Little, Order::Big] {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
            for (network, frame) in [
                (101, <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>),
                (12, <[u8]>::to_vec),
                (14, <[u8]>::to_vec),
                (1, ethernet),
            ] {
                let (mut esp, mut plain) = (Vec::new(), Vec::new());
                for (at, pair) in pairs().iter().enumerate() {
                    esp.push(record(at, &frame(&pair.0)));
                    plain.push(record(at, &frame(&pair.1)));
                }
                both_ways(
                    &pcap(order, magic, network, &esp),
                    &pcap(order, magic, network, &plain),
                );
            }
        }
    }
}

#[test]
fn link_types_of_one_ip_version() {
    for (network, version) in [(228, 4), (229, 6)] {
        let (mut esp, mut plain) = (Vec::new(), Vec::new());
        for (at, pair) in pairs().iter().enumerate() {
            if pair.0[0] >> 4 == version {
                esp.push(record(at, &pair.0));
                plain.push(record(at, &pair.1));
            }
        }
        let of = |records: &[Record]| pcap(Order::Little, 0xa1b2_c3d4, network, records);
        both_ways(&of(&esp), &of(&plain));
    }
}

/// A pcapng of two sections; the bytes between the packets are what `kept`
/// says they become.
fn pcapng(kept: bool, packet: impl Fn(&(Vec<u8>, Vec<u8>)) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for order in [Order::Big, Order::Little] {
        let length = if kept {
            [0xff; 8]
        } else {
            [0, 0, 1, 0, 0, 1, 0, 0]
        };
        bytes.extend(section(order, length));
        // Nanoseconds on raw IP, with a name; 2^-20 s on Ethernet, cut at 128.
        let name = [
            option(order, 2, b"gm0"),
            option(order, 9, &[9]),
            option(order, 0, b""),
        ];
        bytes.extend(interface(order, 101, 0, &name.concat()));
        let resolution = [option(order, 9, &[0x80 | 20]), option(order, 0, b"")];
        let snaplen = if kept { 0 } else { 2000 };
        bytes.extend(interface(order, 1, snaplen, &resolution.concat()));
        bytes.extend(block(order, 4, &[0; 4])); // names: kept
        if !kept {
            bytes.extend(block(order, 5, &[0; 12])); // statistics
            bytes.extend(block(order, 10, b"TLSK\x08\0\0\0key = 12")); // secrets
            bytes.extend(block(order, 0x0bad, &[1, 2, 3, 4]));
        }
        for (at, pair) in pairs().iter().enumerate() {
            let time = 0x0006_1234_89ab_cdef + at as u64;
            let data = packet(pair);
            let comment = option(order, 1, b"from the lab");
            let flags = option(order, 2, &order.four(1));
            let hash = option(order, 3, &[2, 1, 2, 3, 4]);
            let end = option(order, 0, b"");
            let options = match (at % 3, kept) {
                (0, _) => vec![],
                (1, true) => [comment, flags, end].concat(),
                (1, false) => [comment, hash, flags, end].concat(),
                (_, true) => vec![],
                (_, false) => [hash, end].concat(),
            };
            if at % 2 == 0 {
                bytes.extend(enhanced(order, 0, time, &data, &options));
            } else {
                bytes.extend(enhanced(order, 1, time, &ethernet(&data), &options));
            }
            if at % 5 == 0 {
                // A simple packet, of the first interface.
                let mut body = order.four(data.len() as u32).to_vec();
                body.extend(&data);
                bytes.extend(block(order, 3, &body));
            }
        }
    }
    bytes
}

#[test]
fn pcapng_with_sections_interfaces_and_options() {
    let dir = Dir::new();
    let sad = case("esp/sad.toml");
    let input = dir.put("esp.pcapng", pcapng(false, |pair| pair.0.clone()));
    let (_, report) = dir.open(&sad, &input, &[]);
    // Every packet of the second section is there already, and every simple
    // packet repeats the one before it.
    let words = verdicts(&report);
    let fresh = words.iter().filter(|v| *v == "ok").count();
    let again = words.iter().filter(|v| *v == "replay").count();
    assert_eq!((fresh, again), (24, words.len() - 24));

    // Sealed anew there is no replay, so the whole file comes back.
    let plain = pcapng(true, |pair| pair.1.clone());
    let (sealed, said) = dir.seal(
        &sad,
        &dir.put("plain.pcapng", pcapng(false, |p| p.1.clone())),
    );
    assert!(said.contains("58 packets sealed, 0 left out"), "{said}");
    let (opened, _) = dir.open(&sad, &dir.put("sealed.pcapng", sealed), &[]);
    assert!(opened == plain);
}

#[test]
fn an_old_packet_block_becomes_an_enhanced_one() {
    let order = Order::Little;
    let (esp, plain) = &pairs()[0];
    let head = [section(order, [0xff; 8]), interface(order, 101, 0, b"")].concat();
    let mut body = [order.two(0), order.two(7)].concat();
    for word in [5, 6, esp.len() as u32, esp.len() as u32] {
        body.extend(order.four(word));
    }
    body.extend(esp);
    let dir = Dir::new();
    let input = dir.put(
        "old.pcapng",
        [head.clone(), block(order, 2, &body)].concat(),
    );
    let (opened, _) = dir.open(&case("esp/sad.toml"), &input, &[]);
    assert!(opened == [head, enhanced(order, 0, 5 << 32 | 6, plain, b"")].concat());
}

#[test]
fn a_small_snapshot_length_is_raised_and_fcs_bits_go() {
    let mut bytes = pcap_header(Order::Big, 0xa1b2_c3d4, 96, 0x2400_0001);
    let dir = Dir::new();
    let (opened, report) = dir.open(&case("esp/sad.toml"), &dir.put("in", &bytes), &[]);
    assert_eq!(report, "");
    bytes[16..24].copy_from_slice(&[0, 4, 0, 0, 0, 0, 0, 1]);
    assert_eq!(opened, bytes);
}

#[test]
fn a_cut_capture_is_malformed_and_its_records_are_read() {
    // tcpdump -s 40: every record is cut, and longer than the snapshot length.
    let mut bytes = pcap_header(Order::Little, 0xa1b2_c3d4, 40, 101);
    for (at, (esp, _)) in pairs().iter().enumerate() {
        let mut cut = pcap(Order::Little, 0xa1b2_c3d4, 101, &[record(at, &esp[..40])]);
        let wire_len = (esp.len() as u32).to_le_bytes();
        cut[36..40].copy_from_slice(&wire_len);
        bytes.extend(&cut[24..]);
    }
    let dir = Dir::new();
    let (opened, report) = dir.open(&case("esp/sad.toml"), &dir.put("in", &bytes), &[]);
    assert_eq!(records(&opened).len(), 0);
    let expected = String::from_utf8(read(&case("esp/expect.jsonl"))).expect("text");
    for ((got, wanted), (esp, _)) in lines(&report).iter().zip(lines(&expected)).zip(pairs()) {
        assert_eq!(got["verdict"], "malformed");
        // Eight bytes of raw ESP behind 20 of IPv4 are there, and eight bytes
        // behind IPv4 and UDP too; behind 40 of IPv6 nothing is.
        if esp[0] >> 4 == 4 {
            assert_eq!((&got["spi"], &got["seq"]), (&wanted["spi"], &wanted["seq"]));
        } else {
            assert!(got["spi"].is_null() && got["seq"].is_null());
        }
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_nothing_is_written() {
    let good = pcap(Order::Little, 0xa1b2_c3d4, 101, &[record(0, &pairs()[0].0)]);
    let order = Order::Little;
    let ng = [section(order, [0xff; 8]), interface(order, 101, 0, b"")].concat();
    let stray = enhanced(order, 3, 0, &[0; 40], b"");
    let mut long = good.clone();
    long[32..36].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
    let mut differ = ng.clone();
    let last = differ.len() - 4;
    differ[last] += 4;
    for (name, bytes, wanted) in [
        ("empty", vec![], "neither pcap nor pcapng"),
        (
            "text",
            b"[[sa]]\nspi = 300\n".to_vec(),
            "neither pcap nor pcapng",
        ),
        ("header", good[..20].to_vec(), "ends within the record"),
        (
            "record",
            good[..30].to_vec(),
            "ends within the record at byte 24",
        ),
        (
            "packet",
            good[..good.len() - 1].to_vec(),
            "ends within the record at byte 24",
        ),
        (
            "length",
            long,
            "damaged record at byte 24: captured length above",
        ),
        (
            "link",
            pcap(order, 0xa1b2_c3d4, 113, &[]),
            "link type 113 is not supported",
        ),
        (
            "interface",
            [ng.clone(), stray].concat(),
            "an interface that is not described",
        ),
        (
            "block",
            ng[..ng.len() - 2].to_vec(),
            "ends within the record at byte 28",
        ),
        ("differ", differ, "the two lengths of a block differ"),
    ] {
        let dir = Dir::new();
        let input = dir.put("in", bytes);
        for tool in ["open", "seal"] {
            let sad = case("esp/sad.toml");
            let out = dir.path("out");
            let report = dir.path("report");
            let mut args = vec![
                "pcap".as_ref(),
                tool.as_ref(),
                "--sad".as_ref(),
                sad.as_path(),
            ];
            args.extend(["--out".as_ref(), out.as_path()]);
            if tool == "open" {
                args.extend(["--report".as_ref(), report.as_path()]);
            }
            args.push(&input);
            let ran = run(&args);
            assert_eq!(ran.code, 1, "{name}: {}", ran.err);
            assert!(ran.err.contains(wanted), "{name}: {}", ran.err);
            assert_eq!(ran.err.lines().count(), 1, "{name}: {}", ran.err);
            assert_eq!(dir.names(), ["in"], "{name}");
        }
    }
}

#[test]
fn a_capture_without_packets_gives_one_without_packets() {
    let dir = Dir::new();
    let bytes = pcap(Order::Little, 0xa1b2_3c4d, 1, &[]);
    let (opened, report) = dir.open(&case("esp/sad.toml"), &dir.put("in", &bytes), &[]);
    assert_eq!((opened, report.as_str()), (bytes, ""));
}

#[test]
fn streams_go_through_standard_input_and_output() {
    let sad = case("esp/sad.toml");
    let sad = sad.to_str().expect("text");
    let dir = Dir::new();
    let report = dir.path("report");
    let report = report.to_str().expect("text");
    let esp = read(&case("esp/esp.pcap"));
    let args = [
        "pcap", "open", "--sad", sad, "--out", "-", "--report", report, "-",
    ];
    let ran = run_with(&args, &esp);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(packets(&ran.out), packets(&read(&case("esp/plain.pcap"))));
    let args = ["pcap", "seal", "--sad", sad, "--out", "-", "-"];
    let ran = run_with(&args, &ran.out);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(records(&ran.out).len(), 24);
}
