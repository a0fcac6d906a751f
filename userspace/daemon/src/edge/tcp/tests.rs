//! Connections over loopback, each test at addresses of its own.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU8;
use std::time::Instant;

use gm_sip::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::super::inbox::Arrivals;
use super::*;

const SOON: Duration = Duration::from_secs(10);

struct Bench {
    all: Connections,
    arrivals: Arrivals,
    gm: Ipv4Addr,
    ue: Ipv4Addr,
}

fn bench(times: Times) -> Bench {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let (n, p) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
    let address = |host: u8| Ipv4Addr::new(127, (p >> 8) as u8 & 0x7f, p as u8, n * 4 + host);
    let gm = address(1);
    let at = |port: u16| vec![SocketAddr::from((gm, port))];
    let places = Places {
        clear: at(5060),
        server: at(5064),
        client: at(5065),
    };
    let config = EdgeConfig::new((address(3), 5060).into(), (gm, 5062).into());
    let (inbox, arrivals) = Inbox::new(5060);
    let all = Connections::open(places, &config, &inbox, Handle::current(), times);
    Bench {
        all: all.unwrap(),
        arrivals,
        gm,
        ue: address(2),
    }
}

impl Bench {
    fn packet(&self, bytes: &[u8]) -> Packet {
        Packet {
            local: (self.gm, 5065).into(),
            remote: (self.ue, 31800).into(),
            transport: Transport::Tcp,
            bytes: bytes.to_vec(),
        }
    }

    /// The phone, listening on port_us.
    fn phone(&self) -> TcpListener {
        open::listen((self.ue, 31800).into(), false).unwrap()
    }

