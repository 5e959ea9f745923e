//! Who polls which queue through which process, for people who ask (`DescribeTaskQueue`).
//!
//! Each process knows its own and stores them together every few seconds; no decision depends on them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tonic::Status;
use uuid::Uuid;

use crate::{
    clock::jittered,
    engine::Engine,
    matching::{Kind, SHOWN},
    proto::db,
};

/// How often a process stores its pollers.
const PUBLISH: Duration = Duration::from_secs(5);

/// A poller of a queue.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Seen {
    pub(crate) identity: String,
    /// Wall clock.
    pub(crate) last_access_at: DateTime<Utc>,
}

fn code(kind: Kind) -> i16 {
    match kind {
        Kind::Workflow => 1,
        Kind::Activity => 2,
    }
}

/// Stores this process's pollers until the engine stops.
pub(crate) async fn publish(engine: Engine) {
    loop {
        tokio::time::sleep(jittered(PUBLISH)).await;
        if let Err(error) = publish_once(&engine).await {
            tracing::debug!(%error, "pollers not stored");
        }
    }
}

async fn publish_once(engine: &Engine) -> Result<(), sqlx::Error> {
    let (_, wall) = engine.inner.clock.both();
    sqlx::query("delete from engine.pollers where last_access_at < clock_timestamp() - interval '5 minutes'")
        .execute(&engine.inner.store.pool)
        .await?;
    // Twice the interval, so that nobody is missed in between.
    let seen = engine.inner.matching.pollers(PUBLISH * 2);
    if seen.is_empty() {
        return Ok(());
    }
    let mut columns: (Vec<i16>, Vec<String>, Vec<String>, Vec<DateTime<Utc>>) = Default::default();
    for (kind, queue, identity, ago) in seen {
        columns.0.push(code(kind));
        columns.1.push(queue);
        columns.2.push(identity);
        columns.3.push(wall - TimeDelta::from_std(ago).unwrap_or_default());
    }
    sqlx::query(
        "insert into engine.pollers (process, kind, task_queue, identity, last_access_at)
         select $1, k.* from unnest($2::smallint[], $3::text[], $4::text[], $5::timestamptz[]) k
         on conflict (process, kind, task_queue, identity) do update set last_access_at = excluded.last_access_at",
    )
    .bind(engine.inner.lease.process())
    .bind(columns.0)
    .bind(columns.1)
    .bind(columns.2)
    .bind(columns.3)
    .execute(&engine.inner.store.pool)
    .await?;
    Ok(())
}

impl Engine {
    /// Pollers of a queue in all processes, latest first.
    pub(crate) async fn pollers(&self, kind: Kind, queue: &str) -> Result<Vec<Seen>, Status> {
        let (_, wall) = self.inner.clock.both();
        let own: Uuid = self.inner.lease.process();
        let mut seen: Vec<Seen> = sqlx::query_as(
            "select identity, max(last_access_at) as last_access_at from engine.pollers
             where task_queue = $1 and kind = $2 and process <> $3 and last_access_at > clock_timestamp() - interval '5 minutes'
             group by identity",
        )
        .bind(queue)
        .bind(code(kind))
        .bind(own)
        .fetch_all(&self.inner.store.pool)
        .await
        .map_err(db)?;
        for (k, name, identity, ago) in self.inner.matching.pollers(SHOWN) {
            if k == kind && name == queue {
                let last_access_at = wall - TimeDelta::from_std(ago).unwrap_or_default();
                match seen.iter_mut().find(|s| s.identity == identity) {
                    Some(known) => known.last_access_at = known.last_access_at.max(last_access_at),
                    None => seen.push(Seen { identity, last_access_at }),
                }
            }
        }
        seen.sort_by_key(|s| std::cmp::Reverse(s.last_access_at));
        Ok(seen)
    }
}
