//! The language of the cases.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a workflow does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// One after the other; the result is the list of theirs.
    Seq(Vec<Op>),
    /// All at once; the result is the list of theirs.
    All(Vec<Op>),
    /// All at once, until the first is done; the others are cancelled and waited for.
    First(Vec<Op>),
    /// A remote activity.
    Activity(Activity),
    /// A local activity.
    Local(Activity),
    /// A durable timer, milliseconds.
    Timer(u64),
    /// Until so many signals have come in all.
    Signals(usize),
    /// Until so many updates have been taken in.
    Updates(usize),
    /// Until the workflow is asked to cancel.
    Cancelled,
    /// What fails in `op` is its result; cancellation is a failure here.
    Catch(Box<Op>),
    /// `op` in a scope of its own, cancelled when `when` is done.
    CancelWhen { op: Box<Op>, when: Box<Op> },
    /// `op` goes on in spite of a cancelled workflow.
    Shielded(Box<Op>),
    /// A child workflow with this program.
    Child(Child),
    /// A signal to another workflow; `$` in its id is the case's prefix.
    SignalOther { id: String },
    /// A cancellation of another workflow.
    CancelOther { id: String },
    /// Goes on as a new run with this program.
    ContinueAsNew(Box<Op>),
    /// One of two, by a patch.
    Patched { id: String, deprecated: bool },
    /// A memo field is set.
    Memo(String, Value),
    /// The keyword search attribute of the cases is set.
    SearchAttribute(String),
    /// A random number and an id: deterministic in replay, so no result.
    Random,
    /// The workflow fails.
    Fail(String),
    /// The workflow ends as cancelled.
    EndCancelled,
    /// The workflow task fails this many times before it goes on.
    FailTask(u32),
    /// Nothing; the result is this value.
    Value(Value),
}

/// An activity and how it is asked for. Times are milliseconds; 0 is "not set".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Activity {
    pub name: String,
    pub input: Value,
    pub id: String,
    pub task_queue: String,
    pub start_to_close: u64,
    pub schedule_to_close: u64,
    pub schedule_to_start: u64,
    pub heartbeat: u64,
    /// 0: no end.
    pub attempts: u32,
    pub first_interval: u64,
    pub non_retryable: Vec<String>,
    /// `try_cancel`, `wait` or `abandon`.
    pub cancellation: String,
}

/// A child workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// Its id; `$` is the case's prefix.
    pub id: String,
    pub op: Box<Op>,
    /// `terminate`, `abandon` or `request_cancel`.
    pub policy: String,
    /// `wait`, `try_cancel`, `wait_requested` or `abandon`.
    pub cancellation: String,
    /// Whether its end is waited for; else only its start.
    pub wait: bool,
    /// Reuse: `allow`, `failed_only` or `reject`.
    pub reuse: String,
    /// Run timeout, milliseconds; 0: none.
    pub run_timeout: u64,
    /// Signals that it is sent once it has started.
    pub signals: usize,
}

/// What a workflow is started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Replaces `$` in ids.
    pub prefix: String,
    pub op: Op,
}

pub fn seq(ops: impl IntoIterator<Item = Op>) -> Op {
    Op::Seq(ops.into_iter().collect())
}
pub fn all(ops: impl IntoIterator<Item = Op>) -> Op {
    Op::All(ops.into_iter().collect())
}
pub fn first(ops: impl IntoIterator<Item = Op>) -> Op {
    Op::First(ops.into_iter().collect())
}
pub fn catch(op: Op) -> Op {
    Op::Catch(Box::new(op))
}
pub fn cancel_when(op: Op, when: Op) -> Op {
    Op::CancelWhen { op: Box::new(op), when: Box::new(when) }
}
pub fn shielded(op: Op) -> Op {
    Op::Shielded(Box::new(op))
}
/// An activity with 30 s start-to-close and a first retry after 50 ms.
pub fn act(name: &str, input: impl Into<Value>) -> Activity {
    let (name, input) = (name.to_owned(), input.into());
    Activity { name, input, start_to_close: 30_000, first_interval: 50, ..Activity::default() }
}
pub fn activity(name: &str, input: impl Into<Value>) -> Op {
    Op::Activity(act(name, input))
}
pub fn local(name: &str, input: impl Into<Value>) -> Op {
    Op::Local(act(name, input))
}
/// A child that is waited for.
pub fn child(id: &str, op: Op) -> Child {
    Child {
        id: id.to_owned(),
        op: Box::new(op),
        policy: "terminate".to_owned(),
        cancellation: "wait".to_owned(),
        wait: true,
        reuse: "allow".to_owned(),
        run_timeout: 0,
        signals: 0,
    }
}
