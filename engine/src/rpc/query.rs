//! Queries: asked here, answered by any worker that polls the run's task queue, in any process.
//!
//! The answer includes everything acknowledged before: the query goes along with the run's next workflow task, or, if none is in
//! progress, gets its own task. It is passed as a row (unlogged: after a crash the caller asks again).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use prost::Message;
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowType,
    enums::v1::{QueryRejectCondition, QueryResultType, WorkflowExecutionStatus},
    history::v1::{History, HistoryEvent, history_event::Attributes},
    query::v1::{QueryRejected, WorkflowQuery, WorkflowQueryResult},
    workflowservice::v1::{
        PollWorkflowTaskQueueResponse, QueryWorkflowRequest, QueryWorkflowResponse, RespondQueryTaskCompletedRequest,
        RespondQueryTaskCompletedResponse,
    },
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    caller::Caller,
    clock::jittered,
    engine::Engine,
    hint::Hint,
    matching::Kind,
    model::{Run, Target, TaskState},
    proto::{self, db},
    store::dispatch::FIRST_PAGE,
    token::{HistoryToken, TaskToken, TokenKind},
};

/// Longest wait for an answer; clients give a query 30 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);
/// Most that a lost wake-up costs.
const RECHECK: Duration = Duration::from_secs(1);
/// A query that has been with a worker for this long is asked again; after twice as long the next time.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// Time between the end of a task that took a query along and its answer.
const GRACE: Duration = Duration::from_millis(100);
/// From this attempt on, the workflow task is considered to be failing for good.
const FAILING_ATTEMPT: i32 = 3;

#[derive(sqlx::FromRow)]
struct Execution {
    status: i16,
    task_queue: String,
}

pub(super) async fn query(
    engine: &Engine,
    _caller: &Caller,
    request: QueryWorkflowRequest,
) -> Result<QueryWorkflowResponse, Status> {
    let run = super::resolve(engine, request.execution.as_ref()).await?;
    let query = request.query.clone().ok_or_else(|| Status::invalid_argument("query is not set"))?;
    proto::name(&query.query_type, "query.query_type")?;
    let execution: Execution = sqlx::query_as("select status, task_queue from engine.executions where run_id = $1")
        .bind(run)
        .fetch_one(&engine.inner.store.pool)
        .await
        .map_err(db)?;
    if let Some(rejected) = rejected(request.query_reject_condition(), execution.status) {
        return Ok(QueryWorkflowResponse { query_rejected: Some(rejected), ..Default::default() });
    }
    engine.flush(run).await;
    let id = Uuid::new_v4();
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, engine.ask(id, run, &execution.task_queue, &query)).await;
    engine.forget_query(id).await;
    let answer = answer.map_err(|_| Status::deadline_exceeded("no worker has answered the query in time"))??;
    if answer.completed_type() == QueryResultType::Failed {
        return Err(Status::invalid_argument(if answer.error_message.is_empty() {
            answer.failure.map_or_else(|| "query failed".to_owned(), |f| f.message)
        } else {
            answer.error_message
        }));
    }
    Ok(QueryWorkflowResponse { query_result: answer.query_result, ..Default::default() })
}

fn rejected(condition: QueryRejectCondition, status: i16) -> Option<QueryRejected> {
    let status = WorkflowExecutionStatus::try_from(i32::from(status)).unwrap_or(WorkflowExecutionStatus::Unspecified);
    let reject = match condition {
        QueryRejectCondition::NotOpen => status != WorkflowExecutionStatus::Running,
        QueryRejectCondition::NotCompletedCleanly => {
            !matches!(status, WorkflowExecutionStatus::Running | WorkflowExecutionStatus::Completed)
        }
        _ => false,
    };
    reject.then_some(QueryRejected { status: status as i32 })
}

