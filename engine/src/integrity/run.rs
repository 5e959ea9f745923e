//! An open run's rows against its history: what is pending in one is pending in the other, and the run can make progress.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::history::{Course, Task};
use crate::{
    model::{EffectData, EffectKind},
    proto,
};

/// The part of `engine.runs` that can also be derived from the history.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct OpenRun {
    run_id: Uuid,
    last_event_id: i64,
    buffered: Vec<u8>,
    previous_started_id: i64,
    open_children: i32,
    wft_state: i16,
    wft_scheduled_id: i64,
    wft_ready_at: Option<DateTime<Utc>>,
    wft_due_at: Option<DateTime<Utc>>,
    wft_process: Option<Uuid>,
    waits: bool,
}

#[derive(Debug, sqlx::FromRow)]
struct ActivityRow {
    run_id: Uuid,
    scheduled_event_id: i64,
    activity_id: String,
    state: i16,
    process: Option<Uuid>,
    cancel_requested_id: i64,
}

#[derive(Debug, sqlx::FromRow)]
struct ChildRow {
    run_id: Uuid,
    initiated_event_id: i64,
    started_event_id: i64,
    workflow_id: String,
}

/// All rows of a run.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) run: Option<OpenRun>,
    activities: Vec<ActivityRow>,
    timers: Vec<(String, i64)>,
    children: Vec<ChildRow>,
    /// What the run still owes others: kind and initiated event.
    owed: HashSet<(i32, i64)>,
    /// How many of those cannot be read.
    unreadable: usize,
}

