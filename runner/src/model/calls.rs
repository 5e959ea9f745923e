//! Calls that are open, which turn they belong to, and what they have used.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ambient_runner_protocol::{ModelBudget, ModelDialect, ModelEndpoint, ModelPrice};
use ambient_wire::runner_event::{ModelCall, RunnerEvent, UsageSource};
use chrono::Utc;
use tokio::{sync::watch, task::AbortHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    budget::Spent,
    meter::{Meter, Metered},
    refusal::Refusal,
};
use crate::log::{EventLog, LogError};

/// How long it may take until calls that were closed are recorded. One whose agent reads no more takes until the agent is gone.
const RECORD_PATIENCE: Duration = Duration::from_millis(500);

/// All calls of an attempt.
pub(super) struct Calls {
    prices: BTreeMap<String, ModelPrice>,
    currency: String,
    log: EventLog,
    state: Mutex<State>,
    /// Calls that are open or not yet recorded.
    open: watch::Sender<usize>,
    /// Why a call of this turn was refused.
    exceeded: watch::Sender<Option<String>>,
}

struct State {
    budget: ModelBudget,
    spent: Spent,
    turn_id: String,
    is_closed: bool,
    cancelled: CancellationToken,
    connections: HashMap<u64, AbortHandle>,
    last: u64,
}

impl Calls {
    pub(super) fn new(endpoint: &ModelEndpoint, spent: Spent, log: EventLog) -> Self {
        let state = State {
            budget: endpoint.budget,
            spent,
            turn_id: String::new(),
            is_closed: false,
            cancelled: CancellationToken::new(),
            connections: HashMap::new(),
            last: 0,
        };
        Self {
            prices: endpoint.prices.clone(),
            currency: endpoint.currency.clone(),
            log,
            state: Mutex::new(state),
            open: watch::Sender::new(0),
            exceeded: watch::Sender::new(None),
        }
    }

    pub(super) fn begin_turn(&self, turn_id: &str) {
        let mut state = self.state();
        turn_id.clone_into(&mut state.turn_id);
        if std::mem::take(&mut state.is_closed) {
            state.cancelled = CancellationToken::new();
        }
        self.exceeded.send_replace(None);
    }

    pub(super) fn set_budget(&self, budget: ModelBudget) {
        self.state().budget = budget;
    }

    /// Whether models without a price cannot be asked.
    pub(super) fn limits_cost(&self) -> bool {
        self.state().budget.limits_cost()
    }

    pub(super) async fn exceeded(&self) {
        // The sender lives as long as this.
        let _ = self.exceeded.subscribe().wait_for(Option::is_some).await;
    }

    pub(super) fn why_exceeded(&self) -> Option<String> {
        self.exceeded.borrow().clone()
    }

    pub(super) async fn close(&self) {
        {
            let mut state = self.state();
            state.is_closed = true;
            state.cancelled.cancel();
            // Not left to who reads the answer: an agent that does not read would keep its connection open.
            state.connections.drain().for_each(|(_, connection)| connection.abort());
        }
        let mut open = self.open.subscribe();
        let closed = timeout(RECORD_PATIENCE, open.wait_for(|open| *open == 0)).await;
        if closed.is_err() {
            tracing::warn!("calls of models are not recorded yet");
        }
    }

