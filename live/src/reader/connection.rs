//! A connection to a runner: its log is stored as it arrives.

use std::time::Duration;

use ambient_persistence::retry::Backoff;
use ambient_persistence::{Hint, RunnerAppendError, RunnerBatch, RunnerRecord};
use ambient_runner_protocol::{ReaderHello, Record, RunnerFrame};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    Context, RunRef,
    budget::Told,
    delivery, facts,
    lease::HeldLease,
    owners,
    packs::{self, Source},
    silence::Silence,
    task::Orders,
    turns,
};
use crate::runner_client::{RunnerClient, RunnerClientError, RunnerEvents};

/// Timeout for a runner's first frame.
const WELCOME: Duration = Duration::from_secs(5);
/// Records without a fact after which the cursor of facts is advanced.
const FACTS_STRIDE: i64 = 1_000;

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the runner cannot be reached")]
    Unreachable {
        had_read: bool,
        /// It is there, but says nothing.
        silent: bool,
    },
    #[error("the lease is another's")]
    LeaseLost,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error(transparent)]
    Client(#[from] RunnerClientError),
    #[error(transparent)]
    Store(#[from] ambient_persistence::StoreError),
    #[error(transparent)]
    Append(#[from] RunnerAppendError),
    #[error("the runner closed the connection")]
    Closed,
    #[error("another connection has taken over")]
    Replaced,
    #[error("a reader with epoch {0} has come")]
    Superseded(i64),
}

/// A reader at work.
pub(super) struct Reading<'a> {
    pub(super) context: &'a Context,
    pub(super) run: &'a RunRef,
    pub(super) client: &'a RunnerClient,
    pub(super) lease: &'a HeldLease,
    pub(super) orders: &'a Orders,
    /// There may be new facts.
    pub(super) facts_due: &'a Notify,
    pub(super) silence: &'a Silence,
}

/// Up to where the log is stored.
struct Place {
    log_id: String,
    cursor: i64,
    /// Record at which facts were last looked for.
    facts_seen: i64,
}

impl Reading<'_> {
    /// Reads, over as many connections as it takes, until the runner stays away.
    pub(super) async fn until_unreachable(&self) -> Ended {
        let mut backoff = Backoff::new(Duration::from_millis(25), Duration::from_millis(250));
        let first = Instant::now();
        let mut reached = first;
        loop {
            let began = Instant::now();
            let cut = match Box::pin(self.one_connection(&mut reached)).await {
                Cut::Superseded(_) | Cut::Append(RunnerAppendError::LeaseLost) => return Ended::LeaseLost,
                cut => cut,
            };
            let harmless = matches!(cut, Cut::Client(RunnerClientError::Unreachable(_)) | Cut::Closed | Cut::Replaced);
            if harmless {
                tracing::debug!(session = self.run.session_id, reason = %cut, "not reading");
            } else {
                tracing::warn!(session = self.run.session_id, reason = %cut, "reading was cut off; trying again");
            }
            if reached.elapsed() > self.context.options.unreachable_patience {
                let silent = matches!(cut, Cut::Client(RunnerClientError::Timeout(_)));
                return Ended::Unreachable { had_read: reached > first, silent };
            }
            if reached > began {
                backoff.reset();
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Sets `reached` whenever the runner is heard from.
    async fn one_connection(&self, reached: &mut Instant) -> Cut {
        let (mut events, place) = match self.connect(reached).await {
            Ok(connection) => connection,
            Err(cut) => return cut,
        };
        let told = Told::default();
        let Orders { wake, rulers, .. } = self.orders;
        let deliver = delivery::deliver(self.context, self.run, self.client, wake, &told);
        let cut = tokio::select! {
            cut = self.store_all(&mut events, place, reached) => cut,
            () = deliver => Cut::Closed,
            never = told.keep_up(self.context, self.run, self.client, rulers.subscribe()) => match never {},
            never = owners::keep_up(self.context, self.run, rulers.subscribe()) => match never {},
            () = self.silence.heard(self.context, self.run, self.client) => Cut::Closed,
        };
        cut
    }

    async fn connect(&self, reached: &mut Instant) -> Result<(RunnerEvents, Place), Cut> {
        let RunRef { session_id, run, .. } = self.run;
        let known = self.context.db.runner_cursors(session_id, *run).await?.into_iter().next();
        let (log_id, mut cursor) = known.map_or((String::new(), 0), |known| (known.log_id, known.cursor));
        let (mut events, mut welcome) = self.hello(&log_id, cursor).await?;
        *reached = Instant::now();
        if welcome.0 != log_id {
            // A log other than the one stored last; it may still be known.
            cursor = self.context.db.runner_cursor(session_id, &welcome.0).await?;
            if cursor > 0 {
                let log_id = welcome.0;
                (events, welcome) = self.hello(&log_id, cursor).await?;
            }
        }
        let (log_id, last) = welcome;
        if last < cursor {
            tracing::error!(session = session_id, last, cursor, "the runner's log has lost records that are stored");
        } else if cursor > 0 {
            // A runner that is ending waits for this.
            events.ack(cursor).await?;
        }
        Ok((events, Place { log_id, cursor, facts_seen: cursor }))
    }

    async fn hello(&self, log_id: &str, after: i64) -> Result<(RunnerEvents, (String, i64)), Cut> {
        let hello = ReaderHello { epoch: self.lease.epoch(), log_id: log_id.to_owned(), after };
        let mut events = self.client.events(&hello).await?;
        match timeout(WELCOME, events.next()).await {
            Ok(frame) => match frame?.ok_or(Cut::Closed)?.0 {
                RunnerFrame::Welcome { log_id, last } => Ok((events, (log_id, last))),
                RunnerFrame::Superseded { epoch } => Err(self.superseded(epoch)),
                RunnerFrame::Records { .. } => Err(protocol("records before the welcome").into()),
            },
            Err(_) => Err(RunnerClientError::Timeout(WELCOME).into()),
        }
    }

    /// A connection with our own epoch is one of ours (a check of how long the log is).
    fn superseded(&self, epoch: i64) -> Cut {
        if epoch > self.lease.epoch() { Cut::Superseded(epoch) } else { Cut::Replaced }
    }

    async fn store_all(&self, events: &mut RunnerEvents, mut place: Place, reached: &mut Instant) -> Cut {
        loop {
            match self.store_next(events, &mut place).await {
                Ok(()) => *reached = Instant::now(),
                Err(cut) => {
                    // It was there until now.
                    *reached = Instant::now();
                    return cut;
                }
            }
        }
    }

    /// Waits for records and stores them, along with those that arrived meanwhile, in one transaction.
    async fn store_next(&self, events: &mut RunnerEvents, place: &mut Place) -> Result<(), Cut> {
        let options = &self.context.options;
        let next = events.next_while_alive(options.ping_interval, options.answer_patience).await?;
        let (mut frame, mut bytes) = next.ok_or(Cut::Closed)?;
        let mut records = Vec::new();
        loop {
            match frame {
                RunnerFrame::Records { records: next } => records.extend(next),
                RunnerFrame::Superseded { epoch } => return Err(self.superseded(epoch)),
                RunnerFrame::Welcome { .. } => return Err(protocol("a second welcome").into()),
            }
            if records.len() >= options.batch_records || bytes >= options.batch_bytes {
                break;
            }
            // Errors in between show up again at the next read, after these are stored.
            let Ok(Some((next, size))) = events.next_now() else { break };
            if !matches!(next, RunnerFrame::Records { .. }) {
                self.store(place, records).await?;
                let RunnerFrame::Superseded { epoch } = next else { return Err(protocol("a second welcome").into()) };
                return Err(self.superseded(epoch));
            }
            (frame, bytes) = (next, bytes + size);
        }
        self.store(place, records).await?;
        events.ack(place.cursor).await?;
        Ok(())
    }

    async fn store(&self, place: &mut Place, records: Vec<Record>) -> Result<(), Cut> {
        let expected = place.cursor + 1..;
        if records.is_empty() || !records.iter().zip(expected).all(|(record, n)| record.n == n) {
            return Err(protocol("records out of order").into());
        }
        let records: Vec<RunnerRecord> = records.into_iter().map(to_store).collect();
        let matters = records.iter().any(facts::matters);
        let source = Source::Runner(self.client);
        let append = Append { context: self.context, run: self.run, lease: self.lease, source };
        append.store(&place.log_id, &mut place.cursor, records).await?;
        if matters || place.cursor - place.facts_seen >= FACTS_STRIDE {
            place.facts_seen = place.cursor;
            self.facts_due.notify_one();
        }
        Ok(())
    }
}

/// Where records of a run are stored.
#[derive(Clone, Copy)]
pub(super) struct Append<'a> {
    pub(super) context: &'a Context,
    pub(super) run: &'a RunRef,
    pub(super) lease: &'a HeldLease,
    /// Of the packs that they name.
    pub(super) source: Source<'a>,
}

impl Append<'_> {
    /// Packs, then one transaction; then the subscribers are told, and the runner which packs it need not keep.
    ///
    /// # Errors
    /// See [`RunnerAppendError`].
    pub(super) async fn store(
        &self,
        log_id: &str,
        cursor: &mut i64,
        mut records: Vec<RunnerRecord>,
    ) -> Result<(), RunnerAppendError> {
        let Self { context, run, lease, source } = *self;
        let count = records.len();
        let after = records.last().map_or(*cursor, |record| record.n);
        let settled = packs::keep(context, run, source, &mut records).await;
        let changes = turns::changes(&records);
        let has_usage = !changes.usage.is_empty();
        let batch = RunnerBatch {
            session_id: run.session_id.clone(),
            run: run.run,
            epoch: lease.epoch(),
            log_id: log_id.to_owned(),
            cursor_before: *cursor,
            changes,
            records,
        };
        context.db.append_runner_events(batch).await?;
        *cursor = after;
        context.hints.publish(Hint::Recorded(run.session_id.clone()));
        if has_usage {
            context.hints.publish(Hint::Usage(run.project_id.clone()));
        }
        metrics::counter!("ambient_runner_records_stored_total").increment(count as u64);
        packs::settle(source, settled).await;
        Ok(())
    }
}

/// A record in the live log's form.
pub(super) fn to_store(record: Record) -> RunnerRecord {
    let event_type = record.event["type"].as_str().unwrap_or("RAW").to_owned();
    RunnerRecord { n: record.n, at: record.at, event_type, data: record.event }
}

fn protocol(reason: &str) -> RunnerClientError {
    RunnerClientError::Protocol(reason.to_owned())
}