/// Rows of a page of runs.
pub(super) async fn load(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, Rows>, sqlx::Error> {
    let mut rows: HashMap<Uuid, Rows> = HashMap::new();
    let runs: Vec<OpenRun> = sqlx::query_as(
        "select run_id, last_event_id, buffered, previous_started_id, open_children, wft_state, wft_scheduled_id,
            wft_ready_at, wft_due_at, wft_process, wft_ready_at > clock_timestamp() is true as waits
         from engine.runs where run_id = any($1)",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    for run in runs {
        let id = run.run_id;
        rows.entry(id).or_default().run = Some(run);
    }
    let activities: Vec<ActivityRow> = sqlx::query_as(
        "select run_id, scheduled_event_id, activity_id, state, process, cancel_requested_id
         from engine.activities where run_id = any($1)",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    for activity in activities {
        rows.entry(activity.run_id).or_default().activities.push(activity);
    }
    let timers: Vec<(Uuid, String, i64)> =
        sqlx::query_as("select run_id, timer_id, started_event_id from engine.timers where run_id = any($1)")
            .bind(ids)
            .fetch_all(&mut *connection)
            .await?;
    for (run, id, started) in timers {
        rows.entry(run).or_default().timers.push((id, started));
    }
    let children: Vec<ChildRow> = sqlx::query_as(
        "select run_id, initiated_event_id, started_event_id, workflow_id from engine.children where run_id = any($1)",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    for child in children {
        rows.entry(child.run_id).or_default().children.push(child);
    }
    let effects: Vec<(Uuid, Vec<u8>)> =
        sqlx::query_as("select source_run_id, data from engine.effects where source_run_id = any($1)")
            .bind(ids)
            .fetch_all(&mut *connection)
            .await?;
    for (run, data) in effects {
        let rows = rows.entry(run).or_default();
        match proto::stored::<EffectData>(&data) {
            Ok(effect) => drop(rows.owed.insert((effect.kind, effect.initiated_event_id))),
            Err(_) => rows.unreadable += 1,
        }
    }
    Ok(rows)
}

impl Rows {
    /// Owed work can be read: otherwise it is never done.
    pub(super) fn all_readable(&self, course: &mut Course) {
        if self.unreadable > 0 {
            course.note(None, format!("{} effects that the run owes cannot be read", self.unreadable));
        }
    }

    /// A closed run has left nothing behind. (The table checks find rows of runs that do not exist.)
    pub(super) fn none_left(&self, course: &mut Course) {
        for (left, what) in [
            (!self.activities.is_empty(), "the run is closed and has activities"),
            (!self.timers.is_empty(), "the run is closed and has timers"),
            (!self.children.is_empty(), "the run is closed and has children"),
        ] {
            if left {
                course.note(None, what);
            }
        }
    }
}

impl Course {
    /// Whether an open run's rows match its history.
    pub(super) fn compare_open(&mut self, run: &OpenRun, rows: &Rows) {
        if run.last_event_id != self.last_event_id() {
            let (said, is) = (run.last_event_id, self.last_event_id());
            self.note(Some(is), format!("the run's last event is said to be {said}"));
        }
        if run.previous_started_id != self.completed.0 {
            let (said, is) = (run.previous_started_id, self.completed.0);
            self.note(
                Some(is),
                format!("the last completed workflow task is said to have been started by event {said}"),
            );
        }
        self.compare_task(run);
        match proto::events(&[&run.buffered]) {
            Ok(events) => {
                if !events.is_empty() && run.wft_state != 2 {
                    self.note(None, "events are buffered while no workflow task is in flight");
                }
                for attributes in events.iter().filter_map(|e| e.attributes.as_ref()) {
                    self.apply(0, attributes, None);
                }
            }
            Err(_) => self.note(None, "the buffered events cannot be read"),
        }
        self.compare_activities(rows);
        self.compare_timers(rows);
        self.compare_children(run, rows);
        self.compare_owed(rows);
    }

    /// The workflow task, and that the run can make progress: with it, or with something pending or awaited from outside.
    fn compare_task(&mut self, run: &OpenRun) {
        // A later attempt, or one made for an update, is not in the history before it ends.
        let written = match self.task {
            Task::None => 0,
            Task::Scheduled(id) | Task::Started(id, _) => id,
        };
        if matches!(self.task, Task::Started(..)) {
            self.note(Some(self.last_event_id()), "the history ends within a workflow task");
        }
        if written != run.wft_scheduled_id {
            let said = run.wft_scheduled_id;
            self.note(
                Some(written),
                format!("the scheduled workflow task of the run is said to be {said}, of its history {written}"),
            );
        }
        match run.wft_state {
            0 => {
                if written != 0 {
                    self.note(
                        Some(written),
                        "the run cannot make progress: its workflow task is scheduled in the history only",
                    );
                } else if let Some(event) = self.unseen {
                    self.note(Some(event), "the run cannot make progress: no workflow task will tell it of this event");
                } else if self.completed.1 == 0 {
                    self.note(None, "the run cannot make progress: it has never had a workflow task");
                }
            }
            1 if run.wft_ready_at.is_none() => {
                self.note(None, "the run cannot make progress: its workflow task is never offered");
            }
            1 if run.waits && run.wft_due_at.is_none() => {
                self.note(None, "the run cannot make progress: nobody is woken when its workflow task may be offered");
            }
            2 if run.wft_process.is_none() || run.wft_due_at.is_none() => {
                self.note(
                    None,
                    "the run cannot make progress: its workflow task is started by nobody, or never times out",
                );
            }
            1 | 2 => {}
            other => self.note(None, format!("the workflow task has the state {other}")),
        }
    }

    fn compare_activities(&mut self, rows: &Rows) {
        let mut pending = self.activities.clone();
        for row in &rows.activities {
            let id = row.scheduled_event_id;
            let Some(known) = pending.remove(&id) else {
                self.note(
                    Some(id),
                    format!("the activity {:?} is pending in no event of the history", row.activity_id),
                );
                continue;
            };
            if known.name != row.activity_id {
                self.note(Some(id), format!("the activity {:?} is {:?} in the history", row.activity_id, known.name));
            }
            if known.cancel_requested != row.cancel_requested_id {
                self.note(Some(id), "the activity and its history differ in whether it is to be cancelled");
            }
            if (row.state == 1) != row.process.is_some() {
                self.note(Some(id), "the activity is started by nobody, or waits and belongs to a process");
            }
        }
        for (id, lost) in pending {
            self.note(Some(id), format!("the run cannot make progress: the activity {:?} has no row", lost.name));
        }
    }

    fn compare_timers(&mut self, rows: &Rows) {
        let mut pending = self.timers.clone();
        for (id, started) in &rows.timers {
            if pending.remove(id) != Some(*started) {
                self.note(Some(*started), format!("the timer {id:?} is pending in no event of the history"));
            }
        }
        for (id, started) in pending {
            self.note(Some(started), format!("the run cannot make progress: the timer {id:?} has no row"));
        }
    }

    fn compare_children(&mut self, run: &OpenRun, rows: &Rows) {
        let mut pending = self.children.clone();
        if i32::try_from(rows.children.len()) != Ok(run.open_children) {
            let (said, are) = (run.open_children, rows.children.len());
            self.note(None, format!("the run is said to have {said} open children and has {are}"));
        }
        for row in &rows.children {
            let id = row.initiated_event_id;
            let Some(known) = pending.remove(&id) else {
                self.note(Some(id), format!("the child {:?} is pending in no event of the history", row.workflow_id));
                continue;
            };
            // -1: started by an event that is buffered.
            if known.started.max(0) != row.started_event_id {
                let said = row.started_event_id;
                self.note(
                    Some(id),
                    format!("the child is said to have been started by event {said}, not {}", known.started),
                );
            }
            if known.started == 0 && !rows.owed.contains(&(EffectKind::StartChild as i32, id)) {
                self.note(Some(id), "the run cannot make progress: nobody owes it the start of this child");
            }
        }
        for (id, lost) in pending {
            self.note(Some(id), format!("the run cannot make progress: the child {:?} has no row", lost.name));
        }
    }

    fn compare_owed(&mut self, rows: &Rows) {
        let of = |kind: EffectKind, ids: Vec<i64>| ids.into_iter().map(move |id| (kind, id));
        let signals = of(EffectKind::SignalExternal, self.signals.keys().copied().collect());
        let cancels = of(EffectKind::CancelExternal, self.cancels.keys().copied().collect());
        for (kind, id) in signals.chain(cancels).collect::<Vec<_>>() {
            if !rows.owed.contains(&(kind as i32, id)) {
                self.note(
                    Some(id),
                    "the run cannot make progress: nobody owes it what this event asks of another workflow",
                );
            }
        }
    }
}
