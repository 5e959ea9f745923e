//! What a committed change of one run owes other runs.
//!
//! An effect is written with the change that owes it and removed by the change that settles it, so it happens once however
//! often it is tried. The process that wrote it carries it out right after the commit; if that process dies, whoever releases its work takes
//! the effect over. No transaction ever spans two runs.

mod children;
mod external;

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
};

use tonic::Status;
use uuid::Uuid;

use crate::{
    change::{Decision, Unchanged},
    clock::backoff,
    engine::Engine,
    history::commands::{Needs, Pending},
    model::{Effect, EffectKind, Target, Transition},
    proto::db,
};

/// Effects that one process carries out concurrently.
pub(crate) const PARALLEL: usize = 32;

/// How far an attempt at an effect got.
enum Progress {
    Settled,
    /// Something that must come first has not happened yet.
    NotYet,
}

impl Engine {
    /// Carries an effect out in the background, retrying as often as it takes.
    pub(crate) fn spawn_effect(&self, effect: Effect) {
        if !self.effects_in_hand().insert(effect.id) {
            return;
        }
        let engine = self.clone();
        self.inner.runtime.spawn(async move {
            engine.carry_out_until_done(&effect).await;
            engine.effects_in_hand().remove(&effect.id);
        });
    }

    fn effects_in_hand(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.inner.effects_in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn carry_out_until_done(&self, effect: &Effect) {
        let mut tries = 0;
        loop {
            let done = {
                let Ok(_permit) = self.inner.effects.acquire().await else { return };
                self.carry_out(effect).await
            };
            match done {
                Ok(Progress::Settled) => return,
                Ok(Progress::NotYet) => {}
                Err(status) => tracing::debug!(%status, effect = %effect.id, "effect not carried out yet"),
            }
            if self.is_stopping() || !self.still_owed(effect).await {
                return;
            }
            tokio::time::sleep(backoff(tries)).await;
            tries += 1;
        }
    }

    async fn still_owed(&self, effect: &Effect) -> bool {
        let found: Result<bool, _> =
            sqlx::query_scalar("select exists (select 1 from engine.effects where effect_id = $1)")
                .bind(effect.id)
                .fetch_one(&self.inner.store.pool)
                .await;
        found.unwrap_or(true)
    }

    async fn carry_out(&self, effect: &Effect) -> Result<Progress, Status> {
        match EffectKind::try_from(effect.data.kind).unwrap_or(EffectKind::Unknown) {
            EffectKind::StartChild => self.start_child(effect).await,
            EffectKind::ChildClosed => self.child_closed(effect).await,
            EffectKind::SignalExternal | EffectKind::CancelExternal => self.reach_external(effect).await,
            EffectKind::ParentClosed => self.parent_closed(effect).await,
            EffectKind::Unknown => Err(Status::internal("effect of an unknown kind")),
        }
    }

    /// Changes the run that owes the effect (or whichever is told) and settles it; if that run is gone, only settles it.
    async fn settle(
        &self,
        effect: &Effect,
        target: &Target,
        needs: Needs,
        decide: impl Fn(&mut Transition, &Pending) -> Result<bool, Status>,
    ) -> Result<Progress, Status> {
        match self.settle_if_open(effect, target, needs, decide).await? {
            Some(progress) => Ok(progress),
            None => self.drop_effect(effect).await,
        }
    }

    /// Like [`Self::settle`]; none if that run is gone, and then nothing is settled.
    async fn settle_if_open(
        &self,
        effect: &Effect,
        target: &Target,
        needs: Needs,
        decide: impl Fn(&mut Transition, &Pending) -> Result<bool, Status>,
    ) -> Result<Option<Progress>, Status> {
        let changed = self
            .change(target, needs, |t, pending| {
                if !decide(t, pending)? {
                    return Ok(Decision::Keep(false));
                }
                t.settles = Some(effect.id);
                Ok(Decision::Write(true))
            })
            .await;
        match changed {
            Ok((true, _)) => Ok(Some(Progress::Settled)),
            Ok((false, _)) => Ok(Some(Progress::NotYet)),
            Err(Unchanged::NotOpen | Unchanged::Duplicate) => Ok(None),
            Err(Unchanged::Status(status)) => Err(status),
        }
    }

    /// The run and those it was reset from: whatever they started belongs to it.
    async fn lineage(&self, run: Uuid) -> Result<Vec<Uuid>, Status> {
        sqlx::query_scalar(
            "with recursive line as (
                 select $1::uuid as run_id
                 union select e.run_id from engine.executions e join line l on e.reset_run_id = l.run_id)
             select run_id from line",
        )
        .bind(run)
        .fetch_all(&self.inner.store.pool)
        .await
        .map_err(db)
    }

    /// The run that replaced a closed one by reset, if there is one.
    async fn reset_to(&self, run: Uuid) -> Result<Option<Uuid>, Status> {
        let next: Option<Option<Uuid>> =
            sqlx::query_scalar("select reset_run_id from engine.executions where run_id = $1 and status <> 1")
                .bind(run)
                .fetch_optional(&self.inner.store.pool)
                .await
                .map_err(db)?;
        Ok(next.flatten())
    }

    async fn drop_effect(&self, effect: &Effect) -> Result<Progress, Status> {
        sqlx::query("delete from engine.effects where effect_id = $1")
            .bind(effect.id)
            .execute(&self.inner.store.pool)
            .await
            .map_err(db)?;
        Ok(Progress::Settled)
    }
}
