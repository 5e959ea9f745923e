//! A runner's log as a file, for when the runner is gone.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    path::Path,
};

use ambient_runner_protocol::Record;
use ambient_wire::runner_event::RunnerEvent;

/// Longest line, bytes.
const MAX_LINE: u64 = 64 * 1024 * 1024;

/// Reads records in order. What follows a line that is torn or out of order is not part of the log: the runner truncates it.
pub(super) struct LogFile {
    lines: BufReader<File>,
    /// The number of the last record read.
    n: i64,
    log_id: String,
    ended: bool,
}

impl LogFile {
    /// Opens a log; none if there is no complete record. Blocks on the disk.
    ///
    /// # Errors
    /// A system error; a log that does not start like one.
    pub(super) fn open(path: &Path) -> std::io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        // A runner that was killed may have written unsynced data: nothing is stored that could still be lost.
        file.sync_data()?;
        let mut log = Self { lines: BufReader::new(file), n: 0, log_id: String::new(), ended: false };
        let Some(first) = log.line()?.and_then(|line| serde_json::from_slice::<Record>(&line).ok()) else {
            return Ok(None);
        };
        let Some(RunnerEvent::AttemptStarted { log_id, .. }) = RunnerEvent::read(&first.event).filter(|_| first.n == 1)
        else {
            return Err(std::io::Error::other("the log does not begin with the start of an attempt"));
        };
        log.log_id = log_id;
        // The first record counts too.
        log.lines.rewind()?;
        Ok(Some(log))
    }

    /// Identity of the log.
    pub(super) fn log_id(&self) -> &str {
        &self.log_id
    }

    /// Skips records up to `n` without reading them; records are numbered without gaps. Blocks on the disk.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn skip_to(&mut self, n: i64) -> std::io::Result<()> {
        while self.n < n && self.line()?.is_some() {
            self.n += 1;
        }
        Ok(())
    }

    /// The next records, at most `most` and about `most_bytes`; empty at the end. Blocks on the disk.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn next(&mut self, most: usize, most_bytes: usize) -> std::io::Result<Vec<Record>> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < most && bytes < most_bytes {
            let Some(line) = self.line()? else { break };
            match serde_json::from_slice::<Record>(&line) {
                Ok(record) if record.n == self.n + 1 => records.push(record),
                _ => {
                    self.ended = true;
                    break;
                }
            }
            self.n += 1;
            bytes += line.len();
        }
        Ok(records)
    }

    /// The next complete line.
    fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        if !self.ended {
            self.lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        }
        let whole = line.ends_with(b"\n");
        self.ended |= !whole;
        Ok(whole.then_some(line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn started() -> String {
        r#"{"n":1,"at":"2026-01-01T00:00:00Z","event":{"type":"attempt.started","log_id":"L","attempt":1,"resumed":false}}"#.to_owned()
    }

    fn started_earlier() -> String {
        r#"{"n":1,"at":"2026-01-01T00:00:00Z","event":{"type":"CUSTOM","name":"ambient.attempt_started","value":{"log_id":"L","attempt":1}}}"#
            .to_owned()
    }

    fn record(n: i64) -> String {
        format!(r#"{{"n":{n},"at":"2026-01-01T00:00:00Z","event":{{"type":"X"}}}}"#)
    }

    fn log(text: &str) -> (tempfile::NamedTempFile, std::io::Result<Option<LogFile>>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let log = LogFile::open(file.path());
        (file, log)
    }

    fn rest(log: &mut LogFile) -> Vec<i64> {
        log.next(99, usize::MAX).unwrap().iter().map(|record| record.n).collect()
    }

    #[test]
    fn whole_records_are_read_from_any_place_and_a_torn_tail_is_not() {
        for started in [started(), started_earlier()] {
            let text = format!("{started}\n{}\n{}\n{}", record(2), record(3), &record(4)[..20]);
            let (_file, log) = log(&text);
            let mut log = log.unwrap().unwrap();
            assert_eq!(log.log_id(), "L");
            log.skip_to(1).unwrap();
            assert_eq!(rest(&mut log), [2, 3]);
            assert_eq!(rest(&mut log), [0; 0]);
        }
    }

    #[test]
    fn what_follows_a_broken_line_or_a_gap_is_not_read() {
        for broken in ["{", "", &record(5)] {
            let text = format!("{}\n{}\n{broken}\n{}\n", started(), record(2), record(3));
            let (_file, log) = log(&text);
            assert_eq!(rest(&mut log.unwrap().unwrap()), [1, 2], "{broken}");
        }
    }

    #[test]
    fn an_absent_or_empty_log_is_none_and_another_file_is_an_error() {
        assert!(LogFile::open(Path::new("/nonexistent/log")).unwrap().is_none());
        assert!(log("").1.unwrap().is_none());
        assert!(log(&started()).1.unwrap().is_none());
        assert!(log(&format!("{}\n", record(1))).1.is_err());
    }
}
