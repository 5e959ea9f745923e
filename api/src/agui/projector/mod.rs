//! From the events of a live log to those of AG-UI: a state machine without a clock, a database or a choice.
//!
//! Invariants, for every log and every beginning of it: the first event of a run is `RUN_STARTED` and its last `RUN_FINISHED` or `RUN_ERROR`;
//! between runs there is nothing; messages, reasoning and tool calls that are open are closed before a run ends. After the end of a
//! turn nothing is remembered, so that a projector may start there.

mod calls;
pub(crate) mod frames;
mod held;

use std::collections::BTreeMap;

use ambient_wire::{
    live::Event,
    runner_event::{
        PermissionRequest, RunnerEvent, ToolChange, TurnOutcome, TurnResult, Usage, UsageSource, content_in_words,
    },
};
use serde_json::{Value, json};

use calls::Calls;
use frames::OURS;
use held::Held;

/// Most models whose usage is told apart.
const MAX_MODELS: usize = 32;

/// What has happened, as far as it concerns AG-UI.
#[derive(Debug, Clone)]
struct Happened {
    what: What,
    /// When, milliseconds since 1970.
    at: i64,
    /// Approximate size in bytes.
    size: usize,
}

#[derive(Debug, Clone)]
enum What {
    /// A person's message.
    Said { id: String, text: String },
    /// What a runner recorded, and as it is stored.
    Recorded(Box<RunnerEvent>, Value),
    /// The session's run is over, or the session is deleted.
    Over { code: String, message: String },
}

impl Happened {
    fn read(event: &Event) -> Option<Self> {
        let data = &event.data;
        let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
        let what = match event.event_type.as_str() {
            "user.message" => What::Said { id: text("message_id"), text: text("text") },
            "session.phase" if matches!(data["phase"].as_str(), Some("Stopped" | "Completed" | "Failed")) => {
                What::Over { code: text("reason"), message: text("message") }
            }
            "session.deleted" => {
                What::Over { code: "Deleted".to_owned(), message: "the session was deleted".to_owned() }
            }
            session if session.starts_with("session.") => return None,
            _ => What::Recorded(Box::new(RunnerEvent::read(data)?), data.clone()),
        };
        let size = if let What::Over { .. } = what { 0 } else { data.to_string().len() };
        Some(Self { what, at: event.at.timestamp_millis(), size })
    }

    /// Whether it closes a request.
    fn closes(&self, request: &PermissionRequest) -> bool {
        let What::Recorded(event, _) = &self.what else { return false };
        matches!(&**event, RunnerEvent::PermissionClosed { interrupt_id, .. } if *interrupt_id == request.interrupt_id)
    }

    /// What runs begin and end with.
    fn is_structure(&self) -> bool {
        let What::Recorded(event, _) = &self.what else { return false };
        matches!(
            **event,
            RunnerEvent::PermissionRequested { .. }
                | RunnerEvent::PermissionClosed { .. }
                | RunnerEvent::TurnResult { .. }
        )
    }
}

/// Where it is between runs.
#[derive(Debug, Default)]
enum State {
    /// No turn.
    #[default]
    Idle,
    /// In a run.
    Running(Turn),
    /// The turn's last run has ended with an interrupt, which is still open.
    Waiting(Turn, Box<PermissionRequest>),
}

/// A turn, over its runs.
#[derive(Debug, Default)]
struct Turn {
    id: String,
    message_id: String,
    /// Number of the run in the turn, from 1.
    run: u32,
    result: Option<(TurnResult, String)>,
    calls: Calls,
    open: Option<Open>,
    /// By the runner's proxy, by model; and the last that the agent said.
    counted: BTreeMap<String, Usage>,
    told: BTreeMap<String, Usage>,
}

/// A message that is being said or thought.
#[derive(Debug, PartialEq, Eq)]
enum Open {
    Text(String),
    Thought(String),
}

/// Makes AG-UI's events of a session's, in their order.
#[derive(Debug)]
pub(crate) struct Projector {
    thread: String,
    state: State,
    held: Held,
    told: Vec<Value>,
    at: i64,
}