impl Engine {
    /// Asks, and waits for the answer.
    async fn ask(
        &self,
        id: Uuid,
        run: Uuid,
        queue: &str,
        query: &WorkflowQuery,
    ) -> Result<RespondQueryTaskCompletedRequest, Status> {
        let (answers, runs) = (self.inner.queries.watch(id), self.inner.runs.watch(run));
        sqlx::query(
            "insert into engine.queries (query_id, run_id, task_queue, query, ready) values ($1, $2, $3, $4, false)",
        )
        .bind(id)
        .bind(run)
        .bind(queue)
        .bind(query.encode_to_vec())
        .execute(&self.inner.store.pool)
        .await
        .map_err(db)?;
        let (mut ready, mut patient) = (false, true);
        let (mut taken_at, mut patience) = (None, FIRST_PATIENCE);
        loop {
            let (answered, news) = (answers.notified(), runs.notified());
            let (mut answered, mut news) = (std::pin::pin!(answered), std::pin::pin!(news));
            answered.as_mut().enable();
            news.as_mut().enable();
            let (answer, taken) = self.answer(id).await?;
            if let Some(answer) = answer {
                return proto::stored(&answer);
            }
            taken_at = taken.then(|| taken_at.unwrap_or_else(Instant::now));
            if taken_at.is_some_and(|at: Instant| at.elapsed() > patience) {
                // Its task was lost, or its worker has dropped it for a newer task of the run.
                self.take_back_query(id).await?;
                (ready, patient, taken_at, patience) = (false, true, None, patience * 2);
                continue;
            }
            let mut wait = RECHECK;
            if !ready {
                if self.may_ask_alone(run).await? {
                    // A task that took the query along has just ended: its answer comes at once.
                    if taken && std::mem::take(&mut patient) {
                        wait = GRACE;
                    } else {
                        self.ask_alone(id, queue).await?;
                        ready = true;
                    }
                } else {
                    self.inner.matching.asked(run);
                    self.hint(Hint::Asked(run));
                }
            }
            tokio::select! {
                () = answered => {}
                () = news, if !ready => {}
                () = tokio::time::sleep(jittered(wait)) => {}
            }
        }
    }

    async fn answer(&self, id: Uuid) -> Result<(Option<Vec<u8>>, bool), Status> {
        sqlx::query_as("select answer, taken from engine.queries where query_id = $1")
            .bind(id)
            .fetch_optional(&self.inner.store.pool)
            .await
            .map_err(db)?
            .ok_or_else(|| Status::unavailable("the query was lost, ask again"))
    }

    /// Whether the run has no workflow task in progress: then the query's own task delivers everything.
    async fn may_ask_alone(&self, run: Uuid) -> Result<bool, Status> {
        match self.inner.store.load(&Target::Run(run)).await? {
            Some(loaded) if loaded.run.wft_state != TaskState::None => {
                if loaded.run.wft_attempt >= FAILING_ATTEMPT {
                    return Err(Status::failed_precondition("the workflow's task keeps failing, it cannot be queried"));
                }
                Ok(false)
            }
            _ if self.last_started(run).await? == 0 => {
                Err(Status::failed_precondition("the workflow has not completed a workflow task yet"))
            }
            _ => Ok(true),
        }
    }

    async fn take_back_query(&self, id: Uuid) -> Result<(), Status> {
        sqlx::query("update engine.queries set ready = false, taken = false where query_id = $1 and answer is null")
            .bind(id)
            .execute(&self.inner.store.pool)
            .await
            .map_err(db)?;
        Ok(())
    }

    async fn ask_alone(&self, id: Uuid, queue: &str) -> Result<(), Status> {
        sqlx::query("update engine.queries set ready = true, taken = false where query_id = $1 and answer is null")
            .bind(id)
            .execute(&self.inner.store.pool)
            .await
            .map_err(db)?;
        // Any poller may take it, and none may be waiting just now: all are told.
        self.inner.matching.query(queue);
        self.hint(Hint::Queue(Kind::Workflow, queue.to_owned()));
        Ok(())
    }

