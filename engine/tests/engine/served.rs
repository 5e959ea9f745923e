//! The engine as a server in separate processes: restarted, killed, several of them.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ambient_engine::{Engine, EngineOptions, ServeLimits, Tls, integrity};
use ambient_tests::TestDatabase;
use futures::future::join_all;
use temporalio_client::{
    Client, ClientOptions, ClientTlsOptions, Connection, ConnectionOptions, TlsOptions, WorkflowGetResultOptions,
    WorkflowSignalOptions, grpc::WorkflowService,
};
use temporalio_common::protos::temporal::api::{
    enums::v1::TaskQueueType,
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{
        DescribeTaskQueueRequest, GetSystemInfoRequest, ListSchedulesRequest, PollWorkflowTaskQueueRequest,
        StartWorkflowExecutionRequest,
    },
};
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Code, IntoRequest};

use crate::{
    flows::{self, Probe},
    harness::{self, Host, QUEUE, dial, eventually, options},
};

const DATABASE: &str = "ENGINE_TEST_SERVE_DATABASE";
const ADDRESS: &str = "ENGINE_TEST_SERVE_ADDRESS";

/// Not a test of its own: the process the others start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run as a child process"]
async fn process_that_serves() {
    let (Ok(url), Ok(address)) = (std::env::var(DATABASE), std::env::var(ADDRESS)) else { return };
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let engine = Engine::start(pool, EngineOptions::default()).await.unwrap();
    let listener = std::net::TcpListener::bind(address).unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    println!("\nserving {}", listener.local_addr().unwrap());
    engine
        .serve(listener, None, ServeLimits::default(), async move {
            terminate.recv().await;
        })
        .await
        .unwrap();
}

