//! Effects waiting to be carried out, in the order of each entity's operations.
//!
//! A row is claimed for a moment, and again and again while it is carried out, so that two servers rarely both do so and the claims of one
//! that died are soon free; workflow ids make a repeat harmless. A parked row is set aside with its reason and blocks nothing.

use std::{collections::BTreeMap, time::Duration};

use ambient_domain::Effect;
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Row};

use crate::{database::Database, engine_choice::EngineChoice, error::StoreError};

/// Most effects of one entity handed out together.
const CHAIN: i64 = 16;

/// An effect to carry out.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Place in the outbox.
    pub position: i64,
    /// Entity kind.
    pub entity_kind: String,
    /// Entity id.
    pub entity_id: String,
    /// Operation that caused it.
    pub operation_id: String,
    /// What to do.
    pub effect: Effect,
    /// How often it was claimed as the first of its entity, this time included.
    pub attempts: i32,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

/// State of the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Number to be carried out.
    pub open: i64,
    /// Number set aside.
    pub parked: i64,
    /// Age of the oldest open row, seconds.
    pub oldest_open_seconds: i64,
}

impl Database {
    /// Claims for `lasting` the effects of entities that are due, at most `entities`, if `engine` is the chosen one: for each entity the
    /// open ones in order, at most [`CHAIN`]. Only the first of them is marked, but nobody else gets the others as long as it is
    /// open. Where traces are exported, executions that are to be started are noted for it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn claim_outbox(
        &self,
        entities: i64,
        engine: Option<&EngineChoice>,
        lasting: Duration,
    ) -> Result<Vec<Vec<OutboxRow>>, StoreError> {
        let columns = "o.position, o.entity_kind, o.entity_id, o.operation_id, o.effect, o.attempts, o.created_at";
        let sql = format!(
            "with due as (
                 select o.position, o.entity_kind, o.entity_id from ambient.outbox o
                 where o.done_at is null and o.parked_reason is null and o.next_at <= clock_timestamp()
                   and (o.claimed_until is null or o.claimed_until < clock_timestamp())
                   and not exists (select from ambient.outbox e
                       where e.entity_kind = o.entity_kind and e.entity_id = o.entity_id and e.position < o.position
                         and e.done_at is null and e.parked_reason is null)
                   and not exists (select from ambient.engine_choice
                       where $3::text is null or engine <> $3 or namespace <> $4)
                 order by o.position limit $1 for update skip locked),
             first as (
                 update ambient.outbox o
                 set claimed_until = clock_timestamp() + $2 * interval '1 second', attempts = o.attempts + 1
                 from due where o.position = due.position returning {columns}),
             claimed as (
                 select * from first union all
                 select next.* from due cross join lateral (
                     select {columns} from ambient.outbox o
                     where o.entity_kind = due.entity_kind and o.entity_id = due.entity_id and o.position > due.position
                       and o.done_at is null and o.parked_reason is null order by o.position limit $5) next),
             traced as (
                 insert into ambient.trace_executions (workflow_id, operation_id, entity_id)
                 select distinct on (effect ->> 'workflow_id') effect ->> 'workflow_id', operation_id, entity_id from claimed
                 where $6 and effect ->> 'effect' = 'start_workflow' order by effect ->> 'workflow_id', position
                 on conflict do nothing)
             select * from claimed"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(entities)
            .bind(lasting.as_secs_f64())
            .bind(engine.map(|engine| &engine.engine))
            .bind(engine.map(|engine| &engine.namespace))
            .bind(CHAIN - 1)
            .bind(self.traces)
            .fetch_all(self.pool())
            .await?;
        let mut chains: BTreeMap<(String, String), Vec<OutboxRow>> = BTreeMap::new();
        for row in rows {
            let position: i64 = row.try_get("position")?;
            match serde_json::from_value(row.try_get("effect")?) {
                Ok(effect) => {
                    let row = OutboxRow {
                        position,
                        entity_kind: row.try_get("entity_kind")?,
                        entity_id: row.try_get("entity_id")?,
                        operation_id: row.try_get("operation_id")?,
                        effect,
                        attempts: row.try_get("attempts")?,
                        created_at: row.try_get("created_at")?,
                    };
                    chains.entry((row.entity_kind.clone(), row.entity_id.clone())).or_default().push(row);
                }
                // From a newer release: that release unparks it.
                Err(error) => self.park_outbox(position, &format!("the effect cannot be read: {error}")).await?,
            }
        }
        let mut chains: Vec<_> = chains.into_values().collect();
        chains.iter_mut().for_each(|chain| chain.sort_by_key(|row| row.position));
        chains.sort_by_key(|chain| chain.first().map(|row| row.position));
        Ok(chains)
    }

    /// They are still being carried out: the claims of these first effects of their entities last `lasting` from now on.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn renew_claims(&self, positions: &[i64], lasting: Duration) -> Result<(), StoreError> {
        let sql = "update ambient.outbox set claimed_until = clock_timestamp() + $2 * interval '1 second'
                   where position = any($1) and done_at is null and claimed_until is not null";
        sqlx::query(sql).bind(positions).bind(lasting.as_secs_f64()).execute(self.pool()).await?;
        Ok(())
    }

    /// The effects have been carried out.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn complete_outbox(&self, positions: &[i64]) -> Result<(), StoreError> {
        let sql = "update ambient.outbox set done_at = clock_timestamp(), parked_reason = null
                   where position = any($1) and done_at is null";
        sqlx::query(sql).bind(positions).execute(self.pool()).await?;
        Ok(())
    }

    /// It failed; retry after a while (on the database's clock).
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn retry_outbox(&self, position: i64, after: Duration, error: &str) -> Result<(), StoreError> {
        let sql =
            "update ambient.outbox set claimed_until = null, parked_reason = null, parked_at = null, last_error = $3,
                       next_at = clock_timestamp() + $2 * interval '1 second'
                   where position = $1 and done_at is null";
        let error = error.replace('\0', "\u{fffd}");
        sqlx::query(sql).bind(position).bind(after.as_secs_f64()).bind(error).execute(self.pool()).await?;
        Ok(())
    }

    /// It cannot be carried out: set aside, later rows of the entity go ahead.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn park_outbox(&self, position: i64, reason: &str) -> Result<(), StoreError> {
        let sql = "update ambient.outbox set parked_reason = $2, parked_at = clock_timestamp(), claimed_until = null
                   where position = $1 and done_at is null";
        sqlx::query(sql).bind(position).bind(reason.replace('\0', "\u{fffd}")).execute(self.pool()).await?;
        Ok(())
    }

    /// Whether an effect on this workflow execution is still waiting ("pending dispatch"). A parked one is not.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn outbox_pending_for(&self, workflow_id: &str) -> Result<bool, StoreError> {
        let sql = "select exists (select from ambient.outbox
                   where workflow_id = $1 and done_at is null and parked_reason is null)";
        Ok(sqlx::query_scalar(sql).bind(workflow_id).fetch_one(self.pool()).await?)
    }

    /// Why an effect on this workflow execution was set aside, if one was.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn outbox_parked_for(&self, workflow_id: &str) -> Result<Option<String>, StoreError> {
        let sql = "select parked_reason from ambient.outbox
                   where workflow_id = $1 and done_at is null and parked_reason is not null order by position desc limit 1";
        Ok(sqlx::query_scalar(sql).bind(workflow_id).fetch_optional(self.pool()).await?)
    }

    /// State of the outbox.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn outbox_counts(&self) -> Result<OutboxCounts, StoreError> {
        let sql = "select count(*) filter (where parked_reason is null), count(*) filter (where parked_reason is not null),
                       coalesce(extract(epoch from clock_timestamp() - min(created_at) filter (where parked_reason is null)), 0)::bigint
                   from ambient.outbox where done_at is null";
        let (open, parked, oldest_open_seconds) = sqlx::query_as(sql).fetch_one(self.pool()).await?;
        Ok(OutboxCounts { open, parked, oldest_open_seconds })
    }
}
