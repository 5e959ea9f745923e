//! Nobody can hold a connection by sending nothing, too little or too much.

use std::{net::SocketAddr, time::Duration};

use ambient_api::Limits;
use axum::{Router, body::Bytes, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, interval, sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(400);

fn limits() -> Limits {
    Limits { head: SHORT, body: SHORT, write: SHORT, ..Limits::default() }
}

struct Listening {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn listening(limits: Limits) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = async || {
        sleep(SHORT).await;
        "slow"
    };
    let endless = async || vec![b'x'; 64 << 20];
    let length = async |body: Result<Bytes, axum::extract::rejection::BytesRejection>| match body {
        Ok(body) => body.len().to_string(),
        Err(error) => error.body_text(),
    };
    let router = Router::new()
        .route("/", get(async || "hello").post(length))
        .route("/slow", get(slow))
        .route("/endless", get(endless));
    let (end, ended) = oneshot::channel();
    let task = tokio::spawn(ambient_api::serve_router(listener, router, limits, async {
        let _ = ended.await;
    }));
    Listening { address, end, task }
}

async fn connect(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// What comes until the other side closes or resets.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends a piece again and again, well within any limit for a single one, until the other side closes.
async fn drip(mut stream: TcpStream, piece: &str) -> (Duration, String) {
    let (began, mut answer) = (Instant::now(), Vec::new());
    let mut tick = interval(SHORT / 10);
    while began.elapsed() < PATIENCE {
        let mut buffer = [0; 1024];
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(count) if count > 0 => answer.extend_from_slice(&buffer[..count]),
                _ => return (began.elapsed(), String::from_utf8_lossy(&answer).into_owned()),
            },
            _ = tick.tick() => {
                let _ = stream.write_all(piece.as_bytes()).await;
            }
        }
    }
    panic!("it lives on");
}

#[tokio::test]
async fn a_head_that_comes_line_by_line_ends_its_connection() {
    let server = listening(limits()).await;
    let stream = connect(server.address, "GET / HTTP/1.1\r\nhost: x\r\n").await;
    let (lived, _) = drip(stream, "x-a: b\r\n").await;
    assert!(lived >= SHORT && lived < SHORT * 10, "{lived:?}");
    // Who says nothing at all, or nothing more, has no longer.
    for begin in ["", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream = connect(server.address, begin).await;
        let answer = rest(&mut stream).await;
        assert_eq!(answer.ends_with("hello"), !begin.is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_given_up_and_a_long_fast_one_is_not() {
    let server = listening(limits()).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
    let (lived, answer) = drip(connect(server.address, head).await, "x").await;
    assert!(lived >= SHORT && lived < SHORT * 10, "{lived:?}");
    assert!(!answer.ends_with("100000"), "{answer}");
    // 10,000 bytes every 40 ms: slower in all than the limit for one piece, and faster than the slowest pace.
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\nconnection: close\r\n\r\n";
    let (lived, answer) = drip(connect(server.address, head).await, &"x".repeat(10_000)).await;
    assert!(answer.ends_with("300000") && lived > SHORT, "{lived:?} {answer}");
}

#[tokio::test]
async fn a_peer_that_takes_no_answer_is_cut_off() {
    let limits = Limits { per_own_address: 1, ..limits() };
    let server = listening(limits).await;
    let _deaf = connect(server.address, "GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // Its place is free again although it never went away.
    let began = Instant::now();
    loop {
        let mut stream = connect(server.address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        if rest(&mut stream).await.ends_with("hello") {
            return;
        }
        assert!(began.elapsed() < PATIENCE);
        sleep(SHORT / 10).await;
    }
}

#[tokio::test]
async fn one_connection_too_many_is_answered_with_the_envelope_and_a_place_given_back_is_free() {
    let server = listening(Limits { per_own_address: 2, ..Limits::default() }).await;
    let held = [connect(server.address, "").await, connect(server.address, "").await];
    let answer = rest(&mut TcpStream::connect(server.address).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("\"kind\":\"Error\""), "{answer}");
    drop(held);
    let began = Instant::now();
    loop {
        let mut stream = connect(server.address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        if rest(&mut stream).await.ends_with("hello") {
            return;
        }
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn at_the_end_answers_under_way_are_given_and_idle_connections_closed_and_http_2_is_not_spoken() {
    let server = listening(Limits::default()).await;
    let mut http2 = connect(server.address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(!rest(&mut http2).await.contains("HTTP/1.1 2"));
    let mut idle = connect(server.address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut begun = [0; 8];
    idle.read_exact(&mut begun).await.unwrap();
    let mut busy = connect(server.address, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(SHORT / 4).await;
    server.end.send(()).unwrap();
    assert!(rest(&mut busy).await.ends_with("slow"));
    rest(&mut idle).await;
    timeout(PATIENCE, server.task).await.expect("it ends").unwrap();
}
