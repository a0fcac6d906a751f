use super::*;

const OPTIONS: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n";

fn all() -> (Connections, Receiver<Arrival>) {
    let (sender, queue) = mpsc::channel(16);
    (Connections::new(sender), queue)
}

/// A free port of 127.0.0.1, and what is to be its peer's.
async fn free() -> SocketAddr {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    taken.local_addr().unwrap()
}

#[tokio::test]
async fn a_message_goes_from_exactly_its_port_and_the_connection_is_used_again() {
    let (ours, mut arrivals) = all();
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (local, remote) = (free().await, peer.local_addr().unwrap());
    ours.send(local, remote, OPTIONS.to_vec());
    ours.send(local, remote, OPTIONS.to_vec());
    let (mut stream, from) = peer.accept().await.unwrap();
    assert_eq!(from, local);
    let mut got = vec![0; 2 * OPTIONS.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [OPTIONS, OPTIONS].concat());
    assert_eq!(ours.len(), 1);
    // What the peer says comes on the same connection, split and pipelined.
    let stream_of_two = [OPTIONS, OPTIONS].concat();
    for part in stream_of_two.chunks(50) {
        stream.write_all(part).await.unwrap();
    }
    for _ in 0..2 {
        let Some(Arrival::Message {
            local: at,
            remote: by,
            transport,
            bytes,
        }) = arrivals.recv().await
        else {
            panic!("no message")
        };
        assert_eq!((at, by, transport), (local, remote, Transport::Tcp));
        assert_eq!(bytes, OPTIONS);
    }
}

#[tokio::test]
async fn what_the_peer_closes_is_told_and_opened_again_from_the_same_port() {
    let (ours, mut arrivals) = all();
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (local, remote) = (free().await, peer.local_addr().unwrap());
    for _ in 0..3 {
        ours.send(local, remote, OPTIONS.to_vec());
        let (mut stream, from) = peer.accept().await.unwrap();
        assert_eq!(from, local);
        let mut got = vec![0; OPTIONS.len()];
        stream.read_exact(&mut got).await.unwrap();
        drop(stream);
        assert_eq!(
            arrivals.recv().await,
            Some(Arrival::Closed { local, remote })
        );
        assert_eq!(ours.len(), 0);
    }
}

#[tokio::test]
async fn who_is_not_there_is_unreachable() {
    let (ours, mut arrivals) = all();
    let (local, remote) = (free().await, free().await);
    ours.send(local, remote, OPTIONS.to_vec());
    let told = arrivals.recv().await;
    assert_eq!(told, Some(Arrival::Unreachable { local, remote }));
    assert_eq!(ours.len(), 0);
}

#[tokio::test]
async fn a_server_port_accepts_answers_and_opens_nothing() {
    let (ours, mut arrivals) = all();
    let local = free().await;
    ours.listen(local).await.unwrap();
    ours.listen(local).await.unwrap();
    let mut peer = TcpStream::connect(local).await.unwrap();
    let remote = peer.local_addr().unwrap();
    peer.write_all(OPTIONS).await.unwrap();
    assert!(matches!(
        arrivals.recv().await,
        Some(Arrival::Message { .. })
    ));
    ours.send(local, remote, OPTIONS.to_vec());
    let mut got = vec![0; OPTIONS.len()];
    peer.read_exact(&mut got).await.unwrap();
    // An answer for a connection that is gone does not open one from port_us.
    let elsewhere = free().await;
    ours.send(local, elsewhere, OPTIONS.to_vec());
    let told = arrivals.recv().await;
    assert_eq!(
        told,
        Some(Arrival::Unreachable {
            local,
            remote: elsewhere
        })
    );
}

#[tokio::test]
async fn a_ping_of_two_crlfs_is_answered_with_one() {
    let (ours, _arrivals) = all();
    let local = free().await;
    ours.listen(local).await.unwrap();
    let mut peer = TcpStream::connect(local).await.unwrap();
    peer.write_all(b"\r\n\r\n").await.unwrap();
    let mut pong = [0; 2];
    peer.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\r\n");
}

#[tokio::test]
async fn what_is_no_sip_ends_the_connection() {
    let (ours, mut arrivals) = all();
    let local = free().await;
    ours.listen(local).await.unwrap();
    let mut peer = TcpStream::connect(local).await.unwrap();
    let remote = peer.local_addr().unwrap();
    peer.write_all(b"OPTIONS sip:a@b SIP/2.0\r\nl: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        arrivals.recv().await,
        Some(Arrival::Closed { local, remote })
    );
    assert_eq!(peer.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_port_that_is_closed_is_free_again() {
    let (ours, _arrivals) = all();
    let local = free().await;
    ours.listen(local).await.unwrap();
    let peer = TcpStream::connect(local).await.unwrap();
    while ours.len() == 0 {
        tokio::task::yield_now().await;
    }
    ours.close(local);
    assert_eq!(ours.len(), 0);
    ours.listen(local).await.unwrap();
    drop(peer);
}