    async fn next(&self) -> Arrived {
        let deadline = Instant::now() + SOON;
        loop {
            if let Ok(arrived) = self.arrivals.next(Duration::ZERO) {
                return arrived;
            }
            assert!(Instant::now() < deadline, "nothing arrives");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn text(&self) -> String {
        match self.next().await {
            Arrived::FromUe { bytes, .. } | Arrived::FromCore { bytes, .. } => {
                String::from_utf8(bytes.to_vec()).unwrap()
            }
            _ => panic!("no message"),
        }
    }

    async fn connect(&self, port: u16) -> TcpStream {
        connect_from((self.ue, 0).into(), (self.gm, port).into()).await
    }

    async fn empty(&self) {
        let deadline = Instant::now() + SOON;
        while !self.all.table().open.is_empty() {
            assert!(Instant::now() < deadline, "connections stay");
            sleep(Duration::from_millis(5)).await;
        }
        let table = self.all.table();
        assert_eq!((table.strangers, table.core, table.clear.len()), (0, 0, 0));
        assert_eq!(self.all.0.waiting.load(Ordering::Relaxed), 0);
    }
}

async fn connect_from(local: SocketAddr, remote: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(local).unwrap();
    socket.connect(remote).await.unwrap()
}

async fn read(stream: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    timeout(SOON, stream.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    bytes
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(SOON, stream.read(&mut [0; 64])).await;
    matches!(read.expect("it is closed in time"), Ok(0) | Err(_))
}

fn message(n: u32) -> Vec<u8> {
    format!("MESSAGE sip:a@b SIP/2.0\r\nCall-ID: {n}\r\nl: 4\r\n\r\n{n:04}").into_bytes()
}

#[tokio::test]
async fn the_end_of_an_old_connection_leaves_the_new_one() {
    let bench = bench(Times::default());
    let ends = (
        SocketAddr::from((bench.gm, 5064)),
        "192.0.2.2:31100".parse().unwrap(),
    );
    let mut old = bench.all.admit(ends).unwrap();
    let new = bench.all.admit(ends).unwrap();
    // The old one is told, and takes itself out; the new one has its place by then.
    assert!((&mut old.closed).await.is_err());
    bench.all.over(old, None);
    assert_eq!(bench.all.table().open.len(), 1);
    bench.all.over(new, None);
    assert!(bench.all.table().open.is_empty());
}

#[tokio::test]
async fn one_stranger_does_not_take_all_connections() {
    let bench = bench(Times::default());
    let clear = SocketAddr::from((bench.gm, 5060));
    let mut held = Vec::new();
    let mut admitted = |address: IpAddr, port: u16| {
        let there = bench.all.admit((clear, (address, port).into()));
        held.extend(there);
        held.len()
    };
    let one = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(
        (1..=200).map(|port| admitted(one, port)).max(),
        Some(MOST_CLEAR_EACH)
    );
    // An IPv6 /64 is one stranger.
    let six = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
    let count = (1..=200).map(|n| admitted(six(n), 1)).max();
    assert_eq!(count, Some(2 * MOST_CLEAR_EACH));
    let many = (0..=255).flat_map(|a| (0..=255).map(move |b| IpAddr::from([10, 0, a, b])));
    let count = many.take(4 * MOST_CLEAR).map(|ip| admitted(ip, 1)).max();
    assert_eq!(count, Some(MOST_CLEAR));
    // Phones that are registered have their own room.
    let server = SocketAddr::from((bench.gm, 5064));
    assert!(bench.all.admit((server, (one, 31100).into())).is_some());
    held.pop()
        .into_iter()
        .for_each(|held| bench.all.over(held, None));
    assert_eq!(bench.all.table().strangers, MOST_CLEAR - 1);
}

#[tokio::test]
async fn requests_leave_from_exactly_port_pc_on_one_connection() {
    let bench = bench(Times::default());
    let phone = bench.phone();
    bench.all.send(bench.packet(b"one")).unwrap();
    bench.all.send(bench.packet(b"two")).unwrap();
    let (mut stream, from) = phone.accept().await.unwrap();
    assert_eq!(from, SocketAddr::from((bench.gm, 5065)));
    assert_eq!(read(&mut stream, 6).await, b"onetwo");
    // What the phone says on it, an answer, comes in with both ends.
    stream.write_all(&message(1)).await.unwrap();
    match bench.next().await {
        Arrived::FromUe { local, remote, .. } => {
            assert_eq!(
                (local, remote),
                (bench.packet(b"").local, bench.packet(b"").remote)
            );
        }
        _ => panic!("no message"),
    }
}

#[tokio::test]
async fn a_connection_that_the_phone_has_closed_is_opened_again_from_the_same_port() {
    let bench = bench(Times::default());
    let phone = bench.phone();
    for n in 0..30_u8 {
        bench.all.send(bench.packet(&[n])).unwrap();
        let (mut stream, from) = timeout(SOON, phone.accept()).await.unwrap().unwrap();
        assert_eq!(from, SocketAddr::from((bench.gm, 5065)));
        assert_eq!(read(&mut stream, 1).await, [n]);
        drop(stream);
        bench.empty().await;
    }
}

#[tokio::test]
async fn a_connection_that_we_have_closed_leaves_no_time_wait_in_the_way() {
    let bench = bench(Times::default());
    let phone = bench.phone();
    for n in 0..30_u8 {
        bench.all.send(bench.packet(&[n])).unwrap();
        let (mut stream, _) = timeout(SOON, phone.accept()).await.unwrap().unwrap();
        assert_eq!(read(&mut stream, 1).await, [n]);
        bench
            .all
            .close((bench.packet(b"").local, bench.packet(b"").remote));
        assert!(is_closed(&mut stream).await);
    }
}

#[tokio::test]
async fn a_connection_left_in_time_wait_is_waited_for_or_taken_over() {
    let bench = bench(Times::default());
    let phone = bench.phone();
    let (local, remote) = (bench.packet(b"").local, bench.packet(b"").remote);
    // Somebody else's orderly close from our port: this end keeps TIME_WAIT.
    let before = connect_from(local, remote).await;
    let (mut stream, _) = phone.accept().await.unwrap();
    drop(before);
    assert!(is_closed(&mut stream).await);
    drop(stream);
    bench.all.send(bench.packet(b"x")).unwrap();
    let (mut stream, from) = timeout(SOON, phone.accept()).await.unwrap().unwrap();
    assert_eq!((from, read(&mut stream, 1).await), (local, b"x".to_vec()));
}

#[tokio::test]
async fn a_message_that_nobody_takes_comes_back() {
    let bench = bench(Times::default());
    bench.all.send(bench.packet(b"one")).unwrap();
    bench.all.send(bench.packet(b"two")).unwrap();
    for text in [b"one", b"two"] {
        match bench.next().await {
            Arrived::UnsentToUe { local, bytes, .. } => {
                assert_eq!((local.port(), &bytes[..]), (5065, &text[..]));
            }
            _ => panic!("no message"),
        }
    }
    bench.empty().await;
    // An answer on a connection that is gone is back at once: port_ps opens none.
    let mut answer = bench.packet(b"200");
    answer.local.set_port(5064);
    assert_eq!(bench.all.send(answer.clone()), Err(answer));
}

#[tokio::test]
async fn a_phone_that_says_nothing_at_all_is_given_up_soon() {
    let times = Times {
        connect: Duration::from_millis(300),
        ..Times::default()
    };
    let bench = bench(times);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((bench.ue, 31800).into()).unwrap();
    let _phone = socket.listen(0).unwrap();
    // One waits to be accepted: for others the kernel drops what they send, in silence.
    let remote = bench.packet(b"").remote;
    let _first = connect_from((bench.ue, 0).into(), remote).await;
    let start = Instant::now();
    bench.all.send(bench.packet(b"one")).unwrap();
    assert!(matches!(bench.next().await, Arrived::UnsentToUe { .. }));
    let took = start.elapsed();
    assert!(took >= times.connect && took < SOON, "{took:?}");
    bench.empty().await;
}

#[tokio::test]
async fn strangers_who_do_not_read_leave_room_for_phones_and_the_core() {
    let bench = bench(Times::default());
    let _stranger = bench.connect(5060).await;
    let _phone = bench.connect(5064).await;
    let ends = || bench.all.table().open.keys().copied().collect::<Vec<_>>();
    while ends().len() < 2 {
        sleep(Duration::from_millis(5)).await;
    }
    let answer = |port: u16| {
        let (local, remote) = *ends().iter().find(|ends| ends.0.port() == port).unwrap();
        bench.all.send(Packet {
            local,
            remote,
            ..bench.packet(b"answer")
        })
    };
    let waiting = &bench.all.0.waiting;
    waiting.fetch_add(ALL_BYTES / 2, Ordering::Relaxed);
    assert!(answer(5060).is_err());
    assert!(answer(5064).is_ok());
    waiting.fetch_sub(ALL_BYTES / 2, Ordering::Relaxed);
    assert!(answer(5060).is_ok());
}

#[tokio::test]
async fn a_phone_that_does_not_read_holds_nobody_up() {
    let times = Times {
        stall: Duration::from_secs(2),
        ..Times::default()
    };
    let bench = bench(times);
    let phone = bench.phone();
    let large = vec![b'x'; 60_000];
    bench.all.send(bench.packet(&large)).unwrap();
    let _stream = phone.accept().await.unwrap();
    // Until the kernel takes no more, and then the queue.
    let mut refused = 0;
    let mut sent = 1;
    let mut longest = Duration::ZERO;
    while refused < 10 {
        let start = Instant::now();
        match bench.all.send(bench.packet(&large)) {
            Ok(()) => (sent, refused) = (sent + 1, 0),
            Err(packet) => {
                assert_eq!(packet.bytes, large);
                refused += 1;
            }
        }
        longest = longest.max(start.elapsed());
        assert!(sent < 10_000, "there is no bound");
        sleep(Duration::from_millis(2)).await;
    }
    assert!(longest < times.stall, "somebody has waited");
    assert!(bench.all.0.waiting.load(Ordering::Relaxed) <= QUEUE_BYTES);
    // It ends, and what waited is back, the message that was being written too.
    let mut back = 0;
    let deadline = Instant::now() + SOON;
    while !bench.all.table().open.is_empty() {
        assert!(Instant::now() < deadline, "it is never given up");
        sleep(Duration::from_millis(20)).await;
    }
    while let Ok(Arrived::UnsentToUe { bytes, .. }) = bench.arrivals.next(Duration::ZERO) {
        assert_eq!(bytes.len(), large.len());
        back += 1;
    }
    assert!((1..=5).contains(&back), "{back} of {sent}");
    bench.empty().await;
}

#[path = "streams.rs"]
mod streams;
