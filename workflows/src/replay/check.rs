//! The check: histories from a source, operations from a log, all into one report.

use ambient_persistence::{Database, EntityReplay, Operation};
use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use temporalio_sdk::workflow_replayer::WorkflowReplayerOptions;

use super::{
    ReplayError,
    file::{ExportReader, ExportWriter, Exported},
    history::RecordedHistory,
    replayer::{ReplayResult, replay, replay_together},
    report::{FirstDivergence, Report},
    source::HistorySource,
};

/// Histories that one SDK worker replays, one after the other: creating a worker costs more than a short replay, in time
/// and in memory that the SDK does not give back.
const BATCH: usize = 64;
/// Events from which on a batch is full.
const BATCH_EVENTS: usize = 2_048;

/// How much is checked at once.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Batches of histories that are replayed concurrently; that many are in memory.
    pub parallel: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { parallel: cores.clamp(1, 8) }
    }
}

/// Replays all histories of a source against `workflows`.
///
/// # Errors
/// When the source cannot be read; the result for each history is in the report.
pub async fn check_histories(
    source: &mut dyn HistorySource,
    workflows: &WorkflowReplayerOptions,
    options: &CheckOptions,
    report: &mut Report,
) -> Result<(), ReplayError> {
    let batches = stream::try_unfold(source, |source| async move {
        let batch = next_batch(source).await?;
        Ok((!batch.is_empty()).then_some((batch, source)))
    });
    let verdicts = batches.map(|batch: Result<_, ReplayError>| async move { judge_batch(workflows, batch?).await });
    let mut verdicts = std::pin::pin!(verdicts.buffered(options.parallel.max(1)));
    while let Some(batch) = verdicts.next().await {
        for (kind, divergence) in batch? {
            report.count(&kind, divergence);
        }
    }
    Ok(())
}

type Found = Result<RecordedHistory, String>;
type Judgement = (String, Option<FirstDivergence>);

/// The next histories, together no more than a long one. Empty: that was all.
async fn next_batch(source: &mut dyn HistorySource) -> Result<Vec<Found>, ReplayError> {
    let (mut batch, mut events) = (Vec::new(), 0);
    while batch.len() < BATCH && events < BATCH_EVENTS {
        let Some(found) = source.next().await? else { break };
        events += found.as_ref().map_or(0, |recorded| recorded.history.events.len());
        batch.push(found);
    }
    Ok(batch)
}

/// Most batches pass when replayed together. If one does not, each of its histories is checked by itself.
async fn judge_batch(workflows: &WorkflowReplayerOptions, batch: Vec<Found>) -> Result<Vec<Judgement>, ReplayError> {
    let well = replay_together(workflows, batch.iter().flatten()).await?;
    let mut judgements = Vec::with_capacity(batch.len());
    for found in batch {
        judgements.push(match found {
            Ok(recorded) if well => (kind_of(&recorded), None),
            Ok(recorded) => judged(workflows, &recorded).await?,
            Err(problem) => ("workflow ?".to_owned(), Some(unreadable(&problem))),
        });
    }
    Ok(judgements)
}

fn kind_of(recorded: &RecordedHistory) -> String {
    format!("workflow {}", recorded.workflow)
}

async fn judged(workflows: &WorkflowReplayerOptions, recorded: &RecordedHistory) -> Result<Judgement, ReplayError> {
    let divergence = match replay(workflows, recorded).await? {
        ReplayResult::Identical => None,
        ReplayResult::Diverged(found) => Some(FirstDivergence {
            step: found.step,
            event_id: Some(found.event_id).filter(|id| *id > 0),
            source: recorded.source(),
            what: found.what,
        }),
    };
    Ok((kind_of(recorded), divergence))
}

fn unreadable(problem: &str) -> FirstDivergence {
    let (source, what) = problem.split_once(": ").unwrap_or(("", problem));
    let step = "the history cannot be read".to_owned();
    FirstDivergence { step, event_id: None, source: source.to_owned(), what: what.to_owned() }
}

/// Decides the latest `count` operations of a log again.
///
/// # Errors
/// When the log cannot be read; the result for each operation is in the report.
pub async fn check_operations(db: &Database, count: u32, report: &mut Report) -> Result<(), ReplayError> {
    for entity in db.concerned_by_last(count).await? {
        let (mut fold, mut after) = (OperationFold::default(), 0);
        loop {
            let page = db.logged_operations(&entity, after).await?;
            let Some(last) = page.last() else { break };
            after = last.version;
            for operation in &page {
                fold.next(operation, operation.version >= entity.from, report);
            }
        }
    }
    Ok(())
}

