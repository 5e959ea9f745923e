//! An export: histories and operations in one file, to be checked somewhere without the database.
//!
//! One JSON object per line; compressed with gzip if the name ends with `.gz`, recognised by its first bytes when read. First the
//! header, then histories, then operations (an entity's together and in version order from its first on), and finally the end, which
//! says how many there are, so that a truncated file is not taken for a complete one. `docs/operations-guide.md` describes it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ambient_persistence::Operation;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use temporalio_common::protos::temporal::api::history::v1::History;

use super::{ReplayError, history::RecordedHistory};

/// This format's name in the header.
pub const FORMAT: &str = "ambient-export";
/// Its version; a reader refuses a newer one.
pub const FORMAT_VERSION: u32 = 1;
/// First bytes of gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// First line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportHeader {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// Release that wrote it.
    pub release: String,
    /// When.
    pub made_at: DateTime<Utc>,
    /// `embedded` or `temporal`.
    pub engine: String,
}

/// Last line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportEnd {
    /// Histories in the file.
    pub histories: u64,
    /// Operations in the file.
    pub operations: u64,
}

/// A line between header and end.
#[derive(Debug, Clone, PartialEq)]
pub enum Exported {
    /// A history.
    History(RecordedHistory),
    /// A malformed history, and what is wrong with it.
    BadHistory(String),
    /// An operation; `decide`: it is one of those to be decided again.
    Operation {
        /// The operation.
        operation: Box<Operation>,
        /// To be decided again, and not only applied.
        decide: bool,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Header(ExportHeader),
    History(HistoryLine),
    Operation(OperationLine),
    End(ExportEnd),
}

/// `proto`: the protobuf message `temporal.api.history.v1.History`, base64. The SDK's JSON form of it does not stay readable from one
/// version to the next; the message does. The other fields are for people and tools.
#[derive(Serialize, Deserialize)]
struct HistoryLine {
    workflow_id: String,
    run_id: String,
    workflow: String,
    status: String,
    events: usize,
    proto: String,
}

impl HistoryLine {
    fn of(recorded: &RecordedHistory) -> Self {
        Self {
            workflow_id: recorded.workflow_id.clone(),
            run_id: recorded.run_id.clone(),
            workflow: recorded.workflow.clone(),
            status: recorded.status.to_owned(),
            events: recorded.history.events.len(),
            proto: STANDARD.encode(recorded.history.encode_to_vec()),
        }
    }

    fn read(self) -> Result<RecordedHistory, String> {
        let bytes = STANDARD.decode(&self.proto).map_err(|error| error.to_string())?;
        let history = History::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
        if history.events.len() != self.events {
            return Err(format!("{} events where {} are said to be", history.events.len(), self.events));
        }
        RecordedHistory::new(history, Some((&self.workflow_id, &self.run_id)))
    }
}

#[derive(Serialize, Deserialize)]
struct OperationLine {
    operation: Box<Operation>,
    decide: bool,
}

/// Writes an export. The file appears under its name only once it is complete, and only its owner may read it.
pub struct ExportWriter {
    out: Sink,
    path: PathBuf,
    partial: PathBuf,
    written: ExportEnd,
}

enum Sink {
    Plain(BufWriter<File>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

impl ExportWriter {
    /// Starts a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, engine: &str, release: &str) -> Result<Self, ReplayError> {
        let partial = path.with_added_extension("partial");
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
        let file = BufWriter::new(open.map_err(failed(&partial))?);
        let gzip = path.extension().is_some_and(|extension| extension == "gz");
        let out =
            if gzip { Sink::Gzip(Box::new(GzEncoder::new(file, Compression::default()))) } else { Sink::Plain(file) };
        let mut writer = Self { out, path: path.to_owned(), partial, written: ExportEnd::default() };
        writer.line(&Line::Header(ExportHeader {
            format: FORMAT.to_owned(),
            version: FORMAT_VERSION,
            release: release.to_owned(),
            made_at: Utc::now(),
            engine: engine.to_owned(),
        }))?;
        Ok(writer)
    }

    /// Adds a history.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn history(&mut self, recorded: &RecordedHistory) -> Result<(), ReplayError> {
        self.written.histories += 1;
        self.line(&Line::History(HistoryLine::of(recorded)))
    }

