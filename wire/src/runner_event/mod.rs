//! What a runner records: the events of a session's log that are neither a person's (`user.message`) nor the server's (`session.*`).
//!
//! One vocabulary for every agent, whatever it speaks; AG-UI is a projection of it. Logs of earlier releases hold AG-UI events in its
//! place: [`RunnerEvent::read`] understands both. New shapes are new variants or optional fields.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    git::{GitPushed, LeftOut},
    git_merge::GitAbandoned,
};

mod earlier;
mod words;

pub use words::{content_in_words, output_in_words, script_of};

/// `reason` in [`RunnerEvent::RunnerExited`] for an end that compute asked for: a teardown, or a launch being undone. Whoever asked knows,
/// so it is no news about the session.
pub const ENDED_BY_REQUEST: &str = "terminated by request";

/// How the title of a call begins that prepares the workspace; the script's path may follow.
pub const SETUP_SCRIPT: &str = "setup script";

/// An event, as an object with `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type")]
pub enum RunnerEvent {
    /// First record of every attempt.
    #[serde(rename = "attempt.started")]
    AttemptStarted {
        /// Identity of the run's log.
        log_id: String,
        /// Launch within the run, from 1.
        attempt: i32,
        /// The log was begun by an earlier attempt.
        resumed: bool,
    },
    /// A message was recorded and will be worked on.
    #[serde(rename = "message.accepted")]
    MessageAccepted {
        /// Its id.
        message_id: String,
        /// Its place in the session's log.
        seq: i64,
    },
    /// Work on a message begins.
    #[serde(rename = "turn.started")]
    TurnStarted {
        /// `{session}/{run}/{number}`.
        turn_id: String,
        /// The message.
        message_id: String,
    },
    /// What the agent's work on a message came to; snapshots of the repositories and [`RunnerEvent::TurnEnded`] follow.
    #[serde(rename = "turn.result")]
    TurnResult {
        /// The turn.
        turn_id: String,
        /// How it ended.
        #[serde(flatten)]
        result: TurnResult,
        /// What went wrong, in words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// A turn is over.
    #[serde(rename = "turn.ended")]
    TurnEnded {
        /// The turn.
        turn_id: String,
        /// Its message.
        message_id: String,
        /// Its message's place in the session's log.
        last_message_seq: i64,
        /// How it ended.
        #[serde(flatten)]
        result: TurnResult,
        /// What is wrong with repositories; none if it was not looked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problems: Option<Vec<RepoProblem>>,
        /// What is checked out in those without a problem.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        repos: Vec<RepoPosition>,
    },
    /// An agent's process has started, and is ready for messages.
    #[serde(rename = "agent.started")]
    AgentStarted {
        /// Which process of this attempt, from 1.
        incarnation: u32,
        /// Name, as it says.
        name: String,
        /// Version, as it says.
        version: String,
        /// Its own id of the conversation.
        agent_session_id: String,
        /// How it came by what was said before.
        conversation: Conversation,
        /// What it can do, the modes, models and options it offers, and how it can be authenticated, as it says:
        /// `{capabilities, auth_methods, modes?, models?, config_options?}`.
        offers: Value,
    },
    /// An agent's process has ended.
    #[serde(rename = "agent.ended")]
    AgentEnded {
        /// Which process of this attempt.
        incarnation: u32,
        /// Exit code; none if it was killed or its end was not seen.
        exit_code: Option<i32>,
        /// In words, with the last that it wrote to standard error.
        reason: String,
    },
    /// The agent has other settings now, of its own accord or because it was told to: those that are present.
    #[serde(rename = "agent.settings")]
    AgentSettings {
        /// Mode in effect.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
        /// Model in effect.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// Its options, as it says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config_options: Option<Value>,
        /// Commands that it understands at the start of a message, as it says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commands: Option<Value>,
        /// Its title of the conversation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
    /// Remarks of the runner on the conversation or the agent, in words for people.
    #[serde(rename = "agent.notice")]
    AgentNotice {
        /// In words.
        text: String,
    },
    /// A piece of what the agent says. Pieces with the same id are one message.
    #[serde(rename = "agent.text")]
    AgentText {
        /// The message.
        message_id: String,
        /// At most 16 KiB.
        text: String,
    },
    /// A piece of what the agent thinks.
    #[serde(rename = "agent.thought")]
    AgentThought {
        /// The message.
        message_id: String,
        /// At most 16 KiB.
        text: String,
    },
    /// Something other than text that the agent says: an image, audio, a resource, as a content block of the Agent Client Protocol.
    #[serde(rename = "agent.content")]
    AgentContent {
        /// The message.
        message_id: String,
        /// The block; what is too large is left out, and `omitted` has its size in bytes.
        content: Value,
    },
    /// What the agent plans, in place of what it planned before.
    #[serde(rename = "agent.plan")]
    AgentPlan {
        /// Its steps.
        entries: Vec<PlanEntry>,
    },
    /// A tool call begins, or one that was not known so far is told.
    #[serde(rename = "tool.started")]
    ToolStarted {
        /// Identifies the call within the run.
        tool_call_id: String,
        /// What people are shown.
        title: String,
        /// What sort of a call it is, as the agent says.
        kind: ToolKind,
        /// Its state.
        status: ToolStatus,
        /// Arguments.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        input: Value,
        /// Files it is about.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        locations: Vec<Location>,
        /// What it has produced.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        content: Vec<ToolContent>,
    },
    /// A tool call has changed: what is present replaces what was known.
    #[serde(rename = "tool.updated")]
    ToolUpdated {
        /// The call.
        tool_call_id: String,
        /// What has changed.
        #[serde(flatten)]
        change: ToolChange,
    },
    /// Output of a tool while it runs.
    #[serde(rename = "tool.output")]
    ToolOutput {
        /// The call.
        tool_call_id: String,
        /// Which stream.
        stream: OutputStream,
        /// At most 16 KiB.
        text: String,
    },
    /// The agent asks whether it may do something, and waits.
    #[serde(rename = "permission.requested")]
    PermissionRequested {
        /// What is asked.
        #[serde(flatten)]
        request: PermissionRequest,
    },
    /// A request is no longer open.
    #[serde(rename = "permission.closed")]
    PermissionClosed {
        /// The request.
        interrupt_id: String,
        /// How it ended.
        outcome: PermissionOutcome,
        /// The answer that the agent was given, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<PermissionAnswer>,
    },
    /// A rule answered what the agent asked, so that nobody was asked.
    #[serde(rename = "permission.decided")]
    PermissionDecided {
        /// What was asked.
        #[serde(flatten)]
        request: PermissionRequest,
        /// Whether the call was allowed.
        allowed: bool,
        /// The rule, in words.
        rule: String,
    },
    /// What model calls have cost.
    #[serde(rename = "usage")]
    Usage {
        /// The turn.
        turn_id: String,
        /// Who counted.
        source: UsageSource,
        /// Model; empty if not said.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        model: String,
        /// How much.
        #[serde(flatten)]
        usage: Usage,
        /// The report as it came.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        raw: Value,
        /// The call, of what the runner's model proxy counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<ModelCall>,
    },
    /// Something of the agent wanted to reach a host that it may not. A host that is tried again is told again after a minute, with how
    /// often; of very many hosts the first are told, and how many tries there were of others.
    #[serde(rename = "network.refused")]
    NetworkRefused {
        /// Name or address; empty for others than those that were told.
        host: String,
        /// Port; 0 for others.
        port: u16,
        /// Why.
        reason: NetworkRefusal,
        /// Tries that this tells of.
        count: u64,
    },
    /// A repository was cloned, with remarks, in words.
    #[serde(rename = "repo.notices")]
    RepoNotices {
        /// Its directory.
        repo: String,
        /// In words.
        notices: Vec<String>,
    },
    /// A snapshot of a repository at the end of a turn.
    #[serde(rename = "repo.snapshot")]
    RepoSnapshot {
        /// What it holds.
        #[serde(flatten)]
        snapshot: RepoSnapshot,
    },
    /// A snapshot could not be made.
    #[serde(rename = "repo.snapshot_failed")]
    RepoSnapshotFailed {
        /// Its directory.
        repo: String,
        /// In words.
        reason: String,
    },
    /// A repository was pushed, at the end of a turn or by hand. Except for `uncommitted` and `notices` it is what the origin at `url` said, not the
    /// workspace.
    #[serde(rename = "repo.pushed")]
    RepoPushed {
        /// Its directory.
        repo: String,
        /// What was pushed.
        #[serde(flatten)]
        pushed: GitPushed,
    },
    /// A repository could not be pushed at the end of a turn.
    #[serde(rename = "repo.push_failed")]
    RepoPushFailed {
        /// Its directory.
        repo: String,
        /// Repository that it was to be pushed to.
        url: String,
        /// Branch there.
        branch: String,
        /// In words.
        reason: String,
    },
    /// A repository was put back to the commit that was cloned.
    #[serde(rename = "repo.abandoned")]
    RepoAbandoned {
        /// Its directory.
        repo: String,
        /// What was given up.
        #[serde(flatten)]
        abandoned: GitAbandoned,
    },
    /// Last record before the runner exits.
    #[serde(rename = "runner.exited")]
    RunnerExited {
        /// Exit code.
        code: i32,
        /// In words.
        reason: String,
    },
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TurnResult {
    /// In one word.
    pub outcome: TurnOutcome,
    /// Why it did not finish: `ScriptFailed`, `PushFailed`, `Interrupted`, `Terminated`, `RunnerLost`, `LogFull`, `AgentError`,
    /// `AgentLost`, `BudgetExceeded`, `SetupFailed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Exit code of what failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why the agent stopped, as it says: `end_turn`, `max_tokens`, `max_turn_requests`, `refusal`, `cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
}

/// How a turn ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnOutcome {
    /// The agent has done its work.
    Finished,
    /// It failed.
    Error,
    /// It was stopped.
    Interrupted,
}

/// Why an agent may not reach a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkRefusal {
    /// The session has no network.
    NoNetwork,
    /// The session's list does not name it, or not with this port.
    NotAllowed,
    /// It leads to an address that is not public, and that the list does not name.
    NotPublic,
}

/// How an agent came by what was said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Conversation {
    /// Nothing was said before.
    New,
    /// From its own records.
    Loaded,
    /// It was told, shortened and marked as such.
    Retold,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanEntry {
    /// In words.
    pub content: String,
    /// `high`, `medium` or `low`.
    pub priority: String,
    /// `pending`, `in_progress` or `completed`.
    pub status: String,
}

/// What sort of a tool call it is. The agent says so: nothing is proven by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// Reads files or data.
    Read,
    /// Changes files.
    Edit,
    /// Deletes files.
    Delete,
    /// Moves files.
    Move,
    /// Searches.
    Search,
    /// Runs a command.
    Execute,
    /// Reasons.
    Think,
    /// Fetches from the network.
    Fetch,
    /// Changes the agent's mode.
    SwitchMode,
    /// Commits go to the repository's origin, or a fork, at the end of a turn. Only runners say so, not agents.
    Push,
    /// Anything else.
    #[default]
    #[serde(other)]
    Other,
}

