//! Accepting messages: each id once per run, recorded before it is answered.
//!
//! The text goes to a journal first, then the acceptance to the log: whatever the log names can be worked on after any crash.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use ambient_runner_protocol::{Accepted, DeliverMessage};
use ambient_wire::runner_event::RunnerEvent;
use tokio::sync::{
    Mutex,
    mpsc::{self, error::TrySendError},
};

use crate::{
    ending::{CurrentTurn, Ending},
    error::{Error, Result},
    history::{Fate, History},
    life,
    log::EventLog,
};

/// Longest message, bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Longest id, bytes.
const MAX_ID_BYTES: usize = 256;
/// Messages that may wait for their turn.
const QUEUE: usize = 256;
const BEGINS_NO_MORE: &str = "the runner begins no more turns";

/// Where messages arrive.
pub(crate) struct Inbox {
    known: Mutex<HashMap<String, i64>>,
    journal: Arc<File>,
    queue: mpsc::Sender<DeliverMessage>,
    log: EventLog,
    ending: Ending,
    current: Arc<CurrentTurn>,
}

/// Where the turns take them from.
pub(crate) struct Outbox {
    /// Left over from an earlier attempt, worked on first.
    pub(crate) resumed: VecDeque<DeliverMessage>,
    pub(crate) queue: mpsc::Receiver<DeliverMessage>,
}

impl Outbox {
    /// The next message; none once no more can arrive. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<DeliverMessage> {
        match self.resumed.pop_front() {
            Some(message) => Some(message),
            None => self.queue.recv().await,
        }
    }
}

impl Inbox {
    /// Opens the journal; messages known from `history` are not accepted again, and unfinished ones are resumed.
    ///
    /// # Errors
    /// A system error.
    pub(crate) fn open(
        journal: &Path,
        history: &History,
        interactive: bool,
        log: EventLog,
        ending: Ending,
        current: Arc<CurrentTurn>,
    ) -> std::io::Result<(Self, Outbox)> {
        let mut file = life::open_append(journal)?;
        let mut texts = read_journal(&mut file)?;
        let mut resumed = VecDeque::new();
        for (id, _) in history.accepted.iter().filter(|(id, _)| is_to_do(history, id, interactive)) {
            match texts.remove(id) {
                Some(message) => resumed.push_back(message),
                None => tracing::error!(%id, "an accepted message is not in the journal"),
            }
        }
        let known = Mutex::new(history.accepted.iter().cloned().collect());
        let (sender, queue) = mpsc::channel(QUEUE);
        Ok((Self { known, journal: Arc::new(file), queue: sender, log, ending, current }, Outbox { resumed, queue }))
    }

    /// Records a message, in a task of its own: a caller that goes away does not leave it half-recorded.
    ///
    /// # Errors
    /// Bad input, a full queue, a runner that is ending or halted.
    pub(crate) async fn accept(self: &Arc<Self>, message: DeliverMessage) -> Result<Accepted> {
        check(&message)?;
        let inbox = self.clone();
        tokio::spawn(async move { inbox.record(message).await })
            .await
            .map_err(|e| Error::Internal(format!("the message could not be recorded: {e}")))?
    }

    async fn record(&self, message: DeliverMessage) -> Result<Accepted> {
        let mut known = self.known.lock().await;
        if known.contains_key(&message.id) {
            return Ok(Accepted { id: message.id, new: false });
        }
        if self.ending.has_begun() {
            return Err(Error::Conflict("the runner is ending".to_owned()));
        }
        // The queue closes only once the turn in progress has ended.
        if self.current.is_halted() {
            return Err(Error::Conflict(BEGINS_NO_MORE.to_owned()));
        }
        let place = self.queue.try_reserve().map_err(|error| match error {
            TrySendError::Full(()) => Error::Busy(format!("{QUEUE} messages are waiting already")),
            TrySendError::Closed(()) => Error::Conflict(BEGINS_NO_MORE.to_owned()),
        })?;
        let mut line = serde_json::to_vec(&message).map_err(|e| Error::Internal(e.to_string()))?;
        line.push(b'\n');
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || append(&journal, &line))
            .await
            .map_err(|e| Error::Internal(e.to_string()))?
            .map_err(|e| Error::io("the message journal cannot be written", &e))?;
        let recorded = RunnerEvent::MessageAccepted { message_id: message.id.clone(), seq: message.seq };
        let recorded = self.log.append(vec![recorded]).await;
        recorded.map_err(|e| Error::Internal(e.to_string()))?;
        known.insert(message.id.clone(), message.seq);
        let accepted = Accepted { id: message.id.clone(), new: true };
        place.send(message);
        Ok(accepted)
    }
}

fn is_to_do(history: &History, id: &str, interactive: bool) -> bool {
    let open = history.open_turn.as_ref().is_some_and(|(_, message)| message == id);
    match history.fates.get(id) {
        // The resuming runner closes the open turn as appropriate; only a lost one is repeated.
        Some(Fate::Open) if open => !interactive && history.open_turn_result.is_none(),
        Some(Fate::Open) => true,
        Some(Fate::Lost) => !interactive,
        Some(Fate::Ended { .. }) | None => false,
    }
}

/// A line that cannot be written in full (the disk is full) is taken back: what is written after it must be readable.
fn append(mut journal: &File, line: &[u8]) -> std::io::Result<()> {
    let before = journal.metadata()?.len();
    journal.write_all(line).and_then(|()| journal.sync_data()).inspect_err(|_| {
        if let Err(error) = journal.set_len(before) {
            tracing::error!(%error, "a torn line of the message journal cannot be taken back");
        }
    })
}

fn check(message: &DeliverMessage) -> Result<()> {
    if message.id.is_empty() || message.id.len() > MAX_ID_BYTES || message.id.chars().any(char::is_control) {
        return Err(Error::bad("id", format!("1 to {MAX_ID_BYTES} bytes without control characters")));
    }
    if message.seq < 0 {
        return Err(Error::bad("seq", "must not be negative"));
    }
    if message.text.contains('\0') {
        return Err(Error::bad("text", "must not contain NUL"));
    }
    if message.text.len() > MAX_TEXT_BYTES {
        return Err(Error::TooLarge(format!("text is longer than {MAX_TEXT_BYTES} bytes")));
    }
    Ok(())
}

fn read_journal(file: &mut File) -> std::io::Result<HashMap<String, DeliverMessage>> {
    let mut texts = HashMap::new();
    let mut whole = 0;
    file.rewind()?;
    let mut lines = BufReader::new(&*file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line)?;
        match serde_json::from_slice::<DeliverMessage>(&line) {
            Ok(message) if line.ends_with(b"\n") => texts.insert(message.id.clone(), message),
            _ => break,
        };
        whole += read as u64;
    }
    drop(lines);
    file.set_len(whole)?;
    file.seek(SeekFrom::End(0))?;
    Ok(texts)
}
