//! Reading histories: in pages, waiting for news, or only the end.

use std::time::Duration;

use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    enums::v1::HistoryEventFilterType,
    history::v1::{History, HistoryEvent},
    workflowservice::v1::{
        GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryResponse,
        GetWorkflowExecutionHistoryReverseRequest, GetWorkflowExecutionHistoryReverseResponse,
    },
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    caller::Caller,
    clock::jittered,
    engine::Engine,
    history::workflow_task::events_in_flight,
    model::{Run, Target},
    proto::{self, db},
    token::HistoryToken,
};

/// Appends per page, at most.
const PAGE_BATCHES: i64 = 256;
/// Longest wait for news in one call; the client calls again.
const WAIT: Duration = Duration::from_secs(20);
/// Most that a lost wake-up costs.
const RECHECK: Duration = Duration::from_secs(5);

pub(super) async fn get(
    engine: &Engine,
    caller: &Caller,
    request: GetWorkflowExecutionHistoryRequest,
) -> Result<GetWorkflowExecutionHistoryResponse, Status> {
    let token = HistoryToken::read(&request.next_page_token)?;
    let closing = request.history_event_filter_type() == HistoryEventFilterType::CloseEvent;
    if closing
        && request.wait_new_event
        && let Some(response) = engine.coming_close_event(request.execution.as_ref(), caller).await
    {
        return Ok(response);
    }
    let run = match &token {
        Some(token) => token.run_id(),
        None => super::resolve(engine, request.execution.as_ref()).await?,
    };
    if closing {
        return engine.close_event(run, request.wait_new_event, caller).await;
    }
    let from = token.as_ref().map_or(1, |t| t.next_event_id);
    let worker = token.as_ref().is_some_and(|t| t.worker);
    let limit = usize::try_from(request.maximum_page_size).ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
    engine.page(run, from, worker, limit, request.wait_new_event, caller).await
}

fn response(events: Vec<HistoryEvent>, next_page_token: Vec<u8>) -> GetWorkflowExecutionHistoryResponse {
    GetWorkflowExecutionHistoryResponse { history: Some(History { events }), next_page_token, ..Default::default() }
}

/// Events of the task in flight that a reader may see: the reserved Started of a first attempt, or whatever its own
/// worker needs.
fn visible_in_flight(run: Option<&Run>, worker: bool) -> Vec<HistoryEvent> {
    run.filter(|r| worker || !r.task_is_transient()).map(events_in_flight).unwrap_or_default()
}

impl Engine {
    async fn page(
        &self,
        run: Uuid,
        from: i64,
        worker: bool,
        limit: usize,
        wait: bool,
        caller: &Caller,
    ) -> Result<GetWorkflowExecutionHistoryResponse, Status> {
        let deadline = tokio::time::Instant::now() + WAIT;
        let watch = self.inner.runs.watch(run);
        loop {
            let news = watch.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            // The run first: the next page finds what is appended between the two reads.
            let open = self.inner.store.load(&Target::Run(run)).await?.map(|l| l.run);
            let batches = self.inner.store.history(run, from - 1, PAGE_BATCHES).await?;
            let complete = i64::try_from(batches.len()).is_ok_and(|n| n < PAGE_BATCHES);
            let mut events: Vec<_> = proto::events(&batches)?.into_iter().filter(|e| e.event_id >= from).collect();
            if complete {
                let last = events.last().map_or(from - 1, |e| e.event_id);
                let reserved = visible_in_flight(open.as_ref(), worker);
                events.extend(reserved.into_iter().filter(|e| e.event_id > last));
            }
            let more = !complete || events.len() > limit;
            events.truncate(limit);
            let next = events.last().map_or(from, |e| e.event_id + 1);
            let waiting = wait && open.is_some();
            let token = if more || waiting { HistoryToken::encode(run, next, worker) } else { Vec::new() };
            if !events.is_empty() || !waiting || !self.wait_for(news, deadline, caller).await {
                return Ok(response(events, token));
            }
        }
    }