impl Projector {
    /// At the beginning of a session's log, or after the end of a turn in it.
    pub(crate) fn new(session_id: &str) -> Self {
        Self { thread: session_id.to_owned(), state: State::Idle, held: Held::default(), told: Vec::new(), at: 0 }
    }

    /// The AG-UI events that an event gives.
    pub(crate) fn take(&mut self, event: &Event) -> Vec<Value> {
        if let Some(happened) = Happened::read(event) {
            self.at = event.at.timestamp_millis();
            self.step(happened);
        }
        std::mem::take(&mut self.told)
    }

    /// For a reader that has seen nothing of the run in progress: begins it anew. What is open is opened again by its next piece. An interrupt
    /// that is still open is told again.
    pub(crate) fn reenter(&mut self) -> Vec<Value> {
        match &mut self.state {
            State::Idle => {}
            State::Running(turn) => {
                turn.close();
                let started = turn.started(&self.thread);
                self.tell(started);
            }
            State::Waiting(turn, request) => {
                let run = [turn.started(&self.thread), turn.interrupted(&self.thread, request)];
                self.tell_all(run.into());
            }
        }
        std::mem::take(&mut self.told)
    }

    fn tell(&mut self, mut event: Value) {
        event["timestamp"] = self.at.into();
        self.told.push(event);
    }

    fn tell_all(&mut self, events: Vec<Value>) {
        events.into_iter().for_each(|event| self.tell(event));
    }

    fn step(&mut self, happened: Happened) {
        let state = std::mem::take(&mut self.state);
        self.state = match &happened.what {
            What::Over { code, message } => {
                let message =
                    if message.is_empty() { format!("the session's run has ended: {code}") } else { message.clone() };
                let error = json!({ "type": "RUN_ERROR", "message": message, "code": code });
                self.finish(state, |_, _| error);
                State::Idle
            }
            What::Recorded(event, _) => match &**event {
                RunnerEvent::TurnStarted { turn_id, message_id } => {
                    let turn = Turn { id: turn_id.clone(), message_id: message_id.clone(), ..Turn::default() };
                    if !matches!(state, State::Idle) {
                        let error =
                            json!({ "type": "RUN_ERROR", "message": "the turn has no end", "code": "RunnerLost" });
                        self.finish(state, |_, _| error);
                    }
                    self.begin(turn)
                }
                RunnerEvent::TurnEnded { result, .. } => {
                    self.finish(state, |turn, thread| turn.finished(thread, result));
                    State::Idle
                }
                _ => self.within(state, happened),
            },
            What::Said { .. } => self.within(state, happened),
        };
    }

    /// What neither begins nor ends a turn.
    fn within(&mut self, state: State, happened: Happened) -> State {
        match state {
            State::Idle => {
                // Of a turn that has ended nothing is asked.
                if !happened.is_structure() {
                    self.held.push(happened);
                }
                State::Idle
            }
            State::Running(turn) => self.run(turn, happened),
            State::Waiting(turn, request) => {
                if !happened.closes(&request) {
                    self.held.push(happened);
                    return State::Waiting(turn, request);
                }
                self.state = self.begin(turn);
                self.step(happened);
                std::mem::take(&mut self.state)
            }
        }
    }

    /// Ends a turn, if there is one, whatever its requests wait for. What was held for further runs is told in them first.
    fn finish(&mut self, mut state: State, last: impl FnOnce(&Turn, &str) -> Value) {
        loop {
            match state {
                State::Idle => break,
                State::Waiting(turn, _) => state = self.begin(turn),
                State::Running(mut turn) => {
                    let open = turn.close();
                    self.tell_all(open);
                    let last = last(&turn, &self.thread);
                    self.tell(last);
                    break;
                }
            }
        }
        self.held.clear();
    }

    /// Begins the next run of a turn, with what was held.
    fn begin(&mut self, mut turn: Turn) -> State {
        turn.run += 1;
        let started = turn.started(&self.thread);
        self.tell(started);
        let (held, left_out) = self.held.take();
        if left_out > 0 {
            self.tell(frames::custom("omitted", &json!({ "events": left_out })));
        }
        self.state = State::Running(turn);
        let now = self.at;
        for happened in held {
            self.at = happened.at;
            self.step(happened);
        }
        self.at = now;
        std::mem::take(&mut self.state)
    }

