//! Peers that take up the server's slots without making progress.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use ambient_engine::{Bounds, Engine, EngineOptions, ServeLimits};
use ambient_tests::TestDatabase;
use temporalio_client::grpc::WorkflowService;
use temporalio_common::protos::temporal::api::workflowservice::v1::GetSystemInfoRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::IntoRequest;

use crate::harness::dial;

const FIRST_CALL: Duration = Duration::from_secs(2);
/// Longest wait for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How HTTP/2 begins, with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn serve(database: &TestDatabase, places: usize) -> SocketAddr {
    let engine = Engine::start(database.pool().await, EngineOptions::default()).await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Bounds { connections: 100, per_address: 1, per_own_address: places };
    let limits = ServeLimits { connections, first_call: FIRST_CALL, ..ServeLimits::default() };
    tokio::spawn(async move { engine.serve(listener, None, limits, std::future::pending()).await });
    address
}

/// Reads until the server closes; how long that took.
async fn closed(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    let mut read = [0; 1024];
    let end = async { while !matches!(stream.read(&mut read).await, Ok(0) | Err(_)) {} };
    assert!(timeout(PATIENCE, end).await.is_ok(), "the server closes it");
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_makes_no_call_is_closed_whatever_it_sends_and_one_that_has_made_one_stays() {
    let database = TestDatabase::new().await;
    let address = serve(&database, 100).await;
    let client = dial(address, "worker").await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut greeted = TcpStream::connect(address).await.unwrap();
    greeted.write_all(PREFACE).await.unwrap();
    let mut trickle = TcpStream::connect(address).await.unwrap();
    let one_by_one = async {
        let began = Instant::now();
        for byte in PREFACE {
            if trickle.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(FIRST_CALL / 10).await;
        }
        began.elapsed() + closed(&mut trickle).await
    };
    let (silent, greeted, trickle) = tokio::join!(closed(&mut silent), closed(&mut greeted), one_by_one);
    for (took, most) in [(silent, PATIENCE), (greeted, PATIENCE), (trickle, PATIENCE)] {
        assert!(took >= FIRST_CALL / 2 && took < most, "{took:?}");
    }
    // The client came before the three that are closed now: its time is over as well.
    let call = client.connection().clone().get_system_info(GetSystemInfoRequest::default().into_request()).await;
    call.expect("the connection is kept, and asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_its_places_and_one_more_connection_is_closed_at_once_until_one_is_free() {
    let database = TestDatabase::new().await;
    let address = serve(&database, 2).await;
    let first = TcpStream::connect(address).await.unwrap();
    let _second = TcpStream::connect(address).await.unwrap();
    // Accepted in order: the third is looked at when the two have their places.
    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(closed(&mut third).await < FIRST_CALL / 2, "it did not wait for the deadline");
    drop(first);
    let found = async {
        loop {
            let mut next = TcpStream::connect(address).await.unwrap();
            next.write_all(PREFACE).await.ok();
            let mut read = [0; 9];
            if next.read_exact(&mut read).await.is_ok() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(FIRST_CALL / 2, found).await.expect("a place is free once its connection has ended");
}
