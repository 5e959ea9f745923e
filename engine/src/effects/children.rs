//! Between parent and child: start, end, and what the parent's end means for the child.

use temporalio_common::protos::temporal::api::{
    enums::v1::{ParentClosePolicy, WorkflowIdReusePolicy},
    history::v1::{
        WorkflowExecutionCancelRequestedEventAttributes, WorkflowExecutionStartedEventAttributes,
        history_event::Attributes as A,
    },
};
use tonic::Status;
use uuid::Uuid;

use super::Progress;
use crate::{
    engine::Engine,
    history::commands::{Needs, Pending},
    model::{Child, Effect, EffectData, EffectKind, NewRun, Parent, StartOutcome, StartPolicy, Target},
    proto::{self, db},
};

/// How many resets are followed from a closed parent to the run that now has its children.
const MAX_RESETS: usize = 100;

fn needs_children() -> Needs {
    Needs { children: true, ..Needs::default() }
}

fn child_of(pending: &Pending, initiated: i64) -> Option<&Child> {
    pending.children.iter().find(|c| c.initiated_event_id == initiated)
}

impl Engine {
    pub(super) async fn start_child(&self, effect: &Effect) -> Result<Progress, Status> {
        let Some(A::WorkflowExecutionStartedEventAttributes(attributes)) = effect.attributes() else {
            return Err(Status::internal("effect without the child's first event"));
        };
        let parent_open = self.inner.store.load(&effect.source()).await?.is_some();
        if !parent_open && !effect.data.outlives_parent {
            return self.drop_effect(effect).await;
        }
        // An earlier attempt may have got this far; the child may even have ended or continued as new since.
        let header = attributes.header.clone();
        let started = self.exists(effect.id).await? || self.create_child(effect, attributes).await?;
        let namespace = &self.inner.options.namespace;
        self.settle(effect, &effect.source(), needs_children(), |t, pending| {
            if let Some(child) = child_of(pending, effect.data.initiated_event_id) {
                if started {
                    t.child_started(child, effect.id, header.clone(), namespace);
                } else {
                    t.child_start_failed(child, namespace);
                }
            }
            Ok(true)
        })
        .await
    }

    /// False: another run is in the way.
    async fn create_child(
        &self,
        effect: &Effect,
        attributes: WorkflowExecutionStartedEventAttributes,
    ) -> Result<bool, Status> {
        let child = child_run(effect, attributes);
        let reuse =
            WorkflowIdReusePolicy::try_from(effect.data.policy).unwrap_or(WorkflowIdReusePolicy::AllowDuplicate);
        let policy = StartPolicy::Reuse(reuse);
        Ok(match Box::pin(self.create(child, policy)).await? {
            (StartOutcome::Started, _) => true,
            (StartOutcome::Exists(existing), _) => existing.run_id == effect.id,
        })
    }

    async fn exists(&self, run: Uuid) -> Result<bool, Status> {
        sqlx::query_scalar("select exists (select 1 from engine.executions where run_id = $1)")
            .bind(run)
            .fetch_one(&self.inner.store.pool)
            .await
            .map_err(db)
    }

    pub(super) async fn child_closed(&self, effect: &Effect) -> Result<Progress, Status> {
        let Some(event) = effect.attributes() else { return Err(Status::internal("effect without event")) };
        let mut parent = proto::run_id(&effect.data.run_id)?.unwrap_or_default();
        for _ in 0..MAX_RESETS {
            let target = Target::Run(parent);
            let told = self.settle_if_open(effect, &target, needs_children(), |t, pending| {
                match child_of(pending, effect.data.initiated_event_id) {
                    // Its start has to be reported first.
                    Some(child) if child.child_run_id.is_none() => return Ok(false),
                    Some(child) => t.child_closed(child, event.clone()),
                    None => {}
                }
                Ok(true)
            });
            if let Some(progress) = told.await? {
                return Ok(progress);
            }
            match self.reset_to(parent).await? {
                Some(next) => parent = next,
                None => break,
            }
        }
        self.drop_effect(effect).await
    }

    pub(super) async fn parent_closed(&self, effect: &Effect) -> Result<Progress, Status> {
        if self.child_start_is_owed(effect).await? {
            return Ok(Progress::NotYet);
        }
        let namespace = &self.inner.options.namespace;
        let target = Target::Current(effect.data.workflow_id.clone());
        let parents = self.lineage(effect.source_run()).await?;
        self.settle(effect, &target, needs_children(), |t, pending| {
            let ours = t.run.parent_run_id.is_some_and(|parent| parents.contains(&parent))
                && t.run.parent_initiated_id == effect.data.initiated_event_id;
            if !ours {
                return Ok(true);
            }
            if effect.data.policy == ParentClosePolicy::RequestCancel as i32 {
                t.request_cancel(WorkflowExecutionCancelRequestedEventAttributes {
                    external_workflow_execution: Some(proto::execution(
                        &effect.data.source_workflow_id,
                        effect.source_run(),
                    )),
                    ..Default::default()
                });
            } else {
                let reason = "by parent close policy".to_owned();
                t.terminate(reason, None, "history-service".to_owned(), &pending.children, namespace)?;
            }
            Ok(true)
        })
        .await
    }

    /// Whether the child's start is still pending (it comes first).
    async fn child_start_is_owed(&self, effect: &Effect) -> Result<bool, Status> {
        let owed: Vec<Vec<u8>> = sqlx::query_scalar("select data from engine.effects where source_run_id = $1")
            .bind(effect.source_run())
            .fetch_all(&self.inner.store.pool)
            .await
            .map_err(db)?;
        for data in owed {
            let other: EffectData = proto::stored(&data)?;
            if other.kind == EffectKind::StartChild as i32 && other.initiated_event_id == effect.data.initiated_event_id
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn child_run(effect: &Effect, mut attributes: WorkflowExecutionStartedEventAttributes) -> NewRun {
    let run_id = effect.id;
    attributes.original_execution_run_id = run_id.to_string();
    attributes.first_execution_run_id = run_id.to_string();
    let root = attributes.root_workflow_execution.clone().unwrap_or_default();
    NewRun {
        run_id,
        request_id: run_id.to_string(),
        signal: None,
        user_metadata: None,
        parent: Some(Parent {
            workflow_id: effect.data.source_workflow_id.clone(),
            run_id: effect.source_run(),
            initiated_event_id: effect.data.initiated_event_id,
        }),
        root: (root.workflow_id, Uuid::parse_str(&root.run_id).unwrap_or(run_id)),
        first_run_id: run_id,
        execution_expires_at: None,
        attributes,
    }
}
