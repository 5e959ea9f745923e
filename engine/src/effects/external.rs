//! Signals and cancellation sent from one run to another.

use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes as A;
use tonic::Status;

use super::Progress;
use crate::{
    change::{Decision, Unchanged},
    engine::Engine,
    history::commands::Needs,
    model::{Effect, EffectKind, Target},
    proto,
};

impl Engine {
    pub(super) async fn reach_external(&self, effect: &Effect) -> Result<Progress, Status> {
        let target = Target::new(&effect.data.workflow_id, proto::run_id(&effect.data.run_id)?);
        let event = effect.attributes();
        let parents = if effect.data.child_only { self.lineage(effect.source_run()).await? } else { Vec::new() };
        let reached = self
            .change(&target, Needs::default(), |t, _| {
                let child = t.run.parent_run_id.is_some_and(|parent| parents.contains(&parent));
                if effect.data.child_only && !child {
                    return Ok(Decision::Keep(false));
                }
                t.request_id = Some(effect.id.to_string());
                match event.clone() {
                    Some(A::WorkflowExecutionCancelRequestedEventAttributes(a)) => t.request_cancel(a),
                    Some(event) => {
                        t.arrive(event);
                    }
                    None => {}
                }
                Ok(Decision::Write(true))
            })
            .await;
        let found = match reached {
            Ok((found, _)) => found,
            Err(Unchanged::Duplicate) => true,
            // A run that has closed need not be cancelled any more.
            Err(Unchanged::NotOpen) if effect.data.kind == EffectKind::CancelExternal as i32 => {
                match self.inner.store.resolve(&effect.data.workflow_id, proto::run_id(&effect.data.run_id)?).await {
                    Ok(_) => true,
                    Err(status) if status.code() == tonic::Code::NotFound => false,
                    Err(status) => return Err(status),
                }
            }
            Err(Unchanged::NotOpen) => false,
            Err(Unchanged::Status(status)) => return Err(status),
        };
        let namespace = &self.inner.options.namespace;
        let is_signal = effect.data.kind == EffectKind::SignalExternal as i32;
        self.settle(effect, &effect.source(), Needs::default(), |t, _| {
            let (initiated, target) = (effect.data.initiated_event_id, effect.target_execution());
            if is_signal {
                t.external_signaled(initiated, target, namespace, found);
            } else {
                t.external_cancelled(initiated, target, namespace, found);
            }
            Ok(true)
        })
        .await
    }
}
