//! A case, and what can be observed of it on an engine.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use serde_json::{Value, json};
use temporalio_client::{
    Client, UntypedQuery, UntypedSignal, UntypedUpdate, UntypedWorkflowHandle, WorkflowCancelOptions,
    WorkflowExecuteUpdateOptions, WorkflowGetResultOptions, WorkflowQueryOptions, WorkflowSignalOptions,
    WorkflowStartOptions, WorkflowTerminateOptions, tonic::IntoRequest as _,
};
use temporalio_common::{
    UntypedWorkflow,
    data_converters::{PayloadConverter, RawValue},
    protos::temporal::api::{
        common::v1::WorkflowExecution,
        history::v1::{HistoryEvent, history_event::Attributes},
        workflowservice::v1::{
            DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse, GetWorkflowExecutionHistoryRequest,
            ResetWorkflowExecutionRequest,
        },
    },
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    backend::{Backend, NAMESPACE, QUEUE},
    normal::{self, Ids},
    program::{Input, Op},
    script::Script,
};

/// Longest wait for anything in a case.
const PATIENCE: Duration = Duration::from_secs(60);

/// What people do while the workflow runs; what they see is compared too.
pub type People = fn(Meanwhile) -> BoxFuture<'static, Value>;

/// A program, and what people do meanwhile.
pub struct Case {
    pub name: String,
    pub op: Op,
    pub people: People,
    pub options: fn(WorkflowStartOptions) -> WorkflowStartOptions,
    /// Compared by causal chain, since task boundaries depend on timing.
    pub loose: bool,
}

/// A case that nobody disturbs.
pub fn case(name: &str, op: Op) -> Case {
    let people: People = |_| Box::pin(async { Value::Null });
    Case { name: name.to_owned(), op, people, options: |options| options, loose: false }
}

impl Case {
    pub fn with(self, people: People) -> Self {
        Self { people, ..self }
    }
    pub fn started_with(self, options: fn(WorkflowStartOptions) -> WorkflowStartOptions) -> Self {
        Self { options, ..self }
    }
    pub fn loosely(self) -> Self {
        Self { loose: true, ..self }
    }

    /// Runs it and tells what was seen.
    pub async fn run(&self, backend: &Backend) -> Result<Seen, String> {
        let observed = timeout(PATIENCE * 2, std::panic::AssertUnwindSafe(self.observe(backend)).catch_unwind()).await;
        match observed {
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(_)) => Err(format!("{}: panicked, see above", backend.name)),
            Err(_) => Err(format!("{}: not within {:?}", backend.name, PATIENCE * 2)),
        }
    }

    async fn observe(&self, backend: &Backend) -> Seen {
        let id = format!("case-{}", self.name.replace(' ', "-"));
        let options = (self.options)(WorkflowStartOptions::new(QUEUE, id.as_str()).build());
        let input = Input { prefix: id.clone(), op: self.op.clone() };
        let handle = backend.client.start_workflow(Script::run, input, options).await.unwrap();
        let first_run = handle.run_id().unwrap_or_default().to_owned();
        let meanwhile = Meanwhile { client: backend.client.clone(), id: id.clone(), resets: Arc::default() };
        let people = (self.people)(meanwhile.clone()).await;
        let result = match timeout(PATIENCE, handle.get_result(WorkflowGetResultOptions::default())).await {
            Ok(Ok(value)) => json!({ "completed": value }),
            Ok(Err(error)) => json!({ "error": errors(&error) }),
            Err(_) => json!("no result in time"),
        };
        let mut ids = Ids::default();
        let mut runs = Vec::new();
        let resets = std::mem::take(&mut *meanwhile.resets.lock().unwrap());
        let first = std::iter::once(first_run).chain(resets).map(|run| (id.clone(), run));
        let mut found = all_runs(&meanwhile, first.collect()).await;
        found.sort_by(|one, two| one.0.cmp(&two.0));
        found.iter().for_each(|(_, run, _)| ids.name(run));
        for (workflow, run, events) in found {
            // The history may be there before the answer has reached the worker.
            let completed = |event: &&HistoryEvent| camel(event.event_type().as_str_name()) == "WorkflowTaskCompleted";
            let completed = events.iter().filter(completed).count();
            let deadline = Instant::now() + Duration::from_secs(3);
            while backend.recorder.completed(&run) < completed && Instant::now() < deadline {
                sleep(Duration::from_millis(10)).await;
            }
            let commands = backend.recorder.commands(&run);
            let events = events.iter().map(|event| normal::event(event, &mut ids)).collect();
            let commands = commands.iter().map(|command| normal::command(command, &mut ids)).collect();
            runs.push(RunSeen { workflow, events, commands });
        }
        let result = normal::cleaned(result, &mut ids);
        Seen { people: normal::cleaned(people, &mut ids), result, runs }
    }
}

