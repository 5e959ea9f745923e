//! Group commit: changes of different entities that are ready at the same time are written by one statement, so that they
//! share its round trip and its commit.
//!
//! The first to arrive is written at once; what arrives meanwhile is the next batch. There is no timer. At most [`WRITERS`]
//! batches are in progress, of at most [`BATCH`] items of one table, and an entity is in one of them at a time: whatever waits
//! for it was decided on what that batch writes, or will be told that it was overtaken. A batch does not belong to any caller, so
//! it is written whoever goes away meanwhile.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ambient_postgres::Lanes;
use tokio::sync::oneshot;

use super::{
    AppendItem, AppendPart, Failure, is_unexpected,
    write::{Line, Written, write},
};

/// Batches in progress.
pub(crate) const WRITERS: usize = 2;
/// Items per batch.
const BATCH: usize = 64;
/// Looks at what has arrived, between batches.
const GATHERINGS: usize = 8;
/// Tasks that a reply wakes one after the other until the next command arrives: actor, caller, actor.
const HOPS: usize = 4;
/// Items waiting; any more are refused.
const WAITING: usize = 16_384;

/// The outcome of an item.
pub(super) enum WriteOutcome {
    /// It was written; the last seq of its live log, if it wrote to it.
    Written(Option<i64>),
    /// It was not written, because something was not as expected: nothing has changed.
    NotWritten,
    /// Nothing of its batch was written, for a reason that may be another item's.
    Apart,
}

struct Waiting {
    item: Arc<AppendItem>,
    reply: oneshot::Sender<Result<WriteOutcome, Failure>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Entities of the batches in progress.
    busy: HashSet<String>,
    writers: usize,
}

/// The group commit of one process.
#[derive(Debug)]
pub(crate) struct Group {
    lanes: Lanes,
    queue: Mutex<Queue>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting.len()).field("writers", &self.writers).finish()
    }
}

/// A task that writes batches as long as there are any. However it ends, its batch is then no longer in progress.
struct Writer {
    group: Arc<Group>,
    /// Entities of its batch.
    ids: Vec<String>,
    /// Among [`Queue::writers`].
    counted: bool,
}

/// The part of an item that can be grouped.
fn part(item: &AppendItem) -> &AppendPart {
    &item.parts[0]
}

impl Queue {
    /// The next batch in order of arrival, for the table of the first item; what does not go with it stays.
    fn take(&mut self) -> Vec<Waiting> {
        let mut batch: Vec<Waiting> = Vec::new();
        let mut keys = BTreeSet::new();
        let mut left = VecDeque::new();
        while batch.len() < BATCH
            && let Some(next) = self.waiting.pop_front()
        {
            let same_table = batch.first().is_none_or(|first| part(&first.item).table == part(&next.item).table);
            let key = next.item.idempotency.as_ref().map(|record| &record.key);
            // One statement cannot change a row, or claim a key, twice.
            let fits = same_table
                && !self.busy.contains(&part(&next.item).entity_id)
                && key.is_none_or(|key| !keys.contains(key));
            if !fits {
                left.push_back(next);
                continue;
            }
            keys.extend(key.cloned());
            self.busy.insert(part(&next.item).entity_id.clone());
            batch.push(next);
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        batch
    }

    /// Whether to start a batch next to this many others. Only a large one runs next to another: what is written separately
    /// costs twice.
    fn is_worth(&self, others: usize) -> bool {
        self.waiting.len() > others * (BATCH / 2)
    }

    fn is_written(&mut self, ids: &mut Vec<String>) {
        for id in ids.drain(..) {
            self.busy.remove(&id);
        }
    }
}

impl Group {
    pub(crate) fn new(lanes: Lanes) -> Self {
        Self { lanes, queue: Mutex::default() }
    }