    /// Queries that go along with a workflow task of this run that is about to be handed out.
    pub(super) async fn queries_with_task(&self, run: &Run) -> Result<HashMap<String, WorkflowQuery>, Status> {
        // The first task answers none: queries come after it. Nor does one that is behind what has been acknowledged since.
        if run.previous_started_id == 0 || !self.inner.matching.take_asked(run.run_id) {
            return Ok(HashMap::new());
        }
        let taken: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
            "update engine.queries q set taken = true from engine.runs r
             where q.run_id = $1 and not q.taken and r.run_id = q.run_id and octet_length(r.buffered) = 0
             returning q.query_id, q.query",
        )
        .bind(run.run_id)
        .fetch_all(&self.inner.store.pool)
        .await
        .map_err(db)?;
        taken.into_iter().map(|(id, query)| Ok((id.to_string(), proto::stored(&query)?))).collect()
    }

    /// Answers that came with the completion of a workflow task.
    pub(super) async fn answer_queries(&self, answers: HashMap<String, WorkflowQueryResult>) -> Result<(), Status> {
        for (id, result) in answers {
            let Ok(id) = Uuid::parse_str(&id) else { continue };
            let answer = RespondQueryTaskCompletedRequest {
                completed_type: result.result_type,
                query_result: result.answer,
                error_message: result.error_message,
                failure: result.failure,
                ..Default::default()
            };
            self.store_answer(id, &answer).await?;
        }
        Ok(())
    }

    /// False: nobody waits for it any more.
    async fn store_answer(&self, id: Uuid, answer: &RespondQueryTaskCompletedRequest) -> Result<bool, Status> {
        let answered = sqlx::query("update engine.queries set answer = $2 where query_id = $1 and answer is null")
            .bind(id)
            .bind(answer.encode_to_vec())
            .execute(&self.inner.store.pool)
            .await
            .map_err(db)?;
        self.inner.queries.wake(id);
        self.hint(Hint::Query(id));
        Ok(answered.rows_affected() == 1)
    }

    async fn forget_query(&self, id: Uuid) {
        // Older ones belong to callers that died.
        let swept = sqlx::query(
            "delete from engine.queries where query_id = $1 or asked_at < clock_timestamp() - interval '5 minutes'",
        )
        .bind(id)
        .execute(&self.inner.store.pool)
        .await;
        if let Err(error) = swept {
            tracing::debug!(%error, "query not removed");
        }
    }

    /// A waiting query of this queue, as a task: the whole history and the question.
    pub(super) async fn next_query_task(&self, queue: &str) -> Result<Option<PollWorkflowTaskQueueResponse>, Status> {
        if !self.inner.matching.has_queries(queue) {
            return Ok(None);
        }
        let taken: Option<(Uuid, Uuid, Vec<u8>)> = sqlx::query_as(
            "update engine.queries set taken = true where query_id = (
                select query_id from engine.queries where not taken and ready and task_queue = $1
                order by asked_at limit 1 for update skip locked)
             returning query_id, run_id, query",
        )
        .bind(queue)
        .fetch_optional(&self.inner.store.pool)
        .await
        .map_err(db)?;
        let Some((id, run, query)) = taken else { return Ok(None) };
        self.query_task(id, run, proto::stored(&query)?).await
    }

    async fn query_task(
        &self,
        id: Uuid,
        run: Uuid,
        query: WorkflowQuery,
    ) -> Result<Option<PollWorkflowTaskQueueResponse>, Status> {
        let row: Option<(String, String, String)> =
            sqlx::query_as("select workflow_id, workflow_type, task_queue from engine.executions where run_id = $1")
                .bind(run)
                .fetch_optional(&self.inner.store.pool)
                .await
                .map_err(db)?;
        let Some((workflow_id, workflow_type, task_queue)) = row else { return Ok(None) };
        let batches = self.inner.store.history(run, 0, FIRST_PAGE).await?;
        let complete = i64::try_from(batches.len()).is_ok_and(|n| n < FIRST_PAGE);
        let events = proto::events(&batches)?;
        let started = self.last_started(run).await?;
        let next = events.last().map_or(1, |e| e.event_id + 1);
        Ok(Some(PollWorkflowTaskQueueResponse {
            task_token: TaskToken::encode(TokenKind::Query, id, 0, 1),
            workflow_execution: Some(proto::execution(&workflow_id, run)),
            workflow_type: Some(WorkflowType { name: workflow_type }),
            previous_started_event_id: started,
            started_event_id: started,
            attempt: 1,
            history: Some(History { events }),
            next_page_token: if complete { Vec::new() } else { HistoryToken::encode(run, next, true) },
            workflow_execution_task_queue: Some(proto::queue(&task_queue)),
            query: Some(query),
            ..Default::default()
        }))
    }

    /// Started event of the last workflow task that was completed.
    async fn last_started(&self, run: Uuid) -> Result<i64, Status> {
        if let Some(loaded) = self.inner.store.load(&Target::Run(run)).await? {
            return Ok(loaded.run.previous_started_id);
        }
        let tail: Vec<Vec<u8>> = sqlx::query_scalar(
            "select data from engine.history where run_id = $1 order by first_event_id desc limit 16",
        )
        .bind(run)
        .fetch_all(&self.inner.store.pool)
        .await
        .map_err(db)?;
        let started = |e: &HistoryEvent| match &e.attributes {
            Some(Attributes::WorkflowTaskCompletedEventAttributes(a)) => Some(a.started_event_id),
            _ => None,
        };
        Ok(proto::events(&tail)?.iter().filter_map(started).max().unwrap_or(0))
    }
}

pub(super) async fn respond(
    engine: &Engine,
    _caller: &Caller,
    request: RespondQueryTaskCompletedRequest,
) -> Result<RespondQueryTaskCompletedResponse, Status> {
    let id = TaskToken::read(&request.task_token, TokenKind::Query)?.run_id();
    if !engine.store_answer(id, &request).await? {
        return Err(Status::not_found("query not found: its caller has gone"));
    }
    Ok(RespondQueryTaskCompletedResponse::default())
}
