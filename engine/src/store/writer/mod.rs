//! The group-committing writer.
//!
//! Changes that are ready at the same time are written by one statement, so that they share its round trip and its commit.
//! The first to arrive is written at once and by itself; what arrives meanwhile is the next batch. A reply is
//! given after the batch's commit. Once there is more than one at a time, a batch waits up to [`GATHER`] for more: a commit costs
//! the same for few and for many.
//!
//! Within a batch every run and every workflow id appears once, and starts share one policy. An item whose run has moved on
//! is not written, its neighbours are; a batch that the database refuses for another reason is written again item by
//! item, so that only the items at fault fail.

#[cfg(test)]
mod held;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ambient_postgres::{Lanes, is_broken};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    CommitError,
    commit::{write, write_and_continue},
    reset::{Reset, write_reset},
};
use crate::model::{Start, Transition};

/// Most items written by one statement.
const BATCH: usize = 64;

/// How long a batch waits for more items if the previous one had several.
const GATHER: Duration = Duration::from_millis(2);

/// What is to be written.
enum Item {
    Change(Box<Transition>),
    Start(Box<Start>),
}

/// What became of it. A start that another run is in the way of is a conflict.
type Outcome = Result<(), CommitError>;

struct Queued {
    item: Item,
    reply: oneshot::Sender<(Item, Outcome)>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Queued>,
    /// Someone is writing and will look at `waiting` again.
    led: bool,
}

/// The writer of one process.
pub(crate) struct Writer {
    lanes: Lanes,
    runtime: tokio::runtime::Handle,
    queue: Mutex<Queue>,
}

/// The duty to write what is waiting; handed to a separate task if its holder goes away.
struct Lead(Option<Arc<Writer>>);

impl Drop for Lead {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take() {
            writer.pass_on();
        }
    }
}

impl Item {
    fn run_id(&self) -> Uuid {
        match self {
            Self::Change(t) => t.run.run_id,
            Self::Start(s) => s.run.run_id,
        }
    }

    fn workflow_id(&self) -> &str {
        match self {
            Self::Change(t) => &t.run.workflow_id,
            Self::Start(s) => &s.run.workflow_id,
        }
    }

    fn start_code(&self) -> Option<i32> {
        match self {
            Self::Change(_) => None,
            Self::Start(s) => Some(s.code()),
        }
    }
}