    /// Something that happens in a run.
    fn run(&mut self, mut turn: Turn, happened: Happened) -> State {
        match happened.what {
            What::Said { id, text } => {
                let closed = turn.close_message();
                self.tell_all(closed);
                self.tell(frames::message_start(&id, "user"));
                self.tell(frames::piece("TEXT_MESSAGE_CONTENT", "messageId", &id, &text));
                self.tell(frames::of("TEXT_MESSAGE_END", "messageId", &id));
            }
            What::Recorded(event, data) => match *event {
                RunnerEvent::PermissionRequested { request } => return self.interrupt(turn, request),
                RunnerEvent::TurnResult { result, message, .. } => turn.result = Some((result, message)),
                RunnerEvent::Usage { source, model, usage, .. } => turn.spend(source, model, &usage),
                event => {
                    let told = turn.show(event, &data);
                    self.tell_all(told);
                }
            },
            What::Over { .. } => {}
        }
        State::Running(turn)
    }

    fn interrupt(&mut self, mut turn: Turn, request: PermissionRequest) -> State {
        let open = turn.close();
        self.tell_all(open);
        let interrupted = turn.interrupted(&self.thread, &request);
        self.tell(interrupted);
        State::Waiting(turn, Box::new(request))
    }
}

impl Turn {
    fn run_id(&self) -> String {
        if self.run == 1 { self.id.clone() } else { format!("{}#{}", self.id, self.run) }
    }

    fn started(&self, thread: &str) -> Value {
        let ours = json!({ "turnId": self.id, "messageId": self.message_id, "run": self.run });
        json!({
            "type": "RUN_STARTED", "threadId": thread, "runId": self.run_id(), "protocolVersion": frames::PROTOCOL,
            "metadata": { OURS: ours },
        })
    }

    fn interrupted(&self, thread: &str, request: &PermissionRequest) -> Value {
        let outcome = json!({ "type": "interrupt", "interrupts": [frames::interrupt(request)] });
        json!({ "type": "RUN_FINISHED", "threadId": thread, "runId": self.run_id(), "outcome": outcome })
    }

    /// The last event of a turn.
    fn finished(&self, thread: &str, result: &TurnResult) -> Value {
        let code = result.code.as_deref().unwrap_or_default();
        let message = self.result.as_ref().map(|(_, message)| message.as_str()).unwrap_or_default();
        let mut event = match result.outcome {
            TurnOutcome::Finished => json!({ "type": "RUN_FINISHED", "outcome": { "type": "success" } }),
            TurnOutcome::Interrupted if code != "RunnerLost" => {
                json!({ "type": "RUN_FINISHED", "outcome": { "type": "cancelled" } })
            }
            TurnOutcome::Interrupted | TurnOutcome::Error => {
                let message = if message.is_empty() { format!("the turn failed: {code}") } else { message.to_owned() };
                json!({ "type": "RUN_ERROR", "message": message, "code": code })
            }
        };
        if event["type"] == "RUN_FINISHED" {
            event["threadId"] = thread.into();
            event["runId"] = self.run_id().into();
            if let Some(stop_reason) = &result.stop_reason {
                event["result"] = json!({ "stopReason": stop_reason });
            }
        }
        let figures = if self.counted.is_empty() { &self.told } else { &self.counted };
        if !figures.is_empty() {
            event["usage"] = figures.iter().map(|(model, usage)| frames::usage(model, usage)).collect();
        }
        event
    }

    fn close(&mut self) -> Vec<Value> {
        let mut closed = self.close_message();
        closed.extend(self.calls.close());
        closed
    }

    fn close_message(&mut self) -> Vec<Value> {
        match self.open.take() {
            Some(Open::Text(id)) => vec![frames::of("TEXT_MESSAGE_END", "messageId", &id)],
            Some(Open::Thought(id)) => {
                ["REASONING_MESSAGE_END", "REASONING_END"].map(|end| frames::of(end, "messageId", &id)).into()
            }
            None => Vec::new(),
        }
    }