/// A server process, killed with its test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(database: &TestDatabase, address: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "served::process_that_serves", "--ignored", "--nocapture"])
            .env(DATABASE, database.url())
            .env(ADDRESS, address)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.starts_with("serving ")).unwrap();
        // Nobody reads on; what the test runner says at the end must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: line["serving ".len()..].parse().unwrap() }
    }

    fn kill(mut self) -> SocketAddr {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address
    }

    /// SIGTERM, and how long it took to end.
    fn stop(mut self) -> (SocketAddr, Duration) {
        let began = Instant::now();
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        (self.address, began.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn sound(database: &TestDatabase) {
    let mut problems = Vec::new();
    integrity::check(&database.pool().await, |problem| problems.push(problem)).await.unwrap();
    assert_eq!(problems, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_over_the_socket_goes_on_when_its_server_is_restarted() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "127.0.0.1:0");
    let client = dial(server.address, "remote").await;
    let _worker = harness::work(client.clone(), QUEUE, Arc::default());
    let inbox = client.start_workflow(flows::Inbox::run, 2usize, options("inbox")).await.unwrap();
    inbox.signal(flows::Inbox::put, "a".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    eventually("the worker has it", || async {
        let got = inbox.query(flows::Inbox::list, (), Default::default()).await.ok()?;
        (got == ["a"]).then_some(())
    })
    .await;
    let (address, took) = server.stop();
    assert!(took < Duration::from_secs(9), "long polls do not hold it up: {took:?}");
    let _server = Server::start(&database, &address.to_string());
    inbox.signal(flows::Inbox::put, "b".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    assert_eq!(inbox.get_result(WorkflowGetResultOptions::default()).await.unwrap(), ["a", "b"]);
    let three = client.start_workflow(flows::Three::run, "a".to_owned(), options("three")).await.unwrap();
    assert_eq!(three.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axxx");
    sound(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_server_loses_nothing_it_has_acknowledged() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "127.0.0.1:0");
    let client = dial(server.address, "remote").await;
    let _worker = harness::work(client.clone(), QUEUE, Arc::default());
    let enough = AtomicBool::new(false);
    let lane = |lane: usize| {
        let (client, enough) = (&client, &enough);
        async move {
            let mut started = Vec::new();
            for n in 0.. {
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                let id = format!("w-{lane}-{n}");
                // Not acknowledged is not started.
                if client.start_workflow(flows::Three::run, "a".to_owned(), options(&id)).await.is_ok() {
                    started.push(id);
                }
            }
            started
        }
    };
    let fault = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let address = server.kill();
            server = Server::start(&database, &address.to_string());
        }
        enough.store(true, Ordering::Relaxed);
        server
    };
    let (lanes, _server) = tokio::join!(join_all((0..4).map(lane)), fault);
    let started: Vec<String> = lanes.into_iter().flatten().collect();
    assert!(started.len() > 20, "{}", started.len());
    for id in &started {
        let handle = client.get_workflow_handle::<flows::Three>(id);
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axxx", "{id}");
    }
    sound(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_renews_its_lease_each_second_and_its_loss_frees_its_tasks() {
    let database = TestDatabase::new().await;
    let dying = Server::start(&database, "127.0.0.1:0");
    let staying = Server::start(&database, "127.0.0.1:0");
    let pool = database.pool().await;
    let probe: Arc<Probe> = Arc::default();
    let client = dial(dying.address, "first").await;
    let first = harness::work(client.clone(), QUEUE, Arc::clone(&probe));
    // No heartbeat timeout, start-to-close an hour: only the lease can free this activity.
    client.start_workflow(flows::Hangs::run, 0u64, options("w")).await.unwrap();
    probe.started.notified().await;

    let mut renewals = std::collections::BTreeSet::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let at: Vec<chrono::DateTime<chrono::Utc>> =
            sqlx::query_scalar("select renewed_at from engine.processes order by started_at")
                .fetch_all(&pool)
                .await
                .unwrap();
        assert_eq!(at.len(), 2);
        renewals.insert(at[0]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!((2..=6).contains(&renewals.len()), "{}", renewals.len());

    dying.kill();
    let began = Instant::now();
    let other = dial(staying.address, "second").await;
    let _second = harness::work(other.clone(), QUEUE, Arc::clone(&probe));
    let handle = other.get_workflow_handle::<flows::Hangs>("w");
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 2, "the second attempt");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let left: i64 = sqlx::query_scalar("select count(*) from engine.processes").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 1, "the dead process's row is gone");
    probe.release.notify_waiters();
    probe.release.notify_one();
    drop(first);
    sound(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_bounded_and_the_unknown_names_itself() {
    let database = TestDatabase::new().await;
    let (host, address) = Host::served(&database).await;
    for garbage in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all", "\0\0\0"]
    {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(garbage.as_bytes()).unwrap();
    }
    let target = url::Url::parse(&format!("http://{address}")).unwrap();
    let mut service = Connection::connect(ConnectionOptions::new(target).identity("me").build()).await.unwrap();
    let large = StartWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_id: "x".repeat(5 * 1024 * 1024),
        ..Default::default()
    };
    let refused = service.start_workflow_execution(large.into_request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().starts_with("grpc: received message after decompression larger than max"), "{refused}");
    service.get_system_info(GetSystemInfoRequest::default().into_request()).await.unwrap();
    let unknown = service
        .list_schedules(ListSchedulesRequest { namespace: "default".into(), ..Default::default() }.into_request())
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    assert!(unknown.message().contains("ListSchedules"), "{unknown}");
    drop(host);
}

/// Waits until the engine knows of a poller.
async fn seen(client: &Client, identity: &str) {
    let describe = DescribeTaskQueueRequest {
        namespace: "default".into(),
        task_queue: Some(TaskQueue { name: QUEUE.into(), ..Default::default() }),
        task_queue_type: TaskQueueType::Workflow as i32,
        ..Default::default()
    };
    eventually("the poller", || async {
        let mut service = client.connection().clone();
        let described = service.describe_task_queue(describe.clone().into_request()).await.ok()?.into_inner();
        described.pollers.iter().any(|poller| poller.identity == identity).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poller_that_hangs_up_gives_its_task_back() {
    let database = TestDatabase::new().await;
    let (host, address) = Host::served(&database).await;
    let poll = |identity: &str| PollWorkflowTaskQueueRequest {
        namespace: "default".into(),
        task_queue: Some(TaskQueue { name: QUEUE.into(), ..Default::default() }),
        identity: identity.into(),
        ..Default::default()
    };
    // Long polls that end with their connection once the engine knows of them, and with their time.
    for identity in ["first", "second", "third"] {
        let target = url::Url::parse(&format!("http://{address}")).unwrap();
        let mut service = Connection::connect(ConnectionOptions::new(target).identity("me").build()).await.unwrap();
        tokio::select! {
            answered = service.poll_workflow_task_queue(poll(identity).into_request()) => panic!("{answered:?}"),
            () = seen(&host.client, identity) => {}
        }
    }
    let target = url::Url::parse(&format!("http://{address}")).unwrap();
    let mut service = Connection::connect(ConnectionOptions::new(target).identity("me").build()).await.unwrap();
    let mut request = poll("by hand").into_request();
    request.set_timeout(Duration::from_millis(200));
    let began = Instant::now();
    let over = service.poll_workflow_task_queue(request).await.unwrap_err();
    assert!(matches!(over.code(), Code::Cancelled | Code::DeadlineExceeded), "{over}");
    assert!(began.elapsed() < Duration::from_secs(5), "the client's deadline is honoured");
    let handle = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("w")).await.unwrap();
    let began = Instant::now();
    let _worker = host.worker();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axxx");
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "no task was lost to a poller that has gone: {:?}",
        began.elapsed()
    );
}

/// A certificate authority with a server's and a client's certificate; none without openssl.
fn certificates(dir: &std::path::Path) -> Option<()> {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().ok()?;
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    };
    std::fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
    )?;
    for name in ["server", "client"] {
        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ))?;
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile ext"
        ))?;
    }
    Some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_lets_in_clients_of_its_authority_only() {
    let dir = std::env::temp_dir().join(format!("engine-tls-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&dir).unwrap();
    if certificates(&dir).is_none() {
        println!("skipped: no openssl");
        return;
    }
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let database = TestDatabase::new().await;
    let engine = Engine::start(database.pool().await, EngineOptions::default()).await.unwrap();
    let open = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let refused = engine.serve(open, None, ServeLimits::default(), std::future::pending()).await.unwrap_err();
    assert!(refused.to_string().contains("not a loopback address"), "{refused}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls { certificate: read("server.pem"), key: read("server.key"), client_authority: Some(read("ca.pem")) };
    let serving = engine.clone();
    tokio::spawn(
        async move { serving.serve(listener, Some(tls), ServeLimits::default(), std::future::pending()).await },
    );

    let connect = |client: Option<ClientTlsOptions>| {
        let tls = TlsOptions::builder().server_root_ca_cert(read("ca.pem")).maybe_client_tls_options(client).build();
        let target = url::Url::parse(&format!("https://{address}")).unwrap();
        Connection::connect(ConnectionOptions::new(target).identity("tls").tls_options(tls).build())
    };
    let own =
        ClientTlsOptions::builder().client_cert(read("client.pem")).client_private_key(read("client.key")).build();
    let connection = connect(Some(own)).await.unwrap();
    let client = Client::new(connection, ClientOptions::new("default").build()).unwrap();
    client.start_workflow(flows::Three::run, "a".to_owned(), options("w")).await.unwrap();
    let stranger = tokio::time::timeout(Duration::from_secs(5), connect(None)).await;
    assert!(!matches!(stranger, Ok(Ok(_))), "no certificate, no connection");
    engine.shutdown().await;
    std::fs::remove_dir_all(dir).unwrap();
}