/// State of a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// Not begun.
    #[default]
    Pending,
    /// At work.
    InProgress,
    /// Done.
    Completed,
    /// Failed.
    Failed,
}

/// A file that a tool call is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Location {
    /// As the agent says: absolute, or in its folder.
    pub path: String,
    /// Line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// What a tool call has produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToolContent {
    /// Text.
    Text {
        /// At most 64 KiB.
        text: String,
    },
    /// A change of a file.
    Diff {
        /// The file.
        path: String,
        /// Its content before; none if it is new, or was too large.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        old_text: Option<String>,
        /// Its content afterwards.
        new_text: String,
        /// The texts were too large: they are cut off.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    /// A terminal, whose output is that of the call.
    Terminal {
        /// The terminal.
        terminal_id: String,
    },
    /// An image, audio or a resource, as a content block of the Agent Client Protocol.
    Other {
        /// The block.
        content: Value,
    },
}

/// Changes of a tool call; absent = unchanged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct ToolChange {
    /// Title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Sort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ToolKind>,
    /// State.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ToolStatus>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Files it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locations: Option<Vec<Location>>,
    /// What it has produced: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Vec<ToolContent>>,
    /// Its result, for agents: of a command the end of its output. At most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Exit code of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// Where output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What an agent asks for. All of it but the ids is what the agent says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PermissionRequest {
    /// `{run}-{attempt}-{number}`: unique in the session, of one process of the agent.
    pub interrupt_id: String,
    /// The turn.
    pub turn_id: String,
    /// The tool call; its `tool.started` precedes this.
    pub tool_call_id: String,
    /// What people are shown.
    pub title: String,
    /// Sort of the call.
    pub kind: ToolKind,
    /// The command, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Files it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// SHA-256 over kind, title, command, paths and arguments, hex: a repeated request has the same.
    pub fingerprint: String,
    /// Answers that the agent understands, among `once`, `always` and `reject`.
    pub answers: Vec<PermissionAnswer>,
}