    fn show(&mut self, event: RunnerEvent, data: &Value) -> Vec<Value> {
        match event {
            RunnerEvent::AgentText { message_id, text } => self.say(&message_id, &text),
            RunnerEvent::AgentContent { message_id, content } => self.say(&message_id, &content_in_words(&content)),
            RunnerEvent::AgentThought { message_id, text } => self.think(&message_id, &text),
            RunnerEvent::AgentPlan { entries } => vec![json!({
                "type": "ACTIVITY_SNAPSHOT", "messageId": format!("{}/plan", self.id), "activityType": "plan",
                "content": { "entries": entries }, "replace": true,
            })],
            RunnerEvent::ToolStarted { tool_call_id, title, kind, status, input, content, .. } => {
                let mut told = self.close_message();
                let Some(started) = self.calls.start(&tool_call_id, kind, &title) else {
                    told.push(frames::custom("tool.started", data));
                    return told;
                };
                told.push(started);
                let change = ToolChange {
                    status: Some(status),
                    input: Some(input),
                    content: Some(content),
                    ..ToolChange::default()
                };
                told.extend(self.calls.change(&tool_call_id, &change));
                told
            }
            RunnerEvent::ToolUpdated { tool_call_id, change } => {
                let mut told = self.calls.change(&tool_call_id, &change);
                let ToolChange { title, kind, content, locations, .. } = change;
                if title.is_some() || kind.is_some() || content.is_some() || locations.is_some() {
                    told.push(frames::custom("tool.updated", data));
                }
                told
            }
            RunnerEvent::AttemptStarted { .. }
            | RunnerEvent::MessageAccepted { .. }
            | RunnerEvent::RunnerExited { .. } => Vec::new(),
            other => {
                // The type in today's words, whatever is stored.
                let value = serde_json::to_value(&other).unwrap_or_default();
                let event_type = value["type"].as_str().unwrap_or_default().to_owned();
                vec![frames::custom(&event_type, &value)]
            }
        }
    }

    fn say(&mut self, id: &str, text: &str) -> Vec<Value> {
        let next = Open::Text(id.to_owned());
        let mut told = Vec::new();
        if self.open.as_ref() != Some(&next) {
            told = self.close_message();
            told.push(frames::message_start(id, "assistant"));
            self.open = Some(next);
        }
        told.push(frames::piece("TEXT_MESSAGE_CONTENT", "messageId", id, text));
        told
    }

    fn think(&mut self, id: &str, text: &str) -> Vec<Value> {
        // A thought may have the id of the text that follows it.
        let id = format!("{id}/reasoning");
        let next = Open::Thought(id.clone());
        let mut told = Vec::new();
        if self.open.as_ref() != Some(&next) {
            told = self.close_message();
            told.push(frames::of("REASONING_START", "messageId", &id));
            let mut start = frames::of("REASONING_MESSAGE_START", "messageId", &id);
            start["role"] = "reasoning".into();
            told.push(start);
            self.open = Some(next);
        }
        told.push(frames::piece("REASONING_MESSAGE_CONTENT", "messageId", &id, text));
        told
    }

    fn spend(&mut self, source: UsageSource, model: String, usage: &Usage) {
        let of = if source == UsageSource::Proxy { &mut self.counted } else { &mut self.told };
        if of.len() >= MAX_MODELS && !of.contains_key(&model) {
            return;
        }
        let sum = of.entry(model).or_default();
        if source == UsageSource::Agent {
            return sum.clone_from(usage);
        }
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            *sum = more.map_or(*sum, |more| Some(sum.unwrap_or(0).saturating_add(more)));
        };
        add(&mut sum.input_tokens, usage.input_tokens);
        add(&mut sum.output_tokens, usage.output_tokens);
        add(&mut sum.reasoning_tokens, usage.reasoning_tokens);
        add(&mut sum.cached_input_tokens, usage.cached_input_tokens);
    }
}

#[cfg(test)]
mod tests;
