//! Getting the last of a log: while the runner is alive, and from its file when it is gone.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ambient_persistence::{RunnerAppendError, StoreError};
use ambient_runner_protocol::{ReaderHello, Record, RunnerFrame, SessionPaths};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Context, RunRef,
    connection::{self, Append},
    facts,
    lease::HeldLease,
    log_file::LogFile,
    packs::Source,
};

/// How long to wait for another process's lease: its reader releases it soon after the runner is gone.
const LEASE_PATIENCE: Duration = Duration::from_secs(8);
const LEASE_POLL: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(20);
/// How long reporting facts of the rest may take.
const FACTS: Duration = Duration::from_secs(5);

/// Why the rest of a log could not be stored; a retry may succeed.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// The system error.
        source: std::io::Error,
    },
    /// Another reader has the log.
    #[error("another reader has the runner's log")]
    Busy,
    /// Everything is stored, but some of its facts have not been accepted yet; they come before any others of the run.
    #[error("facts from the rest of the log have not been accepted yet")]
    FactsLeft,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A batch was not stored.
    #[error(transparent)]
    Append(#[from] RunnerAppendError),
}

/// Whether everything that the runner has recorded by now is stored, within the available time.
pub(super) async fn drained(context: &Context, run: &RunRef) -> bool {
    let deadline = Instant::now() + context.options.drain_patience;
    let wait = async {
        loop {
            if let Some((log_id, last)) = how_far(context, run).await {
                while context.db.runner_cursor(&run.session_id, &log_id).await.is_ok_and(|cursor| cursor < last) {
                    sleep(POLL).await;
                }
                return context.db.runner_cursor(&run.session_id, &log_id).await.is_ok_and(|cursor| cursor >= last);
            }
            sleep(LEASE_POLL).await;
        }
    };
    tokio::time::timeout_at(deadline, wait).await.unwrap_or(false)
}

/// The runner's log and its last record, requested with the reader's own epoch: the reader reconnects right afterwards.
async fn how_far(context: &Context, run: &RunRef) -> Option<(String, i64)> {
    // Whatever the obstacle, the answer is unknown, and it is asked again.
    let client = context.client(run).await.ok()??;
    let epoch = context.db.runner_epoch(&run.session_id, run.run).await.ok()?;
    let hello = ReaderHello { epoch, log_id: String::new(), after: 0 };
    let mut events = client.events(&hello).await.ok()?;
    match events.next().await {
        Ok(Some((RunnerFrame::Welcome { log_id, last }, _))) => Some((log_id, last)),
        _ => None,
    }
}

/// Stores what is missing of a log file, under the run's lease; returns how many records.
pub(super) async fn drain_file(context: &Context, run: &RunRef, path: &Path) -> Result<u64, DrainError> {
    // Usually the reader has received everything: then the lease is not needed.
    let Some((log, _)) = open_after_cursor(context, run, path).await? else { return Ok(0) };
    let (_, missing) = next_piece(log, path, 1, 1).await?;
    if missing.is_empty() && !facts::are_due(context, run).await? {
        return Ok(0);
    }
    let lease = acquire(context, run).await?;
    let stored = store_rest(context, run, path, &lease).await;
    let reported = match stored.is_ok() {
        true => timeout(FACTS, facts::report_all(context, run)).await,
        false => Ok(Ok(())),
    };
    lease.release().await;
    match reported {
        Ok(Ok(())) => stored,
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(DrainError::FactsLeft),
    }
}

async fn store_rest(context: &Context, run: &RunRef, path: &Path, lease: &HeldLease) -> Result<u64, DrainError> {
    let Some((mut log, mut cursor)) = open_after_cursor(context, run, path).await? else { return Ok(0) };
    let log_id = log.log_id().to_owned();
    // The log is in the run's folder, which is among the session's runs.
    let root = path.ancestors().nth(3).unwrap_or(path).to_owned();
    let packs = SessionPaths { root }.outgoing();
    let append = Append { context, run, lease, source: Source::Folder(&packs) };
    let mut stored = 0;
    loop {
        let piece;
        (log, piece) = next_piece(log, path, context.options.batch_records, context.options.batch_bytes).await?;
        if piece.is_empty() {
            return Ok(stored);
        }
        stored += piece.len() as u64;
        let records = piece.into_iter().map(connection::to_store).collect();
        append.store(&log_id, &mut cursor, records).await?;
    }
}

/// The log, positioned after what is already stored, and that position.
async fn open_after_cursor(context: &Context, run: &RunRef, path: &Path) -> Result<Option<(LogFile, i64)>, DrainError> {
    let Some(mut log) = blocking(path, LogFile::open).await? else { return Ok(None) };
    let cursor = context.db.runner_cursor(&run.session_id, log.log_id()).await?;
    let log = blocking(path, move |_| log.skip_to(cursor).map(|()| log)).await?;
    Ok(Some((log, cursor)))
}

async fn next_piece(
    mut log: LogFile,
    path: &Path,
    most: usize,
    most_bytes: usize,
) -> Result<(LogFile, Vec<Record>), DrainError> {
    blocking(path, move |_| log.next(most, most_bytes).map(|piece| (log, piece))).await
}

async fn acquire(context: &Context, run: &RunRef) -> Result<HeldLease, DrainError> {
    let deadline = Instant::now() + LEASE_PATIENCE;
    loop {
        match context.leases.acquire(&run.session_id, run.run).await? {
            Some(lease) => return Ok(lease),
            None if Instant::now() < deadline => sleep(LEASE_POLL).await,
            None => return Err(DrainError::Busy),
        }
    }
}

/// Disk work, off the threads that must not block.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, DrainError> {
    let owned = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    done.map_err(std::io::Error::other).flatten().map_err(|source| DrainError::Io { path: path.to_owned(), source })
}