impl Queue {
    /// The next batch, in order of arrival; items that do not go together with it stay.
    fn take(&mut self) -> Vec<Queued> {
        let mut batch: Vec<Queued> = Vec::new();
        let mut workflows = HashSet::new();
        let mut code = None;
        let mut left = VecDeque::new();
        while let Some(queued) = self.waiting.pop_front() {
            let alone = matches!(&queued.item, Item::Change(t) if t.continued.is_some());
            let same_policy = match (queued.item.start_code(), code) {
                (Some(own), Some(theirs)) => own == theirs,
                _ => true,
            };
            if batch.len() >= BATCH || (alone && !batch.is_empty()) {
                left.push_back(queued);
                break;
            }
            // Each workflow id once: one statement cannot change a row twice. This covers runs as well.
            if !same_policy || !workflows.insert(queued.item.workflow_id().to_owned()) {
                left.push_back(queued);
                continue;
            }
            code = code.or(queued.item.start_code());
            batch.push(queued);
            if alone {
                break;
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        batch
    }
}

impl Writer {
    pub(crate) fn new(lanes: Lanes, runtime: tokio::runtime::Handle) -> Self {
        Self { lanes, runtime, queue: Mutex::default() }
    }

    /// Writes a transition.
    pub(crate) async fn change(self: &Arc<Self>, transition: Box<Transition>) -> (Option<Box<Transition>>, Outcome) {
        match self.submit(Item::Change(transition)).await {
            Some((Item::Change(transition), outcome)) => (Some(transition), outcome),
            _ => (None, Err(CommitError::Db(unknown("the writer has stopped")))),
        }
    }

    /// Writes a start. False: another run is in the way.
    pub(crate) async fn start(self: &Arc<Self>, start: Box<Start>) -> Result<(Box<Start>, bool), sqlx::Error> {
        match self.submit(Item::Start(start)).await {
            Some((Item::Start(start), Ok(()))) => Ok((start, true)),
            Some((Item::Start(start), Err(CommitError::Conflict))) => Ok((start, false)),
            Some((_, Err(CommitError::Db(error)))) => Err(error),
            _ => Err(unknown("the writer has stopped")),
        }
    }

    /// Writes a reset, in its own transaction. False: a conflict.
    pub(crate) async fn reset(&self, reset: &Reset) -> Result<bool, CommitError> {
        let mut lane = self.lanes.take().await?;
        let written = write_reset(lane.connection(), reset).await;
        Ok(lane.finish(written)?)
    }

    /// Items waiting to be written.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// Keeps everything waiting until it is dropped: what arrives meanwhile is one batch. None while somebody leads, who may have answered
    /// already.
    #[cfg(test)]
    fn hold(self: &Arc<Self>) -> Option<Lead> {
        let is_led = std::mem::replace(&mut self.queue().led, true);
        (!is_led).then(|| Lead(Some(Arc::clone(self))))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn submit(self: &Arc<Self>, item: Item) -> Option<(Item, Outcome)> {
        let (reply, mut answer) = oneshot::channel();
        let lead = {
            let mut queue = self.queue();
            queue.waiting.push_back(Queued { item, reply });
            !std::mem::replace(&mut queue.led, true)
        };
        if lead {
            let lead = Lead(Some(Arc::clone(self)));
            // Whoever leads found the writer idle: the first batch has its item.
            let batch = self.queue().take();
            Box::pin(self.write(batch)).await;
            drop(lead);
            if let Ok(answer) = answer.try_recv() {
                return Some(answer);
            }
        }
        answer.await.ok()
    }

    /// The lead goes to a separate task if there is something to write.
    fn pass_on(self: Arc<Self>) {
        {
            let mut queue = self.queue();
            if queue.waiting.is_empty() {
                queue.led = false;
                return;
            }
        }
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            let mut lead = Lead(Some(Arc::clone(&self)));
            let mut company = false;
            loop {
                if company && self.queue().waiting.len() < BATCH / 2 {
                    tokio::time::sleep(GATHER).await;
                }
                let batch = {
                    let mut queue = self.queue();
                    let batch = queue.take();
                    if batch.is_empty() {
                        queue.led = false;
                        lead.0 = None;
                        return;
                    }
                    batch
                };
                company = batch.len() > 1;
                self.write(batch).await;
            }
        });
    }

    async fn write(&self, batch: Vec<Queued>) {
        metrics::histogram!("engine_batch_items").record(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
        let error = match self.try_write(&batch).await {
            Ok(written) => {
                for queued in batch {
                    let outcome =
                        if written.contains(&queued.item.run_id()) { Ok(()) } else { Err(CommitError::Conflict) };
                    answer(queued, outcome);
                }
                return;
            }
            Err(error) => error,
        };
        if batch.len() == 1 || is_broken(&error) {
            // Whether it was written is unknown if the connection broke: everyone is told so.
            let text = error.to_string();
            let mut first = Some(error);
            for queued in batch {
                let error = first.take().unwrap_or_else(|| unknown(&text));
                let failed = failure(&queued.item, error);
                answer(queued, Err(failed));
            }
            return;
        }
        metrics::counter!("engine_batches_split_total").increment(1);
        for queued in batch {
            let one = [queued];
            let outcome = match self.try_write(&one).await {
                Ok(written) if written.contains(&one[0].item.run_id()) => Ok(()),
                Ok(_) => Err(CommitError::Conflict),
                Err(error) => Err(failure(&one[0].item, error)),
            };
            let [queued] = one;
            answer(queued, outcome);
        }
    }

    /// The runs that were written.
    async fn try_write(&self, batch: &[Queued]) -> Result<HashSet<Uuid>, sqlx::Error> {
        let mut lane = self.lanes.take().await?;
        let (mut transitions, mut starts) = (Vec::new(), Vec::new());
        for queued in batch {
            match &queued.item {
                Item::Change(t) => transitions.push(t.as_ref()),
                Item::Start(s) => starts.push(s.as_ref()),
            }
        }
        if let [t] = transitions[..]
            && let Some(next) = &t.continued
        {
            let written = write_and_continue(lane.connection(), t, next).await;
            return Ok(lane.finish(written)?.then_some(t.run.run_id).into_iter().collect());
        }
        let written = write(lane.connection(), &transitions, &starts).await;
        let written = lane.finish(written)?;
        Ok(written.changed.into_iter().chain(written.started).collect())
    }
}

fn answer(queued: Queued, outcome: Outcome) {
    // The caller may have gone; what is written is written.
    let _ = queued.reply.send((queued.item, outcome));
}

/// A start can only lose because its workflow id is taken. Any other failure comes from the database.
fn failure(item: &Item, error: sqlx::Error) -> CommitError {
    match item {
        Item::Change(_) => error.into(),
        Item::Start(_) => CommitError::Db(error),
    }
}

fn unknown(text: &str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(text.to_owned()))
}
