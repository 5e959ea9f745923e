//! Reading what is stored, sending it, and remembering how far.
//!
//! One server of a database has the lease and exports; when it dies another goes on after [`LEASE`]. What was sent and not remembered is sent
//! again, with the same ids. Nothing is remembered that was not taken by the collector, or refused for good, or given up because it was too
//! old or too much.

use std::{future::Future, sync::Arc, time::Duration};

use ambient_persistence::{Database, StoreError, TraceLease, TracedExecution, TracedTurn};
use chrono::{TimeDelta, Utc};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    collector::{Collector, CollectorError},
    executions::{self, ExecutionHistories, MAX_HISTORY},
    operations,
    origin::Origins,
    requests::{Requests, Sending},
    turns,
};

/// How long the lease lasts that is not renewed.
const LEASE: Duration = Duration::from_secs(10);
/// The lease is renewed before work that takes at most [`WORK`], and after it.
const WORK: Duration = Duration::from_secs(60);
/// Between two looks when there was nothing to do.
const IDLE: Duration = Duration::from_secs(1);
/// Between two looks while another server exports.
const STANDBY: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between two counts of what waits.
const COUNT: Duration = Duration::from_secs(15);
/// Operations, turns and executions per round.
const OPERATIONS: i64 = 500;
const TURNS: i64 = 20;
const EXECUTIONS: i64 = 20;
/// An execution is looked at this soon after something happened to its entity.
const SOON: Duration = Duration::from_secs(1);
/// Timeout of a question to the engine.
const ENGINE: Duration = Duration::from_secs(10);

/// How much is exported, and kept for a collector that is away.
#[derive(Debug, Clone)]
pub struct ExporterOptions {
    /// Identifies this process among the servers of the database.
    pub holder: String,
    /// Share of the traces that begin here and are exported, from 0 to 1.
    pub ratio: f64,
    /// Spans say what was said, read and written.
    pub contents: bool,
    /// What is older is given up.
    pub oldest: Duration,
    /// More turns or executions than this are given up, oldest first.
    pub most: i64,
}

impl Default for ExporterOptions {
    fn default() -> Self {
        let holder = format!("{:032x}", rand::random::<u128>());
        Self { holder, ratio: 1.0, contents: false, oldest: Duration::from_secs(86_400), most: 10_000 }
    }
}

