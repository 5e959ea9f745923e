//! Creating runs.

use prost::Message;

use super::{
    Store,
    statement::{Statement, column},
};
use crate::{
    model::{Start, StartOutcome},
    recorded,
    search_attributes::indexed,
};

/// Creates runs and their first workflow tasks, except where the latest run of a workflow id is in the way: the row
/// of the workflow id decides between concurrent starts. All share one policy and have different workflow ids.
pub(super) fn write(s: &mut Statement, starts: &[&Start]) {
    let Some(code) = starts.first().map(|start| start.code()) else {
        s.section("started", "select null::uuid as run_id where false").end("");
        return;
    };
    s.section("started", "insert into engine.workflows as w (workflow_id, run_id, status, request_id) ");
    s.text("select k.workflow_id, k.run_id, 1, k.request_id from ").rows();
    column!(s, starts, t => t.run.workflow_id.clone(), "text");
    column!(s, starts, t => t.run.run_id, "uuid");
    column!(s, starts, t => t.new.request_id.clone(), "text");
    s.rows_end("workflow_id, run_id, request_id");
    s.text(" on conflict (workflow_id) do update set run_id = excluded.run_id, status = 1, ");
    s.text("request_id = excluded.request_id where ").value(code).text("::int = 4 or (w.status <> 1 ");
    s.text("and w.request_id <> excluded.request_id and (").value(code).text("::int = 1 or (").value(code);
    s.text("::int = 2 and w.status in (3, 4, 5, 7))))").end(" returning w.run_id");
    rows(s, starts);
    s.section("started_executions", "insert into engine.executions (run_id, workflow_id, workflow_type, task_queue, ");
    s.text("status, start_time, first_run_id, parent_workflow_id, parent_run_id, root_workflow_id, root_run_id, ");
    s.text(
        "memo, search_attributes, attributes) select run_id, workflow_id, workflow_type, task_queue, 1, start_time, ",
    );
    s.text("first_run_id, parent_workflow_id, parent_run_id, root_workflow_id, root_run_id, memo, search_attributes, ");
    s.text("attributes ");
    s.end("from fresh");
    s.section(
        "started_runs",
        "insert into engine.runs (run_id, workflow_id, workflow_type, task_queue, first_run_id, ",
    );
    s.text("parent_workflow_id, parent_run_id, parent_initiated_id, root_workflow_id, root_run_id, last_event_id, ");
    s.text("history_bytes, timeout_at, execution_expires_at, wft_timeout_ms, wft_state, wft_queue, wft_scheduled_id, ");
    s.text("wft_scheduled_at, wft_ready_at, wft_started_at, wft_due_at, wft_process, wft_identity) ");
    s.text("select run_id, workflow_id, workflow_type, task_queue, first_run_id, parent_workflow_id, parent_run_id, ");
    s.text(
        "parent_initiated_id, root_workflow_id, root_run_id, last_event_id, history_bytes, timeout_at, expires_at, ",
    );
    s.text("wft_timeout_ms, wft_state, task_queue, last_event_id, start_time, wft_ready_at, wft_started_at, ");
    s.end("wft_due_at, wft_process, wft_identity from fresh");
    s.section("started_histories", "insert into engine.history (run_id, first_event_id, last_event_id, data) ");
    s.end("select run_id, 1, last_event_id, data from fresh");
}

/// The rows that are written, as `fresh`.
fn rows(s: &mut Statement, starts: &[&Start]) {
    let encode = |m: Option<Vec<u8>>| m.unwrap_or_default();
    s.section("fresh", "select * from ").rows();
    column!(s, starts, t => t.run.run_id, "uuid");
    column!(s, starts, t => t.run.workflow_id.clone(), "text");
    column!(s, starts, t => t.run.workflow_type.clone(), "text");
    column!(s, starts, t => t.run.task_queue.clone(), "text");
    column!(s, starts, t => t.now, "timestamptz");
    column!(s, starts, t => t.run.first_run_id, "uuid");
    column!(s, starts, t => t.run.parent_workflow_id.clone(), "text");
    column!(s, starts, t => t.run.parent_run_id, "uuid");
    column!(s, starts, t => t.run.parent_initiated_id, "bigint");
    column!(s, starts, t => t.run.root_workflow_id.clone(), "text");
    column!(s, starts, t => t.run.root_run_id, "uuid");
    column!(s, starts, t => encode(t.new.attributes.memo.as_ref().map(Message::encode_to_vec)), "bytea");
    column!(s, starts, t => encode(t.new.attributes.search_attributes.as_ref().map(Message::encode_to_vec)), "bytea");
    column!(s, starts, t => t.new.attributes.search_attributes.as_ref().and_then(indexed), "jsonb");
    column!(s, starts, t => t.run.last_event_id, "bigint");
    column!(s, starts, t => t.run.history_bytes, "bigint");
    column!(s, starts, t => t.run.timeout_at, "timestamptz");
    column!(s, starts, t => t.run.execution_expires_at, "timestamptz");
    column!(s, starts, t => t.run.wft_timeout_ms, "bigint");
    column!(s, starts, t => t.run.wft_state as i16, "smallint");
    column!(s, starts, t => t.run.wft_ready_at, "timestamptz");
    column!(s, starts, t => t.run.wft_started_at, "timestamptz");
    column!(s, starts, t => t.run.wft_due_at, "timestamptz");
    column!(s, starts, t => t.run.wft_process, "uuid");
    column!(s, starts, t => t.run.wft_identity.clone(), "text");
    column!(s, starts, t => recorded::history(&t.events), "bytea");
    s.rows_end(
        "run_id, workflow_id, workflow_type, task_queue, start_time, first_run_id, parent_workflow_id, parent_run_id, \
         parent_initiated_id, root_workflow_id, root_run_id, memo, search_attributes, attributes, last_event_id, \
         history_bytes, \
         timeout_at, expires_at, wft_timeout_ms, wft_state, wft_ready_at, wft_started_at, wft_due_at, wft_process, \
         wft_identity, data",
    );
    s.end(" where (k.run_id in (select run_id from started)) is true");
}

impl Store {
    /// Writes a start, unless the latest run of its workflow id is in the way.
    pub(crate) async fn start_run(&self, start: Box<Start>) -> Result<(Box<Start>, StartOutcome), sqlx::Error> {
        let workflow_id = start.run.workflow_id.clone();
        let (start, written) = self.writer.start(start).await?;
        if written {
            return Ok((start, StartOutcome::Started));
        }
        let mut lane = self.lanes.take().await?;
        let existing = sqlx::query_as("select run_id, status, request_id from engine.workflows where workflow_id = $1")
            .bind(workflow_id)
            .fetch_one(lane.connection())
            .await;
        Ok((start, StartOutcome::Exists(lane.finish(existing)?)))
    }
}