/// An error with its causes.
pub fn errors(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

/// Everything of a case that has to be equal.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub people: Value,
    pub result: Value,
    pub runs: Vec<RunSeen>,
}

/// A run, as it is compared.
#[derive(Debug, PartialEq)]
pub struct RunSeen {
    pub workflow: String,
    pub events: Vec<Value>,
    pub commands: Vec<Value>,
}

impl Seen {
    /// The first difference, for people.
    pub fn difference(&self, other: &Self, loose: bool) -> Option<String> {
        let differs = |what: &str, one: &Value, two: &Value| Some(format!("{what}:\n  {one}\n  {two}"));
        if self.people != other.people {
            return differs("what people saw", &self.people, &other.people);
        }
        if self.result != other.result {
            return differs("result", &self.result, &other.result);
        }
        if self.runs.len() != other.runs.len() {
            let names = |seen: &Self| seen.runs.iter().map(|run| run.workflow.clone()).collect::<Vec<_>>();
            return Some(format!("runs: {:?} and {:?}", names(self), names(other)));
        }
        self.runs.iter().zip(&other.runs).find_map(|(one, two)| one.difference(two, loose))
    }
}

impl RunSeen {
    fn difference(&self, other: &Self, loose: bool) -> Option<String> {
        let name = &self.workflow;
        if loose {
            let (one, two) = (normal::chains(&self.events), normal::chains(&other.events));
            let subjects: BTreeSet<_> = one.keys().chain(two.keys()).collect();
            return subjects.into_iter().find_map(|subject| {
                let none = Vec::new();
                let (one, two) = (one.get(subject).unwrap_or(&none), two.get(subject).unwrap_or(&none));
                unequal(&format!("{name}, {subject}"), one, two)
            });
        }
        unequal(&format!("{name}, event"), &self.events, &other.events)
            .or_else(|| unequal(&format!("{name}, command"), &self.commands, &other.commands))
    }
}

/// Where two lists differ: what kinds there are, when those differ already, else the fields.
fn unequal(what: &str, one: &[Value], two: &[Value]) -> Option<String> {
    let kind = |value: &Value| value["event"].as_str().or(value["command"].as_str()).unwrap_or("?").to_owned();
    let kinds = |list: &[Value]| list.iter().map(kind).collect::<Vec<_>>();
    let (kinds_one, kinds_two) = (kinds(one), kinds(two));
    if kinds_one != kinds_two {
        return Some(format!("{what}s:\n  {}\n  {}", kinds_one.join(" "), kinds_two.join(" ")));
    }
    let mut fields = Vec::new();
    for (at, (one, two)) in one.iter().zip(two).enumerate() {
        differing(&format!("{what} {} {}", at + 1, kind(one)), one, two, &mut fields);
    }
    (!fields.is_empty()).then(|| fields.join("\n"))
}

fn differing(path: &str, one: &Value, two: &Value, found: &mut Vec<String>) {
    match (one, two) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let none = Value::Null;
                let (one, two) = (a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none));
                differing(&format!("{path}.{key}"), one, two, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (one, two)) in a.iter().zip(b).enumerate() {
                differing(&format!("{path}[{at}]"), one, two, found);
            }
        }
        (one, two) if one != two => found.push(format!("{path}: {one} | {two}")),
        _ => {}
    }
}