    /// The last event of a run that this process knows to be open, if it is closed here. None: look in the database.
    async fn coming_close_event(
        &self,
        execution: Option<&WorkflowExecution>,
        caller: &Caller,
    ) -> Option<GetWorkflowExecutionHistoryResponse> {
        let execution = execution?;
        let run = proto::run_id(&execution.run_id).ok()??;
        // Watch first, then look: what closes in between is seen.
        let watch = self.inner.closed.watch(run);
        let news = watch.notified();
        let mut news = std::pin::pin!(news);
        news.as_mut().enable();
        if !self.inner.hot.is_open(run, &execution.workflow_id) && !self.inner.deferred.has(run, &execution.workflow_id)
        {
            return None;
        }
        self.wait_for(news, tokio::time::Instant::now() + WAIT, caller).await;
        watch.last().and_then(|event| event.decode().ok()).map(|event| response(vec![event], Vec::new()))
    }

    /// The last event once the run has closed. Without waiting, the last event there is.
    async fn close_event(
        &self,
        run: Uuid,
        wait: bool,
        caller: &Caller,
    ) -> Result<GetWorkflowExecutionHistoryResponse, Status> {
        let deadline = tokio::time::Instant::now() + WAIT;
        let watch = self.inner.closed.watch(run);
        loop {
            let news = watch.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            if let Some(event) = watch.last() {
                return Ok(response(vec![event.decode()?], Vec::new()));
            }
            let mut lane = self.inner.store.lanes.take().await.map_err(db)?;
            let row = sqlx::query_as::<_, (bool, Option<Vec<u8>>)>(
                "select status = 1, case when status <> 1 or not $2 then
                    (select data from engine.history h where h.run_id = e.run_id order by first_event_id desc limit 1) end
                 from engine.executions e where run_id = $1",
            )
            .bind(run)
            .bind(wait)
            .fetch_one(lane.connection())
            .await;
            let (open, last) = lane.finish(row).map_err(db)?;
            if let Some(last) = last {
                let event = proto::events(&[last])?.pop();
                return Ok(response(event.into_iter().collect(), Vec::new()));
            }
            if !open || !self.wait_for(news, deadline, caller).await {
                return Ok(response(Vec::new(), HistoryToken::encode(run, 1, false)));
            }
        }
    }

    /// False: the time for this call is up.
    async fn wait_for(&self, news: impl Future<Output = ()>, deadline: tokio::time::Instant, caller: &Caller) -> bool {
        let mut stopped = self.inner.stopped.subscribe();
        tokio::select! {
            () = news => true,
            () = tokio::time::sleep(jittered(RECHECK)) => tokio::time::Instant::now() < deadline,
            () = tokio::time::sleep_until(deadline) => false,
            () = caller.gone() => false,
            _ = stopped.wait_for(|s| *s) => false,
        }
    }
}

pub(super) async fn get_reverse(
    engine: &Engine,
    _caller: &Caller,
    request: GetWorkflowExecutionHistoryReverseRequest,
) -> Result<GetWorkflowExecutionHistoryReverseResponse, Status> {
    let token = HistoryToken::read(&request.next_page_token)?;
    let run = match &token {
        Some(token) => token.run_id(),
        None => super::resolve(engine, request.execution.as_ref()).await?,
    };
    // Counts down: the token names the first event not yet delivered.
    let before = token.map_or(i64::MAX, |t| t.next_event_id);
    let limit = usize::try_from(request.maximum_page_size).ok().filter(|n| *n > 0).unwrap_or(1000);
    let batches: Vec<Vec<u8>> = sqlx::query_scalar(
        "select data from engine.history where run_id = $1 and first_event_id < $2 order by first_event_id desc limit $3",
    )
    .bind(run)
    .bind(before)
    .bind(PAGE_BATCHES)
    .fetch_all(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    let mut events: Vec<_> = proto::events(&batches)?.into_iter().filter(|e| e.event_id < before).collect();
    events.sort_by_key(|e| std::cmp::Reverse(e.event_id));
    events.truncate(limit);
    let last = events.last().map_or(1, |e| e.event_id);
    let next_page_token = if last > 1 { HistoryToken::encode(run, last, false) } else { Vec::new() };
    Ok(GetWorkflowExecutionHistoryReverseResponse { history: Some(History { events }), next_page_token })
}
