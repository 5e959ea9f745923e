//! Wake-ups across processes: LISTEN/NOTIFY as a hint.
//!
//! Sent after commit, coalesced, by one task per process, and only while other processes are alive. Losing one costs time
//! (until the safety poll), never correctness.

use std::{collections::HashSet, time::Duration};

use sqlx::postgres::PgListener;
use tokio::sync::mpsc;

use crate::{clock::jittered, engine::Engine, hint::Hint, liveness, matching::Kind};

const CHANNEL: &str = "ambient_engine";
/// NOTIFY refuses payloads of 8000 bytes and more.
const MAX_PAYLOAD: usize = 7500;
/// News within this time is sent together.
const COALESCE: Duration = Duration::from_millis(2);
/// Hints waiting to be sent; any more are dropped, and the safety poll covers them.
pub(crate) const QUEUED: usize = 4096;
/// How often to look for work that nobody was told about.
const SAFETY: Duration = Duration::from_secs(5);

/// Sends hints until the engine stops.
pub(crate) async fn send(engine: Engine, mut hints: mpsc::Receiver<Hint>) {
    while let Some(first) = hints.recv().await {
        tokio::time::sleep(COALESCE).await;
        let mut batch = HashSet::from([first]);
        while let Ok(hint) = hints.try_recv() {
            batch.insert(hint);
        }
        let sender = engine.inner.listener_id.simple().to_string();
        for payload in payloads(&sender, &batch) {
            let sent = sqlx::query("select pg_notify($1, $2)")
                .bind(CHANNEL)
                .bind(payload)
                .execute(&engine.inner.session)
                .await;
            if let Err(error) = sent {
                tracing::debug!(%error, "hint not sent");
            }
        }
    }
}

fn payloads(sender: &str, batch: &HashSet<Hint>) -> Vec<String> {
    let mut all = Vec::new();
    let mut current = sender.to_owned();
    for hint in batch {
        let line = hint.write();
        if current.len() + line.len() + 1 > MAX_PAYLOAD && current.len() > sender.len() {
            all.push(std::mem::replace(&mut current, sender.to_owned()));
        }
        current.push('\n');
        current.push_str(&line);
    }
    all.push(current);
    all
}

/// Listens until the engine stops; reconnects, and looks everywhere after each connect.
pub(crate) async fn listen(engine: Engine) {
    loop {
        if let Err(error) = listen_once(&engine).await {
            tracing::debug!(%error, "listening was interrupted");
        }
        tokio::time::sleep(jittered(Duration::from_millis(500))).await;
    }
}

async fn listen_once(engine: &Engine) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(&engine.inner.session).await?;
    listener.listen(CHANNEL).await?;
    engine.hint_everything();
    loop {
        let Some(notification) = listener.try_recv().await? else {
            engine.hint_everything();
            continue;
        };
        let mut lines = notification.payload().lines();
        let own = engine.inner.listener_id.simple().to_string();
        if lines.next() == Some(own.as_str()) {
            continue;
        }
        for hint in lines.filter_map(Hint::read) {
            take(engine, hint);
        }
    }
}

fn take(engine: &Engine, hint: Hint) {
    let inner = &engine.inner;
    match hint {
        Hint::Queue(kind, name) => inner.matching.hint(kind, &name),
        Hint::Run(id) => {
            // Another process has changed it.
            inner.hot.take(id);
            inner.runs.wake(id);
            inner.closed.wake(id);
        }
        Hint::Query(id) => inner.queries.wake(id),
        Hint::Asked(id) => inner.matching.asked(id),
        Hint::Clock => {
            inner.lease.renew_now.notify_one();
            inner.due.look();
        }
        Hint::Processes => {
            inner.lease.renew_now.notify_one();
            inner.lease.sweep_now.notify_one();
            inner.due.look();
        }
    }
}

/// The safety poll: one query per process and interval finds tasks whose wake-up was lost. Also cleans up what
/// processes without a row left behind.
pub(crate) async fn safety(engine: Engine) {
    loop {
        if let Err(status) = liveness::sweep(&engine).await {
            tracing::warn!(%status, "left-over work not taken over yet");
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(SAFETY)) => {}
            () = engine.inner.lease.sweep_now.notified() => {}
        }
        engine.inner.runs.wake_all();
        let found: Result<Vec<(bool, String)>, _> = sqlx::query_as(
            "select distinct true, wft_queue from engine.runs
             where wft_state = 1 and wft_queue = any($1) and wft_ready_at < clock_timestamp() - interval '1 s'
             union select distinct true, task_queue from engine.queries where not taken and task_queue = any($1)
             union select distinct false, task_queue from engine.activities
             where state = 0 and task_queue = any($2) and visible_at < engine.now() - interval '1 s'",
        )
        .bind(engine.inner.matching.served(Kind::Workflow))
        .bind(engine.inner.matching.served(Kind::Activity))
        .fetch_all(&engine.inner.store.pool)
        .await;
        match found {
            Ok(found) => found.into_iter().for_each(|(workflow, name)| {
                engine.inner.matching.hint(if workflow { Kind::Workflow } else { Kind::Activity }, &name);
            }),
            Err(error) => tracing::warn!(%error, "cannot look for waiting tasks; trying again"),
        }
    }
}
