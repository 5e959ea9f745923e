//! Which trace something belongs to, and below which span: by following its causes.

use std::collections::HashMap;

use ambient_persistence::{Database, Origin, StoreError};

use crate::ids::{Context, SpanId, is_sampled, span_of, trace_of};

/// Longest chain of causes that is followed.
const MAX_CAUSES: usize = 32;
/// Most contexts that are kept in memory.
const MAX_KEPT: usize = 10_000;

/// The span of an operation.
pub(crate) fn operation_span(id: &str) -> SpanId {
    span_of("operation", &[id])
}

/// The span of an execution. Its workflow id is used once.
pub(crate) fn execution_span(workflow_id: &str) -> SpanId {
    span_of("execution", &[workflow_id])
}

/// The span of a turn.
pub(crate) fn turn_span(session_id: &str, (run, number): (i64, i64)) -> SpanId {
    span_of("turn", &[session_id, &run.to_string(), &number.to_string()])
}

/// Finds contexts, and remembers some.
pub(crate) struct Origins {
    db: Database,
    /// Share of the traces that begin here and are exported.
    ratio: f64,
    /// Contexts of operations, by their ids.
    kept: HashMap<String, Context>,
}

/// What caused something.
enum Cause {
    /// An operation, itself or by way of an execution or a turn, whose span it hangs on.
    Operation { id: String, below: SpanId },
    /// Nothing that is known.
    Unknown,
}

impl Origins {
    pub(crate) fn new(db: Database, ratio: f64) -> Self {
        Self { db, ratio, kept: HashMap::new() }
    }

    /// Where an operation belongs.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub(crate) async fn of_operation(&mut self, origin: &Origin) -> Result<Context, StoreError> {
        if let Some(context) = self.kept.get(&origin.operation_id) {
            return Ok(*context);
        }
        // From the operation to the first cause whose trace is known; then back.
        let mut chain: Vec<(String, Option<SpanId>)> = Vec::new();
        let mut current = origin.clone();
        let mut context = loop {
            if let Some(context) = current.trace_parent.as_deref().and_then(Context::parse) {
                break context;
            }
            let cause = if chain.len() < MAX_CAUSES { self.cause(&current).await? } else { Cause::Unknown };
            let Cause::Operation { id, below } = cause else {
                let trace = trace_of("operation", &[&current.operation_id]);
                break Context { trace, parent: None, sampled: is_sampled(&trace, self.ratio) };
            };
            if let Some(context) = self.kept.get(&id) {
                break context.below(below);
            }
            chain.push((std::mem::take(&mut current.operation_id), Some(below)));
            match self.db.operation_origin(&id).await? {
                Some(found) => current = found,
                // It is known, and gone.
                None => {
                    current = Origin { operation_id: id, ..Origin::default() };
                }
            }
        };
        self.keep(current.operation_id, context);
        while let Some((id, below)) = chain.pop() {
            context = Context { parent: below, ..context };
            self.keep(id, context);
        }
        Ok(context)
    }

    /// Where what an operation has caused belongs: below its span. Of an operation that is unknown a trace of its own.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub(crate) async fn below_operation(&mut self, id: &str) -> Result<Context, StoreError> {
        let context = match self.kept.get(id) {
            Some(context) => *context,
            None => {
                let found = self.db.operation_origin(id).await?;
                let origin = found.unwrap_or_else(|| Origin { operation_id: id.to_owned(), ..Origin::default() });
                self.of_operation(&origin).await?
            }
        };
        Ok(context.below(operation_span(id)))
    }

    /// Where the turn that works on a message belongs.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub(crate) async fn of_turn(&mut self, session_id: &str, message_id: &str) -> Result<Context, StoreError> {
        let operation = self.db.message_origin(session_id, message_id).await?;
        // Messages other than prompts have their operation's id, and outlive the log in it.
        self.below_operation(operation.as_deref().unwrap_or(message_id)).await
    }

    async fn cause(&self, origin: &Origin) -> Result<Cause, StoreError> {
        if let Some(message) = &origin.message_id {
            let operation = self.db.message_origin(&origin.entity_id, message).await?;
            let id = operation.unwrap_or_else(|| message.clone());
            let turn = self.db.turn_of_message(&origin.entity_id, message).await?;
            let below = turn.map_or_else(|| operation_span(&id), |turn| turn_span(&origin.entity_id, turn));
            return Ok(Cause::Operation { id, below });
        }
        let execution = match &origin.causation_id {
            Some(cause) if ambient_persistence::is_ksuid(cause) => {
                return Ok(Cause::Operation { id: cause.clone(), below: operation_span(cause) });
            }
            Some(cause) => cause.clone(),
            // What a run's log says, without saying which message it is about: the start of the run.
            None => match origin.correlation_id.rsplit_once('/') {
                Some((session, run)) => format!("session-start/{session}/{run}.1"),
                None => return Ok(Cause::Unknown),
            },
        };
        let started_by = self.db.execution_origin(&execution).await?;
        Ok(started_by.map_or(Cause::Unknown, |id| {
            let is_cause = origin.causation_id.is_some();
            let below = if is_cause { execution_span(&execution) } else { operation_span(&id) };
            Cause::Operation { id, below }
        }))
    }

    fn keep(&mut self, operation_id: String, context: Context) {
        // What is asked for soon was kept lately; it costs one read to find it again.
        if self.kept.len() >= MAX_KEPT {
            self.kept.clear();
        }
        self.kept.insert(operation_id, context);
    }
}
