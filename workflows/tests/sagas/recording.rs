//! The corpus of histories is recorded from these tests, which take every branch: `make corpus`.

use std::{
    env,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use ambient_workflows::replay::HistorySource;

use crate::{branch::branch_of, corpus::Corpus};

/// Where to record to; nothing is recorded when it is not set.
const FOLDER: &str = "AMBIENT_RECORD_CORPUS";

/// Tests end at the same time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Takes what the test has left, if this run records. A history that is still open is of use as well: a deploy meets such ones.
pub(crate) async fn record(source: &mut dyn HistorySource) {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let mut found = Vec::new();
    while let Some(recorded) = source.next().await.unwrap() {
        found.push(recorded.unwrap());
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let mut corpus = Corpus::open(&folder);
    // One that has not decided anything yet says nothing.
    for recorded in found.iter().filter(|recorded| !recorded.steps().is_empty()) {
        corpus.add(branch_of(recorded), recorded, &test);
    }
    corpus.write_manifest();
}
