//! What a change of one run owes other runs, as stored; `effects` carries it out.

use prost::Message;
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    history::v1::{HistoryEvent, history_event::Attributes as A},
};
use tonic::Status;
use uuid::Uuid;

use super::{Run, Target};
use crate::proto;

/// What is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum EffectKind {
    Unknown = 0,
    /// Create the child, tell the parent.
    StartChild = 1,
    /// Tell the parent that a child has closed.
    ChildClosed = 2,
    /// Signal another run, tell the sender.
    SignalExternal = 3,
    /// Ask another run to cancel, tell the sender.
    CancelExternal = 4,
    /// Apply the parent close policy to one child.
    ParentClosed = 5,
}

/// An effect as stored.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EffectData {
    #[prost(enumeration = "EffectKind", tag = "1")]
    pub(crate) kind: i32,
    #[prost(string, tag = "2")]
    pub(crate) source_workflow_id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) source_run_id: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub(crate) initiated_event_id: i64,
    /// The other run; an empty run id is the open one.
    #[prost(string, tag = "5")]
    pub(crate) workflow_id: String,
    #[prost(string, tag = "6")]
    pub(crate) run_id: String,
    /// Event for the other run.
    #[prost(message, optional, tag = "7")]
    pub(crate) event: Option<HistoryEvent>,
    /// Only a child of the source may be reached.
    #[prost(bool, tag = "8")]
    pub(crate) child_only: bool,
    /// A child that is started even if its parent has closed meanwhile.
    #[prost(bool, tag = "10")]
    pub(crate) outlives_parent: bool,
    /// Id reuse policy of a child, or the parent close policy.
    #[prost(int32, tag = "9")]
    pub(crate) policy: i32,
}

/// An effect and its id, which is also the request id under which the other run knows it (and a child's run id).
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) id: Uuid,
    pub(crate) data: EffectData,
}

impl Effect {
    pub(crate) fn new(kind: EffectKind, source: &Run, initiated_event_id: i64) -> Self {
        let data = EffectData {
            kind: kind as i32,
            source_workflow_id: source.workflow_id.clone(),
            source_run_id: source.run_id.as_bytes().to_vec(),
            initiated_event_id,
            ..EffectData::default()
        };
        Self { id: Uuid::new_v4(), data }
    }

    pub(crate) fn stored(id: Uuid, data: &[u8]) -> Result<Self, Status> {
        Ok(Self { id, data: proto::stored(data)? })
    }

    pub(crate) fn source(&self) -> Target {
        Target::Run(Uuid::from_slice(&self.data.source_run_id).unwrap_or_default())
    }

    pub(crate) fn source_run(&self) -> Uuid {
        Uuid::from_slice(&self.data.source_run_id).unwrap_or_default()
    }

    pub(crate) fn attributes(&self) -> Option<A> {
        self.data.event.as_ref().and_then(|e| e.attributes.clone())
    }

    pub(crate) fn target_execution(&self) -> WorkflowExecution {
        WorkflowExecution { workflow_id: self.data.workflow_id.clone(), run_id: self.data.run_id.clone() }
    }
}
