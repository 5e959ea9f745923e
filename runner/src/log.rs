//! The run's event log: one JSON record per line, numbered from 1 without gaps.
//!
//! One thread writes. What waits while it syncs is written with the next sync (group commit), and only what is synced becomes
//! visible: `last` never names a record that a power loss could take back. A torn tail is truncated at start.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, RwLock},
};

use ambient_runner_protocol::Record;
use ambient_wire::runner_event::RunnerEvent;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::life;

/// Largest log, bytes; beyond it only records that end things are accepted.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Appends that may wait for the writer.
const QUEUE: usize = 256;
/// Most appends per sync.
const GROUP: usize = 512;
/// Most bytes per read, unless a single record is larger.
const MAX_READ_BYTES: u64 = 1024 * 1024;

/// Why an append failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("the event log is full ({MAX_BYTES} bytes)")]
    Full,
    #[error("the event log cannot be written")]
    Failed,
}

struct Append {
    events: Vec<RunnerEvent>,
    done: Option<oneshot::Sender<i64>>,
}

/// A [`Record`] as it is written.
#[derive(Serialize)]
struct Line<'a> {
    n: i64,
    at: DateTime<Utc>,
    event: &'a RunnerEvent,
}

/// Where each synced record starts, and where the last one ends.
#[derive(Default)]
struct Index {
    starts: Vec<u64>,
    end: u64,
}

/// Handle of the log.
#[derive(Clone)]
pub(crate) struct EventLog {
    queue: mpsc::Sender<Append>,
    last: watch::Receiver<i64>,
    index: Arc<RwLock<Index>>,
    file: Arc<File>,
}

impl EventLog {
    /// Opens the log, truncates a torn tail, and shows every record to `see`.
    ///
    /// # Errors
    /// A system error.
    pub(crate) fn open(path: &Path, mut see: impl FnMut(&Record)) -> std::io::Result<Self> {
        let mut file = life::open_append(path)?;
        let index = recover(&mut file, &mut see)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let (queue, appends) = mpsc::channel(QUEUE);
        let (synced, last) = watch::channel(number(index.starts.len()));
        let index = Arc::new(RwLock::new(index));
        let file = Arc::new(file);
        let writer = Writer { file: file.clone(), index: index.clone(), synced };
        std::thread::Builder::new().name("event-log".to_owned()).spawn(move || writer.run(appends))?;
        Ok(Self { queue, last, index, file })
    }

    /// Appends events in one piece and waits until they are synced; returns the number of the last one.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) async fn append(&self, events: Vec<RunnerEvent>) -> Result<i64, LogError> {
        let (done, synced) = oneshot::channel();
        self.queue.send(Append { events, done: Some(done) }).await.map_err(|_| LogError::Failed)?;
        synced.await.map_err(|_| LogError::Failed)
    }

    /// Appends an agent's events without waiting for the sync; order is kept.
    ///
    /// # Errors
    /// When the log is full or cannot be written.
    pub(crate) async fn push(&self, events: Vec<RunnerEvent>) -> Result<(), LogError> {
        let end = self.index.read().map_err(|_| LogError::Failed)?.end;
        if end > MAX_BYTES {
            return Err(LogError::Full);
        }
        self.queue.send(Append { events, done: None }).await.map_err(|_| LogError::Failed)
    }

    /// Follows the number of the last synced record; closed when the log has failed.
    pub(crate) fn last(&self) -> watch::Receiver<i64> {
        self.last.clone()
    }

    /// Synced records after `after`, at most `most`; blocks on the disk.
    ///
    /// # Errors
    /// A system error.
    pub(crate) fn read(&self, after: i64, most: usize) -> std::io::Result<Vec<Record>> {
        let (from, to) = {
            let index = self.index.read().map_err(|_| std::io::Error::other("poisoned"))?;
            let first = usize::try_from(after).map_err(std::io::Error::other)?;
            let Some(from) = index.starts.get(first).copied() else { return Ok(Vec::new()) };
            let ends = index.starts.iter().skip(first + 1).copied().chain([index.end]);
            let fits = ends.take(most).enumerate().take_while(|(i, end)| *i == 0 || end - from <= MAX_READ_BYTES);
            (from, fits.last().map_or(index.end, |(_, end)| end))
        };
        let mut bytes = vec![0; usize::try_from(to - from).map_err(std::io::Error::other)?];
        self.file.read_exact_at(&mut bytes, from)?;
        bytes
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| Ok(serde_json::from_slice(line)?))
            .collect()
    }
}

struct Writer {
    file: Arc<File>,
    index: Arc<RwLock<Index>>,
    synced: watch::Sender<i64>,
}

impl Writer {
    /// Ends (and with it every handle's hope) on the first failure: a log that cannot be written must not continue.
    fn run(self, mut appends: mpsc::Receiver<Append>) {
        while let Some(first) = appends.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = appends.try_recv()
            {
                group.push(next);
            }
            if let Err(error) = self.write(group) {
                life::note_want_of_space(&error);
                tracing::error!(%error, "the event log cannot be written");
                return;
            }
        }
    }

    fn write(&self, group: Vec<Append>) -> std::io::Result<()> {
        let (mut n, mut end) = {
            let index = self.index.read().map_err(|_| std::io::Error::other("poisoned"))?;
            (number(index.starts.len()), index.end)
        };
        let (mut bytes, mut starts, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for append in group {
            for event in append.events {
                n += 1;
                starts.push(end + bytes.len() as u64);
                serde_json::to_writer(&mut bytes, &Line { n, at: Utc::now(), event: &event })?;
                bytes.push(b'\n');
            }
            waiting.extend(append.done.map(|done| (done, n)));
        }
        (&*self.file).write_all(&bytes)?;
        self.file.sync_data()?;
        end += bytes.len() as u64;
        {
            let mut index = self.index.write().map_err(|_| std::io::Error::other("poisoned"))?;
            index.starts.extend(starts);
            index.end = end;
        }
        self.synced.send_replace(n);
        for (done, n) in waiting {
            let _ = done.send(n);
        }
        Ok(())
    }
}

fn recover(file: &mut File, see: &mut impl FnMut(&Record)) -> std::io::Result<Index> {
    let mut index = Index::default();
    file.rewind()?;
    let mut lines = BufReader::new(&*file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let expected = number(index.starts.len()) + 1;
        match serde_json::from_slice::<Record>(&line) {
            Ok(record) if record.n == expected && line.ends_with(b"\n") => {
                see(&record);
                index.starts.push(index.end);
                index.end += read as u64;
            }
            _ => break,
        }
    }
    let length = file.metadata()?.len();
    if length > index.end {
        tracing::warn!(bytes = length - index.end, "cut off the torn tail of the event log");
        file.set_len(index.end)?;
        file.sync_all()?;
    }
    Ok(index)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
