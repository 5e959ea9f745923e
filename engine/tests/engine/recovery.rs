//! Dead workers, dead processes, several processes.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ambient_tests::TestDatabase;
use futures::future::join_all;
use temporalio_client::{Client, WorkflowGetResultOptions, WorkflowHandle, WorkflowSignalOptions};

use crate::{
    flows,
    harness::{Host, Working, eventually, kinds, options},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_that_stops_heartbeating_is_tried_again() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Hangs::run, 30u64, options("w")).await.unwrap();
    host.probe.started.notified().await;
    host.engine.advance_clock(Duration::from_secs(31)).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 2);
    host.probe.release.notify_waiters();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_for_a_worker_that_left_goes_to_the_next_one() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let first = host.worker();
    let handle = host.client.start_workflow(flows::Inbox::run, 1usize, options("w")).await.unwrap();
    eventually("the first task", || async {
        kinds(&host.history("w").await).contains(&"WorkflowTaskCompleted".to_owned()).then_some(())
    })
    .await;
    first.stop();
    handle.signal(flows::Inbox::put, "a".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    let began = Instant::now();
    let _second = host.worker();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), ["a"]);
    assert!(began.elapsed() < Duration::from_secs(4), "no waiting for the sticky timeout: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_the_work_and_wake_each_other() {
    let database = TestDatabase::new().await;
    let (one, two) = (Host::on(&database).await, Host::on(&database).await);
    let _worker = two.worker();
    // Started and awaited at the process without a worker.
    let began = Instant::now();
    let mut handles = Vec::new();
    for n in 0..20 {
        let id = format!("w{n}");
        handles.push(one.client.start_workflow(flows::Three::run, "a".to_owned(), options(&id)).await.unwrap());
    }
    for handle in handles {
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axxx");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "hints arrive: {:?}", began.elapsed());
    let inbox = one.client.start_workflow(flows::Inbox::run, 1usize, options("q")).await.unwrap();
    let empty: Vec<String> = Vec::new();
    assert_eq!(inbox.query(flows::Inbox::list, (), Default::default()).await.unwrap(), empty);
}

/// Two processes; the worker of the first holds an activity that has no heartbeat timeout and an hour from start to close: only the
/// lease can free it.
struct Held {
    holder: Host,
    worker: Working,
    alive: Host,
    handle: WorkflowHandle<Client, flows::Hangs>,
}

impl Held {
    async fn on(database: &TestDatabase) -> Self {
        let (holder, alive) = (Host::on(database).await, Host::on(database).await);
        let worker = holder.worker();
        alive.client.start_workflow(flows::Hangs::run, 0u64, options("w")).await.unwrap();
        let handle = alive.client.get_workflow_handle::<flows::Hangs>("w");
        holder.probe.started.notified().await;
        Self { holder, worker, alive, handle }
    }

    /// The number of the attempt that gave the result.
    async fn result(&self) -> u32 {
        self.handle.get_result(WorkflowGetResultOptions::default()).await.unwrap()
    }

    fn end(self) {
        self.holder.probe.release.notify_waiters();
        self.holder.probe.release.notify_one();
        drop(self.worker);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_a_dead_process_is_free_in_about_three_seconds() {
    let database = TestDatabase::new().await;
    let held = Held::on(&database).await;
    held.holder.engine.abandon_lease();
    let began = Instant::now();
    let _successor = held.alive.worker();
    assert_eq!(held.result().await, 2);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(held.holder.engine.readiness().is_err());
    held.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_a_process_whose_connections_have_ended_does_not_wait_for_its_lease() {
    let database = TestDatabase::new().await;
    let held = Held::on(&database).await;
    held.holder.engine.abandon_lease();
    held.holder.engine.hang_up().await;
    // A renewal missed, and never the three seconds: only the lock says that it is dead.
    let pool = database.pool().await;
    let missed = tokio::spawn(async move {
        loop {
            let sql = "update engine.processes p set renewed_at = clock_timestamp() - interval '2 s'
                       from engine.activities a where a.process = p.process_id";
            sqlx::query(sql).execute(&pool).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let _successor = held.alive.worker();
    assert_eq!(held.result().await, 2);
    missed.abort();
    held.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_connections_are_cut_keeps_its_work() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let held = Held::on(&database).await;
    let presence = "select pid from pg_locks where locktype = 'advisory' and database =
                        (select oid from pg_database where datname = current_database())";
    let before: Vec<i32> = sqlx::query_scalar(presence).fetch_all(&pool).await.unwrap();
    assert_eq!(before.len(), 2, "one for each process");
    sqlx::query("select pg_terminate_backend(pid) from unnest($1::int[]) pid")
        .bind(&before)
        .execute(&pool)
        .await
        .unwrap();
    eventually("new connections with the locks", || async {
        let now: Vec<i32> = sqlx::query_scalar(presence).fetch_all(&pool).await.unwrap();
        (now.len() == 2 && now.iter().all(|pid| !before.contains(pid))).then_some(())
    })
    .await;
    let _successor = held.alive.worker();
    held.holder.probe.release.notify_one();
    assert_eq!(held.result().await, 1, "the first attempt was left alone");
    held.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_from_two_processes_to_one_run_all_arrive_once() {
    let database = TestDatabase::new().await;
    let (one, two) = (Host::on(&database).await, Host::on(&database).await);
    let (_first, _second) = (one.worker(), two.worker());
    let handle = one.client.start_workflow(flows::Inbox::run, 200usize, options("w")).await.unwrap();
    let other = two.client.get_workflow_handle::<flows::Inbox>("w");
    let signal = WorkflowSignalOptions::default;
    let ours = (0..100).map(|n| handle.signal(flows::Inbox::put, format!("a{n}"), signal()));
    let theirs = (0..100).map(|n| other.signal(flows::Inbox::put, format!("b{n}"), signal()));
    let (ours, theirs) = tokio::join!(join_all(ours), join_all(theirs));
    ours.into_iter().for_each(|sent| sent.unwrap());
    theirs.into_iter().for_each(|sent| sent.unwrap());
    let mut got = handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 200);
    let kinds = kinds(&one.history("w").await);
    assert_eq!(kinds.iter().filter(|k| *k == "WorkflowExecutionSignaled").count(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_hands_over_at_once() {
    let database = TestDatabase::new().await;
    let (leaving, staying) = (Host::on(&database).await, Host::on(&database).await);
    let worker = leaving.worker();
    let handle = staying.client.start_workflow(flows::Hangs::run, 0u64, options("w")).await.unwrap();
    leaving.probe.started.notified().await;
    let began = Instant::now();
    leaving.engine.shutdown().await;
    let _successor = staying.worker();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 2);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    leaving.probe.release.notify_one();
    drop(worker);
    assert_eq!(leaving.probe.runs.load(Ordering::SeqCst), 1);
}

const CHILD_DATABASE: &str = "ENGINE_TEST_CHILD_DATABASE";

/// Not a test of its own: the process that [`whatever_was_acknowledged_before_kill_9_is_completed`] kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run as a child process"]
async fn process_to_be_killed() {
    let Ok(url) = std::env::var(CHILD_DATABASE) else { return };
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let host = Host::start(pool).await;
    let _worker = host.worker();
    let flow = |lane: usize| {
        let host = &host;
        async move {
            for n in 0.. {
                let id = format!("w-{lane}-{n}");
                let handle = host.client.start_workflow(flows::Three::run, "a".to_owned(), options(&id)).await.unwrap();
                println!("started {id}");
                if n % 2 == 0 {
                    handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
                    println!("completed {id}");
                }
            }
        }
    };
    join_all((0..16).map(flow)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acknowledged_before_kill_9_is_completed() {
    let database = TestDatabase::new().await;
    // The schema is there before the child comes, so that its first line comes soon.
    let host = Host::on(&database).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "recovery::process_to_be_killed", "--ignored", "--nocapture"])
        .env(CHILD_DATABASE, database.url())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut started, mut completed) = (Vec::new(), Vec::new());
    for line in lines.map_while(Result::ok) {
        // The test runner's own words may stand before the first line.
        if let Some((_, id)) = line.split_once("started ") {
            started.push(id.to_owned());
        } else if let Some((_, id)) = line.split_once("completed ") {
            completed.push(id.to_owned());
        }
        if completed.len() == 40 {
            // SIGKILL; lines already in the pipe are acknowledgements as well.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(completed.len() >= 40 && started.len() > completed.len(), "{} {}", started.len(), completed.len());
    for id in &completed {
        assert_eq!(kinds(&host.history(id).await).last().unwrap(), "WorkflowExecutionCompleted", "{id}");
    }
    let began = Instant::now();
    let _worker = host.worker();
    for id in &started {
        let handle = host.client.get_workflow_handle::<flows::Three>(id);
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axxx", "{id}");
        host.history(id).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