    /// What is written is written; nothing more is.
    pub(crate) async fn close(&self) {
        self.lanes.close().await;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Items of one part each, without guards and names. Replies come in the order of the items.
    pub(super) fn submit(
        self: &Arc<Self>,
        items: impl IntoIterator<Item = Arc<AppendItem>>,
    ) -> Vec<oneshot::Receiver<Result<WriteOutcome, Failure>>> {
        let mut receivers = Vec::new();
        let start = {
            let mut queue = self.queue();
            for item in items {
                let (reply, receiver) = oneshot::channel();
                receivers.push(receiver);
                if queue.waiting.len() < WAITING {
                    queue.waiting.push_back(Waiting { item, reply });
                } else {
                    let _ = reply.send(Err(Failure::Before(sqlx::Error::PoolTimedOut)));
                }
            }
            let start = queue.writers < WRITERS && queue.is_worth(queue.writers);
            queue.writers += usize::from(start);
            start
        };
        if start {
            let writer = Writer { group: self.clone(), ids: Vec::new(), counted: true };
            tokio::spawn(writer.run());
        }
        receivers
    }

    async fn write(&self, mut batch: Vec<Waiting>) {
        metrics::histogram!("ambient_append_batch_items").record(f64::from(u32::try_from(batch.len()).unwrap_or(0)));
        // The caller may have gone; what is written is written.
        let failure = match self.try_write(&batch).await {
            Ok(mut written) => {
                for waiting in batch {
                    let outcome = written.remove(&part(&waiting.item).entity_id);
                    let _ = waiting.reply.send(Ok(outcome.map_or(WriteOutcome::NotWritten, WriteOutcome::Written)));
                }
                return;
            }
            Err(failure) => failure,
        };
        match failure {
            // Whether it was written is unknown if the connection broke: everyone is told so.
            Failure::InCommit(reason) => {
                for waiting in batch {
                    let _ = waiting.reply.send(Err(Failure::InCommit(reason.clone())));
                }
            }
            Failure::Before(error) if batch.len() == 1 && !is_unexpected(&error) => {
                if let Some(waiting) = batch.pop() {
                    let _ = waiting.reply.send(Err(Failure::Before(error)));
                }
            }
            Failure::Before(_) => {
                metrics::counter!("ambient_append_batches_split_total").increment(1);
                for waiting in batch {
                    let _ = waiting.reply.send(Ok(WriteOutcome::Apart));
                }
            }
        }
    }

    async fn try_write(&self, batch: &[Waiting]) -> Result<Written, Failure> {
        let mut lane = self.lanes.take().await?;
        let lines = batch.iter().map(|waiting| &waiting.item);
        let lines = lines.map(|item| Line { part: part(item), record: item.idempotency.as_ref() }).collect();
        let written = write(lane.connection(), lines, &[]).await;
        lane.finish(written).map_err(Failure::of_statement)
    }
}

impl Writer {
    async fn run(mut self) {
        while self.next().await {
            self.gather().await;
        }
    }

    /// Lets those whose replies have just been given come back, as long as that brings more: they are ready to run, and a
    /// statement costs much the same for few and for many.
    async fn gather(&self) {
        let mut waiting = None;
        for _ in 0..GATHERINGS {
            let now = self.group.queue().waiting.len();
            if now >= BATCH || waiting == Some(now) {
                return;
            }
            waiting = Some(now);
            for _ in 0..HOPS {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Writes a batch. False if there is none; then this writer no longer counts.
    async fn next(&mut self) -> bool {
        let group = self.group.clone();
        let batch = {
            let mut queue = group.queue();
            let others = queue.writers - 1;
            let batch = if queue.is_worth(others) { queue.take() } else { Vec::new() };
            // In one step: the next to arrive either starts a writer or is seen by this one.
            if batch.is_empty() {
                self.counted = false;
                queue.writers -= 1;
                return false;
            }
            batch
        };
        self.ids = batch.iter().map(|waiting| part(&waiting.item).entity_id.clone()).collect();
        group.write(batch).await;
        group.queue().is_written(&mut self.ids);
        true
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.counted {
            let mut queue = self.group.queue();
            queue.is_written(&mut self.ids);
            queue.writers -= 1;
        }
    }
}