/// Checks everything in an export.
///
/// # Errors
/// When the file cannot be read or is incomplete; the results are in the report.
pub async fn check_file(
    file: ExportReader,
    workflows: &WorkflowReplayerOptions,
    options: &CheckOptions,
    report: &mut Report,
) -> Result<(), ReplayError> {
    let mut histories = FileHistories { file, beyond: None };
    check_histories(&mut histories, workflows, options, report).await?;
    let FileHistories { mut file, beyond } = histories;
    let (mut fold, mut line) = (OperationFold::default(), beyond);
    while let Some(exported) = line {
        match exported {
            Exported::Operation { operation, decide } => fold.next(&operation, decide, report),
            Exported::History(recorded) => {
                let (kind, divergence) = judged(workflows, &recorded).await?;
                report.count(&kind, divergence);
            }
            Exported::BadHistory(problem) => report.count("workflow ?", Some(unreadable(&problem))),
        }
        line = file.next_line()?;
    }
    Ok(())
}

/// The histories at the start of a file.
struct FileHistories {
    file: ExportReader,
    /// The first line after them.
    beyond: Option<Exported>,
}

#[async_trait]
impl HistorySource for FileHistories {
    async fn next(&mut self) -> Result<Option<Result<RecordedHistory, String>>, ReplayError> {
        if self.beyond.is_some() {
            return Ok(None);
        }
        Ok(match self.file.next_line()? {
            Some(Exported::History(recorded)) => Some(Ok(recorded)),
            Some(Exported::BadHistory(problem)) => Some(Err(problem)),
            beyond => {
                self.beyond = beyond;
                None
            }
        })
    }
}

/// Writes all histories of a source and the latest `count` operations to a file. Returns what is wrong with the histories that
/// could not be understood, and are left out.
///
/// # Errors
/// When source or log cannot be read, or the file cannot be written.
pub async fn export(
    source: &mut dyn HistorySource,
    db: &Database,
    count: u32,
    file: &mut ExportWriter,
) -> Result<Vec<String>, ReplayError> {
    let mut left_out = Vec::new();
    while let Some(found) = source.next().await? {
        match found {
            Ok(recorded) => file.history(&recorded)?,
            Err(problem) => left_out.push(problem),
        }
    }
    for entity in db.concerned_by_last(count).await? {
        let mut after = 0;
        loop {
            let page = db.logged_operations(&entity, after).await?;
            let Some(last) = page.last() else { break };
            after = last.version;
            for operation in page {
                let decide = operation.version >= entity.from;
                file.operation(operation, decide)?;
            }
        }
    }
    Ok(left_out)
}

/// Goes through operations, entity by entity, in version order.
#[derive(Default)]
struct OperationFold {
    entity: Option<(String, String)>,
    folded: Option<EntityReplay>,
    /// Why the rest of this entity cannot be judged.
    lost: bool,
}

impl OperationFold {
    /// Takes the next operation; `decide`: it is one of those to be decided again.
    fn next(&mut self, operation: &Operation, decide: bool, report: &mut Report) {
        let entity = Some((operation.entity_kind.clone(), operation.entity_id.clone()));
        if self.entity != entity {
            *self = Self { entity, folded: EntityReplay::of_kind(&operation.entity_kind), lost: false };
        }
        let found = match &mut self.folded {
            _ if self.lost => Err("an operation before it cannot be read".to_owned()),
            None => Err("this release has no such kind of entity".to_owned()),
            Some(folded) => folded.next(operation, decide),
        };
        self.lost = self.lost || found.is_err();
        if decide || found.is_err() {
            let what = found.unwrap_or_else(Some);
            report.count(
                &format!("operation {}/{}", operation.entity_kind, operation.command),
                what.map(|what| divergence(operation, what)),
            );
        }
    }
}

fn divergence(operation: &Operation, what: String) -> FirstDivergence {
    let Operation { entity_kind, entity_id, version, command, id, .. } = operation;
    let source = format!("{entity_kind} {entity_id} version {version} (operation {id})");
    FirstDivergence { step: command.clone(), event_id: None, source, what }
}