/// Every run that belongs to the case, in the order in which they are found from the first.
async fn all_runs(
    meanwhile: &Meanwhile,
    mut to_see: VecDeque<(String, String)>,
) -> Vec<(String, String, Vec<HistoryEvent>)> {
    let (mut found, mut known) = (Vec::new(), BTreeSet::new());
    while let Some((workflow, run)) = to_see.pop_front() {
        if run.is_empty() || !known.insert(run.clone()) {
            continue;
        }
        let events = meanwhile.settled(&workflow, &run).await;
        for event in &events {
            to_see.extend(next_runs(&workflow, event));
        }
        found.push((workflow, run, events));
    }
    found
}

fn next_runs(workflow: &str, event: &HistoryEvent) -> Option<(String, String)> {
    let same = |run: &String| Some((workflow.to_owned(), run.clone()));
    match event.attributes.as_ref()? {
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(a) => same(&a.new_execution_run_id),
        Attributes::WorkflowTaskFailedEventAttributes(a) => same(&a.new_run_id),
        Attributes::ChildWorkflowExecutionStartedEventAttributes(a) => {
            a.workflow_execution.as_ref().map(|child| (child.workflow_id.clone(), child.run_id.clone()))
        }
        _ => None,
    }
}

/// The hands and eyes of people.
#[derive(Clone)]
pub struct Meanwhile {
    pub client: Client,
    pub id: String,
    /// Runs that a reset has made.
    pub resets: Arc<Mutex<Vec<String>>>,
}

impl Meanwhile {
    pub fn handle(&self) -> UntypedWorkflowHandle<Client> {
        self.client.get_workflow_handle::<UntypedWorkflow>(self.id.as_str())
    }

    pub async fn signal(&self, value: impl Into<Value>) {
        let handle = self.handle();
        handle.signal(UntypedSignal::new("signal"), raw(value), WorkflowSignalOptions::default()).await.unwrap();
    }

    pub async fn cancel(&self) {
        self.handle().cancel(WorkflowCancelOptions::default()).await.unwrap();
    }

    pub async fn terminate(&self, reason: &str) {
        let options = WorkflowTerminateOptions::builder().reason(reason.to_owned()).build();
        self.handle().terminate(options).await.unwrap();
    }