/// An answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PermissionAnswer {
    /// Allowed this time.
    Once,
    /// Allowed from now on.
    Always,
    /// Not allowed.
    Reject,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PermissionOutcome {
    /// An answer was handed to the agent.
    Answered,
    /// The turn was stopped.
    Cancelled,
    /// Nobody answered in time: it was rejected.
    Expired,
    /// The agent or the runner was lost before an answer was handed over.
    Lost,
}

/// Who counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The runner's model proxy, call by call.
    Proxy,
    /// The agent, whose figures may be of a call, a turn or the whole conversation.
    Agent,
}

/// A call of a model, as the runner saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ModelCall {
    /// Whose dialect it was: `openai`, `anthropic`, `gemini`.
    pub provider: String,
    /// Model that answered, if the answer says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_model: Option<String>,
    /// From sending it to the end of the answer, milliseconds.
    pub millis: u64,
    /// From sending it to the first piece of the answer's body, milliseconds; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_piece_millis: Option<u64>,
    /// The answer was broken off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken_off: bool,
}

/// Tokens and money; absent = not said.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Tokens of input, those from a cache included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Of these, from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_tokens: Option<u64>,
    /// Tokens of output, those of reasoning included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Of these, for reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<u64>,
    /// Cost, millionths of `currency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// ISO 4217.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
}

