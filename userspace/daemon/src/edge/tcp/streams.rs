//! What comes out of a stream, and when it is closed.

use super::*;

#[tokio::test]
async fn messages_in_pieces_and_in_one_piece_and_between_keepalives() {
    let bench = bench(Times::default());
    let mut phone = bench.connect(5064).await;
    let mut stream = Vec::new();
    for n in 0..6 {
        stream.extend_from_slice(&message(n));
        if n % 2 == 0 {
            stream.extend_from_slice(b"\r\n");
        }
    }
    // All at once, then cut at every place in turn.
    phone.write_all(&stream).await.unwrap();
    for n in 0..6 {
        assert_eq!(bench.text().await.into_bytes(), message(n));
    }
    let one = message(7);
    for cut in 1..one.len() {
        phone.write_all(&one[..cut]).await.unwrap();
        tokio::task::yield_now().await;
        phone.write_all(&one[cut..]).await.unwrap();
        assert_eq!(bench.text().await.into_bytes(), one, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_double_crlf_is_answered_in_whatever_pieces_and_a_single_one_is_not() {
    let bench = bench(Times::default());
    let mut phone = bench.connect(5064).await;
    for pieces in [
        &[&b"\r\n\r\n"[..]][..],
        &[b"\r", b"\n\r", b"\n"],
        &[b"\r\n", b"\r\n"],
    ] {
        for piece in pieces {
            phone.write_all(piece).await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(read(&mut phone, 2).await, b"\r\n");
    }
    phone.write_all(b"\r\n").await.unwrap();
    phone.write_all(&message(1)).await.unwrap();
    bench.text().await;
    let nothing = timeout(Duration::from_millis(100), phone.read(&mut [0; 2])).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn two_connections_do_not_mix() {
    let bench = bench(Times::default());
    let (mut a, mut b) = (bench.connect(5064).await, bench.connect(5064).await);
    let (one, two) = (message(1), message(2));
    for (x, y) in one.chunks(7).zip(two.chunks(7)) {
        a.write_all(x).await.unwrap();
        b.write_all(y).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut texts = [bench.text().await, bench.text().await];
    texts.sort();
    assert_eq!(texts.map(String::into_bytes), [one, two]);
}

#[tokio::test]
async fn a_stranger_who_dribbles_or_says_nothing_or_too_much_is_cut_off() {
    let times = Times {
        idle_clear: Duration::from_millis(300),
        part: Duration::from_millis(300),
        ..Times::default()
    };
    let bench = bench(times);
    let mut silent = bench.connect(5060).await;
    assert!(is_closed(&mut silent).await);

    let mut slow = bench.connect(5060).await;
    let start = Instant::now();
    while slow.write_all(b"M").await.is_ok() && start.elapsed() < SOON {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() < SOON, "a byte now and then keeps it open");

    let mut large = bench.connect(5060).await;
    let _ = large.write_all(b"MESSAGE sip:a@b SIP/2.0\r\nX: ").await;
    let most = bench.all.0.config.limits.clear_message;
    let _ = large.write_all(&vec![b'x'; most]).await;
    assert!(is_closed(&mut large).await);
    bench.empty().await;
    assert!(bench.arrivals.next(Duration::ZERO).is_err());
}

#[tokio::test]
async fn only_the_core_may_connect_to_the_cores_side() {
    let bench = bench(Times::default());
    let mut stranger = bench.connect(5062).await;
    assert!(is_closed(&mut stranger).await);
    let [a, b, c, d] = bench.gm.octets();
    let core = Ipv4Addr::new(a, b, c, d + 2);
    // On loopback the address is everybody's, and the port counts as well.
    let at = (core, 5061).into();
    let mut other = connect_from(at, (bench.gm, 5062).into()).await;
    assert!(is_closed(&mut other).await);
    let mut core = connect_from((core, 5060).into(), (bench.gm, 5062).into()).await;
    core.write_all(&message(3)).await.unwrap();
    assert_eq!(bench.text().await.into_bytes(), message(3));
}

#[tokio::test]
async fn to_the_core_from_the_cores_address_and_its_port() {
    let bench = bench(Times::default());
    let [a, b, c, d] = bench.gm.octets();
    let core: SocketAddr = (Ipv4Addr::new(a, b, c, d + 2), 5060).into();
    let listener = open::listen(core, false).unwrap();
    let packet = Packet {
        local: (bench.gm, 5062).into(),
        remote: core,
        transport: Transport::Tcp,
        bytes: message(4),
    };
    bench.all.send(packet.clone()).unwrap();
    let (mut stream, from) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    assert_eq!(from, packet.local);
    assert_eq!(read(&mut stream, packet.bytes.len()).await, packet.bytes);
    drop((stream, listener));
    bench.empty().await;
    bench.all.send(packet.clone()).unwrap();
    match bench.next().await {
        Arrived::UnsentToCore { remote, bytes } => {
            assert_eq!((remote, &bytes[..]), (core, &packet.bytes[..]));
        }
        _ => panic!("no message"),
    }
}