    /// Resets the current run to before the end of its workflow task that ended at `event_id`.
    pub async fn reset(&self, event_id: i64) {
        let request = ResetWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_execution: Some(execution(&self.id, "")),
            reason: "again".to_owned(),
            workflow_task_finish_event_id: event_id,
            request_id: uuid::Uuid::new_v4().to_string(),
            ..Default::default()
        };
        let mut service = self.client.connection().workflow_service();
        let answer = service.reset_workflow_execution(request.into_request()).await.unwrap();
        self.resets.lock().unwrap().push(answer.into_inner().run_id);
    }

    /// The answer, or the error in words.
    pub async fn query(&self, name: &str) -> Value {
        let handle = self.handle();
        match handle.query(UntypedQuery::new(name), raw(Value::Null), WorkflowQueryOptions::default()).await {
            Ok(answer) => json(&answer),
            Err(error) => json!({ "error": errors(&error) }),
        }
    }

    /// The outcome, or the error in words.
    pub async fn update(&self, name: &str, id: &str, value: impl Into<Value>) -> Value {
        let options = WorkflowExecuteUpdateOptions::builder().update_id(id.to_owned()).build();
        match self.handle().execute_update(UntypedUpdate::new(name), raw(value), options).await {
            Ok(answer) => json(&answer),
            Err(error) => json!({ "error": errors(&error) }),
        }
    }

    /// Waits until the current run's history has `count` events of a type, such as `TimerStarted`.
    pub async fn until(&self, event_type: &str, count: usize) {
        self.wait(&format!("{count} of {event_type}"), || async {
            let events = self.history(&self.id, "").await;
            let kind = |event: &&HistoryEvent| camel(event.event_type().as_str_name()) == event_type;
            events.iter().filter(kind).count() >= count
        })
        .await;
    }

    /// Waits until no workflow task is under way and the history does not grow.
    pub async fn at_rest(&self) {
        let mut length = 0;
        loop {
            let description = self.describe(&self.id, "").await;
            let now = description.workflow_execution_info.as_ref().map_or(0, |info| info.history_length);
            let closed = description.workflow_execution_info.as_ref().is_some_and(|info| info.close_time.is_some());
            if closed || description.pending_workflow_task.is_none() && now > 2 && now == length {
                return;
            }
            length = now;
            sleep(Duration::from_millis(40)).await;
        }
    }

    /// Like [`Meanwhile::at_rest`], and no activity, child or timer is open.
    pub async fn quiescent(&self) {
        self.wait("quiescence", || async {
            self.at_rest().await;
            let description = self.describe(&self.id, "").await;
            let events = self.history(&self.id, "").await;
            let length = description.workflow_execution_info.as_ref().map_or(0, |info| info.history_length);
            if description.pending_workflow_task.is_some() || i64::try_from(events.len()) != Ok(length) {
                return false;
            }
            let count = |kinds: &[&str]| {
                events.iter().filter(|event| kinds.contains(&camel(event.event_type().as_str_name()).as_str())).count()
            };
            let timers = count(&["TimerStarted"]) - count(&["TimerFired", "TimerCanceled"]);
            description.pending_activities.is_empty() && description.pending_children.is_empty() && timers == 0
        })
        .await;
    }

    pub async fn wait<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < deadline, "{}: not within {PATIENCE:?}: {what}", self.id);
            sleep(Duration::from_millis(40)).await;
        }
    }

    /// A run's history.
    pub async fn history(&self, workflow: &str, run: &str) -> Vec<HistoryEvent> {
        let (mut events, mut next_page_token) = (Vec::new(), Vec::new());
        loop {
            let request = GetWorkflowExecutionHistoryRequest {
                namespace: NAMESPACE.to_owned(),
                execution: Some(execution(workflow, run)),
                next_page_token,
                ..Default::default()
            };
            let mut service = self.client.connection().workflow_service();
            let answer = service.get_workflow_execution_history(request.into_request()).await.unwrap().into_inner();
            events.extend(answer.history.unwrap_or_default().events);
            if answer.next_page_token.is_empty() {
                return events;
            }
            next_page_token = answer.next_page_token;
        }
    }

    pub async fn describe(&self, workflow: &str, run: &str) -> DescribeWorkflowExecutionResponse {
        let execution = Some(execution(workflow, run));
        let request = DescribeWorkflowExecutionRequest { namespace: NAMESPACE.to_owned(), execution };
        let mut service = self.client.connection().workflow_service();
        service.describe_workflow_execution(request.into_request()).await.unwrap().into_inner()
    }

    /// The history of a run that is closed, or will not go on by itself.
    async fn settled(&self, workflow: &str, run: &str) -> Vec<HistoryEvent> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut length = 0;
        loop {
            let description = self.describe(workflow, run).await;
            let info = description.workflow_execution_info.unwrap_or_default();
            let rests = description.pending_workflow_task.is_none() && info.history_length == length && length > 2;
            if info.close_time.is_some() || rests || Instant::now() > deadline {
                return self.history(workflow, run).await;
            }
            length = info.history_length;
            sleep(Duration::from_millis(300)).await;
        }
    }
}

fn execution(workflow: &str, run: &str) -> WorkflowExecution {
    WorkflowExecution { workflow_id: workflow.to_owned(), run_id: run.to_owned() }
}

pub fn raw(value: impl Into<Value>) -> RawValue {
    RawValue::from_value(&value.into(), &PayloadConverter::serde_json())
}

fn json(raw: &RawValue) -> Value {
    raw.payloads.first().map_or(Value::Null, |payload| serde_json::from_slice(&payload.data).unwrap_or_default())
}

/// `EVENT_TYPE_TIMER_FIRED` -> `TimerFired`.
pub fn camel(name: &str) -> String {
    let words = name.trim_start_matches("EVENT_TYPE_").split('_');
    words.map(|word| word[..1].to_owned() + &word[1..].to_lowercase()).collect()
}