/// A snapshot of a repository, on top of commit `head`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct RepoSnapshot {
    /// Its directory.
    pub repo: String,
    /// The snapshot.
    pub commit: String,
    /// Commit that was checked out; none if there was none.
    pub head: Option<String>,
    /// Where the snapshot is kept in the repository; empty if the agent was in the way.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Where it was cloned at.
    pub base: Option<String>,
    /// Unified diff from `base` to the snapshot, with its summary; at most 128 KiB, empty if there is none.
    pub patch: String,
    /// The patch is not whole.
    pub patch_truncated: bool,
    /// False for a patch that is not valid text; then `patch_base64` has its bytes.
    pub patch_exact: bool,
    /// The patch's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch_base64: Option<String>,
    /// What is not in it.
    pub left_out: Vec<LeftOut>,
    /// Processes of the agent that were still running: the files may have changed meanwhile.
    pub running: u64,
    /// What the turn has changed; none if that could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<RepoChanges>,
    /// Tree of the snapshot: all its files; none in what earlier runners recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// The checked packs that together hold the tree, in the snapshot store; empty if it is not stored.
    #[serde(default)]
    pub packs: Vec<RepoPack>,
    /// Why it is not stored; none if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
}

/// A pack of git objects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RepoPack {
    /// SHA-256 of its bytes, in hex.
    pub id: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Commit whose tree it holds, if it is the one that all turns build on: where the repository was cloned at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// What a turn has changed in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RepoChanges {
    /// What the files are compared with: the snapshot of the turn before, else where it was cloned at; none if there was nothing.
    pub since: Option<String>,
    /// Commits that are new on what is checked out, the newest first; at most 50.
    pub commits: Vec<RepoCommit>,
    /// There are more commits.
    pub more_commits: bool,
    /// Files that differ, committed or not, in the order of their paths; at most 200.
    pub files: Vec<RepoFile>,
    /// There are more files.
    pub more_files: bool,
}

/// A commit, as its author says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RepoCommit {
    /// Its id.
    pub commit: String,
    /// Name of the author.
    pub author: String,
    /// First line of the message, at most 200 characters.
    pub subject: String,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RepoFile {
    /// In the repository, as [`crate::file_name`] writes names.
    pub path: String,
    /// Lines that are new; none for what is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    /// Lines that are gone; none for what is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
}

/// What was checked out in a repository at the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepoPosition {
    /// Its directory in the workspace.
    pub repo: String,
    /// Branch; none when detached.
    pub branch: Option<String>,
    /// Commit; none if there is none yet.
    pub head: Option<String>,
}

/// What was wrong with a repository at the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepoProblem {
    /// Its directory in the workspace.
    pub repo: String,
    /// The directory is gone, or something else is in its place.
    pub missing: bool,
    /// In words.
    pub reason: String,
}

impl RunnerEvent {
    /// Reads what a log holds: an event of this or an earlier release; none if it is of a later one, or says nothing in this vocabulary.
    #[must_use]
    pub fn read(data: &Value) -> Option<Self> {
        Self::deserialize(data).ok().or_else(|| earlier::read(data))
    }
}