/// The export of traces, at work.
pub struct Exporter {
    requests: Requests,
    sending: Sending,
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Exporter {
    /// Starts it.
    #[must_use]
    pub fn start(
        db: Database,
        executions: Arc<dyn ExecutionHistories>,
        collector: Collector,
        options: ExporterOptions,
    ) -> Self {
        let (requests, sending) = Requests::start(collector.clone(), options.ratio);
        let (stop, stopped) = watch::channel(false);
        let origins = Origins::new(db.clone(), options.ratio);
        let work = Work { db, executions, collector, options, origins, counted: None };
        Self { requests, sending, task: tokio::spawn(work.run(stopped)), stop }
    }

    /// Takes requests that have been answered.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Ends it within a few seconds; what is not exported yet is exported by the next server.
    pub async fn shutdown(self) {
        let Self { requests, sending, mut task, stop } = self;
        drop(requests);
        let _ = stop.send(true);
        if tokio::time::timeout(Duration::from_secs(3), &mut task).await.is_err() {
            task.abort();
        }
        sending.end().await;
    }
}

/// Why a round ended before it was done.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("another server exports")]
    LeaseLost,
    #[error("the database: {0}")]
    Store(#[from] StoreError),
    #[error("the collector: {0}")]
    Collector(#[from] CollectorError),
    #[error("it took too long")]
    Slow,
}

struct Work {
    db: Database,
    executions: Arc<dyn ExecutionHistories>,
    collector: Collector,
    options: ExporterOptions,
    origins: Origins,
    counted: Option<Instant>,
}

impl Work {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let (mut pause, mut failing) = (FIRST_PAUSE, false);
        let mut lease = None;
        loop {
            let wait = match self.turn(&mut lease, &mut stopped).await {
                None => break,
                Some(Ok(true)) => Duration::ZERO,
                Some(Ok(false)) => IDLE,
                Some(Err(Interrupted::LeaseLost)) => {
                    if !until(&mut stopped, tokio::time::sleep(STANDBY)).await {
                        break;
                    }
                    continue;
                }
                Some(Err(error)) => {
                    // Once, not each time: a collector may be away for long.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "traces are not exported; what happens is kept for later");
                    }
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    if !until(&mut stopped, tokio::time::sleep(wait)).await {
                        break;
                    }
                    continue;
                }
            };
            pause = FIRST_PAUSE;
            if std::mem::take(&mut failing) {
                tracing::info!("traces are exported again");
            }
            if !until(&mut stopped, tokio::time::sleep(wait)).await {
                break;
            }
        }
        if let Some(lease) = lease {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.db.release_trace_lease(lease)).await;
        }
    }

    /// A round with the lease; whether there may be more to do. None if it is to end.
    async fn turn(
        &mut self,
        lease: &mut Option<TraceLease>,
        stopped: &mut watch::Receiver<bool>,
    ) -> Option<Result<bool, Interrupted>> {
        *lease = match self.db.trace_lease(&self.options.holder, LEASE).await {
            Ok(lease) => lease,
            Err(error) => return Some(Err(error.into())),
        };
        let Some(held) = *lease else { return Some(Err(Interrupted::LeaseLost)) };
        let db = self.db.clone();
        let holder = self.options.holder.clone();
        let renewing = async {
            loop {
                tokio::time::sleep(LEASE / 4).await;
                // A round that goes on without the lease cannot remember anything; it ends by itself.
                let _ = db.trace_lease(&holder, LEASE).await;
            }
        };
        let round = async {
            tokio::select! {
                done = tokio::time::timeout(WORK, self.round(held)) => done.unwrap_or(Err(Interrupted::Slow)),
                () = renewing => Err(Interrupted::LeaseLost),
            }
        };
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => None,
            done = round => Some(done),
        }
    }

    async fn round(&mut self, lease: TraceLease) -> Result<bool, Interrupted> {
        self.count_and_trim(lease).await?;
        let operations = self.operations(lease).await?;
        let turns = self.turns(lease).await?;
        let executions = self.executions(lease).await?;
        Ok(operations || turns || executions)
    }

    async fn operations(&mut self, lease: TraceLease) -> Result<bool, Interrupted> {
        let operations = self.db.operations_to_trace(OPERATIONS).await?;
        let Some(last) = operations.last() else { return Ok(false) };
        let place = last.place.clone();
        let mut spans = Vec::new();
        for operation in &operations {
            let context = self.origins.of_operation(&operation.origin).await?;
            if context.sampled {
                spans.push(operations::span(operation, context));
            }
        }
        self.collector.send(spans).await?;
        let entities: Vec<String> = operations.iter().map(|operation| operation.origin.entity_id.clone()).collect();
        self.db.look_at_executions(&entities, SOON).await?;
        fenced(self.db.operations_traced(lease, &place).await?)?;
        Ok(operations.len() >= usize::try_from(OPERATIONS).unwrap_or(usize::MAX))
    }

    async fn turns(&mut self, lease: TraceLease) -> Result<bool, Interrupted> {
        let turns = self.db.turns_to_trace(TURNS).await?;
        let mut unread = None;
        for turn in &turns {
            // One that cannot be read keeps none behind it from being exported.
            match self.turn_spans(turn).await {
                Ok(spans) => self.collector.send(spans).await?,
                Err(error) => {
                    unread = Some(error);
                    continue;
                }
            }
            fenced(self.db.turn_traced(lease, turn).await?)?;
        }
        if let Some(error) = unread {
            return Err(error.into());
        }
        Ok(turns.len() >= usize::try_from(TURNS).unwrap_or(usize::MAX))
    }

    async fn turn_spans(&mut self, turn: &TracedTurn) -> Result<Vec<Span>, StoreError> {
        let context = self.origins.of_turn(&turn.session_id, &turn.message_id).await?;
        if !context.sampled {
            return Ok(Vec::new());
        }
        turns::spans(&self.db, turn, context, self.options.contents).await
    }

    async fn executions(&mut self, lease: TraceLease) -> Result<bool, Interrupted> {
        let due = self.db.executions_to_trace(EXECUTIONS).await?;
        for started in &due {
            // The engine's trouble is not the collector's: it is asked again later.
            match self.execution_spans(started).await? {
                Some(spans) => {
                    if let Err(error) = self.collector.send(spans).await {
                        // Not after the time that its age suggests, but when the collector is back.
                        self.db.look_at_executions(std::slice::from_ref(&started.entity_id), SOON).await?;
                        return Err(error.into());
                    }
                    fenced(self.db.execution_traced(lease, &started.workflow_id).await?)?;
                }
                None => continue,
            }
        }
        Ok(due.len() >= usize::try_from(EXECUTIONS).unwrap_or(usize::MAX))
    }

    /// Spans of an execution; none if it is open, or the engine cannot say.
    async fn execution_spans(&mut self, started: &TracedExecution) -> Result<Option<Vec<Span>>, StoreError> {
        let context = self.origins.below_operation(&started.operation_id).await?;
        if !context.sampled {
            return Ok(Some(Vec::new()));
        }
        let asked = tokio::time::timeout(ENGINE, self.executions.execution(&started.workflow_id)).await;
        let execution = match asked {
            Ok(Ok(Some(execution))) if execution.closed_at.is_some() => execution,
            Ok(Ok(Some(_))) => return Ok(None),
            // Its start may never come, or its history is gone: with the age of what waits it is given up.
            Ok(Ok(None)) => {
                let limit = TimeDelta::from_std(self.options.oldest).unwrap_or(TimeDelta::MAX);
                let is_over = Utc::now().signed_duration_since(started.created_at) > limit;
                if is_over {
                    given_up("turns_and_executions", 1);
                }
                return Ok(is_over.then(Vec::new));
            }
            Ok(Err(reason)) => {
                tracing::debug!(workflow = started.workflow_id, reason, "an execution cannot be looked at");
                return Ok(None);
            }
            Err(_) => return Ok(None),
        };
        match tokio::time::timeout(ENGINE, self.executions.history(&started.workflow_id, MAX_HISTORY)).await {
            Ok(Ok(history)) => Ok(Some(executions::spans(started, &execution, &history, context))),
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    async fn count_and_trim(&mut self, lease: TraceLease) -> Result<(), Interrupted> {
        if self.counted.is_some_and(|at| at.elapsed() < COUNT) {
            return Ok(());
        }
        let oldest = TimeDelta::from_std(self.options.oldest).ok();
        let oldest = oldest.and_then(|age| Utc::now().checked_sub_signed(age)).unwrap_or_default();
        let operations = self.db.drop_operations_to_trace(lease, oldest, self.options.most).await?;
        let others = self.db.trim_traces(lease, oldest, self.options.most).await?;
        for (of, dropped) in [("operations", operations), ("turns_and_executions", others)] {
            given_up(of, u64::try_from(dropped).unwrap_or(0));
        }
        let backlog = self.db.trace_backlog().await?;
        #[allow(clippy::cast_precision_loss, reason = "figures for people")]
        for (name, value) in [
            ("ambient_trace_lag_seconds", backlog.oldest_operation_seconds as f64),
            ("ambient_trace_turns_waiting", backlog.turns as f64),
            ("ambient_trace_executions_open", backlog.executions as f64),
        ] {
            metrics::gauge!(name).set(value);
        }
        // After all of it, so that what is too much is dropped in one go.
        if operations < self.options.most {
            self.counted = Some(Instant::now());
        }
        Ok(())
    }
}

fn fenced(is_mine: bool) -> Result<(), Interrupted> {
    if is_mine { Ok(()) } else { Err(Interrupted::LeaseLost) }
}

/// Tells and counts what never gets spans.
fn given_up(of: &'static str, number: u64) {
    if number > 0 {
        tracing::warn!(number, of, "traces are given up: they waited too long, or were too many");
        metrics::counter!("ambient_trace_spans_dropped_total", "of" => of).increment(number);
    }
}

/// Waits; false if it is to stop.
async fn until(stopped: &mut watch::Receiver<bool>, wait: impl Future<Output = ()>) -> bool {
    tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => false,
        () = wait => true,
    }
}