    /// Adds an operation: an entity's one after the other, from the first on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn operation(&mut self, operation: Operation, decide: bool) -> Result<(), ReplayError> {
        self.written.operations += 1;
        self.line(&Line::Operation(OperationLine { operation: Box::new(operation), decide }))
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<ExportEnd, ReplayError> {
        self.line(&Line::End(self.written))?;
        let file = match self.out {
            Sink::Plain(out) => Ok(out),
            Sink::Gzip(out) => out.finish(),
        };
        let file = file.and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error));
        file.and_then(|file| file.sync_all()).map_err(failed(&self.partial))?;
        fs::rename(&self.partial, &self.path).map_err(failed(&self.path))?;
        Ok(self.written)
    }

    fn line(&mut self, line: &Line) -> Result<(), ReplayError> {
        let out: &mut dyn Write = match &mut self.out {
            Sink::Plain(out) => out,
            Sink::Gzip(out) => out.as_mut(),
        };
        let written = serde_json::to_writer(&mut *out, line).map_err(io::Error::from);
        written.and_then(|()| out.write_all(b"\n")).map_err(failed(&self.partial))
    }
}

/// Reads an export, line by line.
pub struct ExportReader {
    lines: Box<dyn BufRead + Send>,
    path: String,
    line: u64,
    header: ExportHeader,
    seen: ExportEnd,
    ended: bool,
}

impl ExportReader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When it cannot be read, or is not an export in a version that this release knows.
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        let mut file = BufReader::new(File::open(path).map_err(failed(path))?);
        let gzip = file.fill_buf().map_err(failed(path))?.starts_with(&GZIP);
        let lines: Box<dyn BufRead + Send> =
            if gzip { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
        let header = ExportHeader {
            format: FORMAT.to_owned(),
            version: 0,
            release: String::new(),
            made_at: DateTime::UNIX_EPOCH,
            engine: String::new(),
        };
        let mut reader =
            Self { lines, path: path.display().to_string(), line: 0, header, seen: ExportEnd::default(), ended: false };
        reader.header = match reader.read_line() {
            Ok(Some(Line::Header(header))) if header.format == FORMAT => header,
            Err(error @ ReplayError::Io { .. }) => return Err(error),
            _ => return Err(reader.wrong("this is not a file written by `ambient replay export`".to_owned())),
        };
        if reader.header.version > FORMAT_VERSION {
            let problem = format!("the format's version {} is unknown to this release", reader.header.version);
            return Err(reader.wrong(problem));
        }
        Ok(reader)
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &ExportHeader {
        &self.header
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// When the file cannot be read, a line is not understood, or the file is truncated.
    pub fn next_line(&mut self) -> Result<Option<Exported>, ReplayError> {
        if self.ended {
            return Ok(None);
        }
        let exported = match self.read_line()? {
            Some(Line::History(history)) => {
                self.seen.histories += 1;
                let source = format!("{} run {}", history.workflow_id, history.run_id);
                match history.read() {
                    Ok(recorded) => Exported::History(recorded),
                    Err(problem) => Exported::BadHistory(format!("{source}: {problem}")),
                }
            }
            Some(Line::Operation(OperationLine { operation, decide })) => {
                self.seen.operations += 1;
                Exported::Operation { operation, decide }
            }
            Some(Line::End(end)) if end == self.seen => {
                self.ended = true;
                return Ok(None);
            }
            Some(Line::End(_)) => return Err(self.wrong("lines are missing".to_owned())),
            Some(Line::Header(_)) => return Err(self.wrong("a second header".to_owned())),
            None => return Err(self.wrong("the file is truncated: its end is missing".to_owned())),
        };
        Ok(Some(exported))
    }

    fn read_line(&mut self) -> Result<Option<Line>, ReplayError> {
        let mut line = Vec::new();
        self.line += 1;
        let read = self.lines.read_until(b'\n', &mut line);
        match read {
            Ok(0) => Ok(None),
            Ok(_) => serde_json::from_slice(&line).map(Some).map_err(|error| self.wrong(error.to_string())),
            // A truncated gzip.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(ReplayError::Io { path: self.path.clone(), source }),
        }
    }

    fn wrong(&self, problem: String) -> ReplayError {
        ReplayError::Format { path: self.path.clone(), line: self.line, problem }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ReplayError {
    let path = path.display().to_string();
    move |source| ReplayError::Io { path, source }
}