    /// A call of the current turn.
    ///
    /// # Errors
    /// When the turn was stopped, or, for one that costs something, the budget is used up.
    pub(super) fn begin(
        self: &Arc<Self>,
        dialect: ModelDialect,
        model: String,
        request_bytes: usize,
        costs: bool,
    ) -> Result<Call, Refusal> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Refusal::Stopped);
        }
        let exceeded = if costs { state.spent.exceeds(&state.budget, &self.currency) } else { None };
        if let Some(reason) = exceeded {
            self.exceeded.send_replace(Some(reason.clone()));
            return Err(Refusal::Budget(reason));
        }
        state.last += 1;
        self.open.send_modify(|open| *open += 1);
        Ok(Call {
            calls: self.clone(),
            number: state.last,
            turn_id: state.turn_id.clone(),
            model,
            dialect,
            sent: Instant::now(),
            cancelled: state.cancelled.clone(),
            meter: costs.then(|| Meter::new(dialect, request_bytes)),
            is_sent: false,
        })
    }

    /// Counts what was used; the event says so.
    fn count(&self, call: &Call, metered: Metered, is_whole: bool) -> RunnerEvent {
        let usage = metered.tokens.usage(self.prices.get(&call.model), &self.currency);
        self.state().spent.add(&usage, Utc::now().date_naive());
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let seen = ModelCall {
            provider: provider(call.dialect).to_owned(),
            response_model: metered.model,
            millis: millis(call.sent.elapsed()),
            first_piece_millis: metered.first_piece.map(|at| millis(at.saturating_duration_since(call.sent))),
            broken_off: !is_whole,
        };
        let (turn_id, model) = (call.turn_id.clone(), call.model.clone());
        RunnerEvent::Usage { turn_id, source: UsageSource::Proxy, model, usage, raw: metered.raw, call: Some(seen) }
    }

    async fn record(&self, event: RunnerEvent) {
        let recorded = match self.log.push(vec![event.clone()]).await {
            // What was used counts, whatever else the agent has filled the log with.
            Err(LogError::Full) => self.log.append(vec![event]).await.map(drop),
            other => other,
        };
        if let Err(error) = recorded {
            tracing::error!(%error, "usage cannot be recorded");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn provider(dialect: ModelDialect) -> &'static str {
    match dialect {
        ModelDialect::OpenaiChat | ModelDialect::OpenaiResponses => "openai",
        ModelDialect::Anthropic => "anthropic",
        ModelDialect::Gemini => "gemini",
    }
}

/// A call. Dropped before its answer is whole, it counts by what is known of it.
pub(super) struct Call {
    calls: Arc<Calls>,
    number: u64,
    turn_id: String,
    model: String,
    dialect: ModelDialect,
    /// When it was last about to be sent.
    sent: Instant,
    cancelled: CancellationToken,
    /// None if it costs nothing, or was counted.
    pub(super) meter: Option<Meter>,
    is_sent: bool,
}

impl Call {
    /// Waits until the turn is stopped.
    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// It is about to be sent over this connection, which is closed when the turn is stopped.
    ///
    /// # Errors
    /// When it is stopped already.
    pub(super) fn uses(&mut self, connection: AbortHandle) -> Result<(), Refusal> {
        let mut state = self.calls.state();
        if self.cancelled.is_cancelled() {
            return Err(Refusal::Stopped);
        }
        state.connections.insert(self.number, connection);
        (self.is_sent, self.sent) = (true, Instant::now());
        Ok(())
    }

    /// Nothing of it was sent.
    pub(super) fn is_unsent(&mut self) {
        self.is_sent = false;
        self.lets_go();
    }

    /// The answer is complete, so its connection is no longer this call's.
    pub(super) fn lets_go(&self) {
        self.calls.state().connections.remove(&self.number);
    }

    /// It costs nothing: the endpoint did not take it.
    pub(super) fn is_free(&mut self) {
        self.meter = None;
    }

    /// Counts and records it, unless it was already.
    pub(super) async fn count(&mut self, is_whole: bool) {
        if let Some(event) = self.counted(is_whole) {
            self.calls.record(event).await;
        }
    }

    fn counted(&mut self, is_whole: bool) -> Option<RunnerEvent> {
        let meter = self.meter.take().filter(|_| self.is_sent)?;
        Some(self.calls.count(self, meter.metered(is_whole), is_whole))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.lets_go();
        let (event, calls) = (self.counted(false), self.calls.clone());
        let done = async move {
            if let Some(event) = event {
                calls.record(event).await;
            }
            calls.open.send_modify(|open| *open -= 1);
        };
        // Without a runtime the runner is at its end.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(done);
        }
    }
}
