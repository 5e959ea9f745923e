//! The files of the corpus: one history per branch of a workflow, and a manifest that says which is which.
//!
//! A file is the protobuf message `temporal.api.history.v1.History`, compressed with gzip: unlike the SDK's JSON form, a later SDK
//! can read it too. The manifest has one line per file and says what is in it.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use ambient_workflows::replay::RecordedHistory;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use temporalio_common::protos::temporal::api::history::v1::History;

/// Steps that the manifest tells.
const MANY: usize = 40;
const MANIFEST: &str = "manifest.json";

/// What the manifest says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Name of the file, below the manifest's folder.
    pub(crate) file: String,
    /// Workflow type.
    pub(crate) workflow: String,
    /// Branch of it.
    pub(crate) branch: String,
    /// Number of events.
    pub(crate) events: usize,
    /// What the workflow decided, in order; what went round often is cut.
    pub(crate) steps: Vec<String>,
    /// The test that took this branch.
    pub(crate) recorded_by: String,
}

/// A folder of the corpus: one engine's.
pub(crate) struct Corpus {
    folder: PathBuf,
    /// By (workflow, branch).
    entries: BTreeMap<(String, String), Entry>,
}

impl Corpus {
    /// What is in a folder; nothing when there is no manifest.
    pub(crate) fn open(folder: &Path) -> Self {
        let text = fs::read(folder.join(MANIFEST)).unwrap_or_else(|_| b"[]".to_vec());
        let entries: Vec<Entry> = serde_json::from_slice(&text).unwrap();
        let entries = entries.into_iter().map(|entry| ((entry.workflow.clone(), entry.branch.clone()), entry));
        Self { folder: folder.to_owned(), entries: entries.collect() }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(crate) fn path(&self, entry: &Entry) -> PathBuf {
        self.folder.join(&entry.file)
    }

    pub(crate) fn read(&self, entry: &Entry) -> RecordedHistory {
        let bytes = fs::read(self.path(entry)).unwrap_or_else(|e| panic!("{}: {e}", entry.file));
        let mut message = Vec::new();
        GzDecoder::new(bytes.as_slice()).read_to_end(&mut message).unwrap();
        let history = History::decode(message.as_slice()).unwrap_or_else(|e| panic!("{}: {e}", entry.file));
        RecordedHistory::new(history, None).unwrap_or_else(|e| panic!("{}: {e}", entry.file))
    }

    /// Keeps a history, unless there is a shorter one of its branch.
    pub(crate) fn add(&mut self, branch: String, recorded: &RecordedHistory, recorded_by: &str) {
        let (workflow, events) = (recorded.workflow.clone(), recorded.history.events.len());
        let key = (workflow.clone(), branch.clone());
        if self.entries.get(&key).is_some_and(|there| there.events <= events) {
            return;
        }
        if let Some(there) = self.entries.get(&key) {
            fs::remove_file(self.path(there)).unwrap();
        }
        let file = format!("{workflow}/{branch}.binpb.gz");
        let path = self.folder.join(&file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, compressed(&recorded.history.encode_to_vec())).unwrap();
        let steps = steps(recorded);
        let recorded_by = recorded_by.to_owned();
        self.entries.insert(key, Entry { file, workflow, branch, events, steps, recorded_by });
    }

    pub(crate) fn write_manifest(&self) {
        let lines = self.entries().map(|entry| serde_json::to_string(entry).unwrap()).collect::<Vec<_>>();
        fs::create_dir_all(&self.folder).unwrap();
        fs::write(self.folder.join(MANIFEST), format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
}

fn steps(recorded: &RecordedHistory) -> Vec<String> {
    let mut steps = recorded.steps();
    if steps.len() > MANY {
        steps.truncate(MANY);
        steps.push("and so on".to_owned());
    }
    steps
}

fn compressed(text: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}
