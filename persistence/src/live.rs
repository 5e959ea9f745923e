//! The live log of a session: read by seq.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;

use crate::{database::Database, error::StoreError};

/// An event of a live log.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct StoredEvent {
    /// Session id.
    pub session_id: String,
    /// Gapless, from 1.
    pub seq: i64,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// `user.message`, `session.*`, or what a runner recorded: today's vocabulary, or AG-UI's of earlier releases.
    #[sqlx(rename = "type")]
    pub event_type: String,
    /// Payload.
    pub data: Value,
    /// Set where a message starts: a person's id, or what stands for that of the agent.
    pub message_id: Option<String>,
    /// Run it belongs to.
    pub run: Option<i64>,
    /// The runner log it came from.
    pub log_id: Option<String>,
    /// Place in that log.
    pub runner_seq: Option<i64>,
    /// Operation it was written with.
    pub operation_id: Option<String>,
}

impl Database {
    /// Events after `after_seq` in order, without gaps, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read_events(
        &self,
        session_id: &str,
        after_seq: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let sql = "select session_id, seq, at, type, data, message_id, run, log_id, runner_seq, operation_id
                   from ambient.session_events where session_id = $1 and seq > $2 order by seq limit $3";
        Ok(sqlx::query_as(sql).bind(session_id).bind(after_seq).bind(limit).fetch_all(self.pool()).await?)
    }

    /// Seq of the last event; 0 if there is none.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn last_seq(&self, session_id: &str) -> Result<i64, StoreError> {
        let sql = "select next_seq - 1 from ambient.session_streams where session_id = $1";
        let last: Option<i64> = sqlx::query_scalar(sql).bind(session_id).fetch_optional(self.pool()).await?;
        Ok(last.unwrap_or(0))
    }

    /// Last seq of many sessions at once, for the slow safety re-read (one query per process). Unknown ids are left out.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn last_seqs(&self, session_ids: &[String]) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = "select session_id, next_seq - 1 from ambient.session_streams where session_id = any($1)";
        Ok(sqlx::query_as(sql).bind(session_ids).fetch_all(self.pool()).await?)
    }

    /// Messages of a run that the runner has not recorded as accepted, in order.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn undelivered_messages(&self, session_id: &str, run: i64) -> Result<Vec<StoredEvent>, StoreError> {
        let sql = "select e.session_id, e.seq, e.at, e.type, e.data, e.message_id, e.run, e.log_id, e.runner_seq, e.operation_id
                   from ambient.session_events e join ambient.session_runtime r on r.session_id = e.session_id
                   where e.session_id = $1 and e.run = $2 and e.type = 'user.message' and e.seq > r.delivered_seq
                   order by e.seq limit 1000";
        Ok(sqlx::query_as(sql).bind(session_id).bind(run).fetch_all(self.pool()).await?)
    }

    /// Messages of a run whose turn has not begun, in order; at most 1,000. A runner takes them in their order.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn messages_not_run(&self, session_id: &str, run: i64) -> Result<Vec<String>, StoreError> {
        // Backwards from the end of the log: the walk ends at the beginning of the last turn, or of the run. That a message has an id lets
        // both looks for messages use the index of these.
        let sql = "with turn as (select coalesce(data ->> 'message_id', data ->> 'messageId') as message_id from ambient.session_events
                       where session_id = $1 and run = $2 and type in ('turn.started', 'RUN_STARTED') and seq > (
                           select min(seq) from ambient.session_events
                           where session_id = $1 and run = $2 and message_id is not null)
                       order by seq desc limit 1)
                   select e.message_id from ambient.session_events e
                   where e.session_id = $1 and e.run = $2 and e.message_id is not null and e.type = 'user.message' and e.seq > coalesce(
                       (select m.seq from turn join ambient.session_events m on m.session_id = $1 and m.message_id = turn.message_id), 0)
                   order by e.seq limit 1000";
        Ok(sqlx::query_scalar(sql).bind(session_id).bind(run).fetch_all(self.pool()).await?)
    }

    /// A message by its id.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn message(&self, session_id: &str, message_id: &str) -> Result<Option<StoredEvent>, StoreError> {
        let sql = "select session_id, seq, at, type, data, message_id, run, log_id, runner_seq, operation_id
                   from ambient.session_events where session_id = $1 and message_id = $2";
        Ok(sqlx::query_as(sql).bind(session_id).bind(message_id).fetch_optional(self.pool()).await?)
    }

    /// How many messages of people and the agent were started in a session's log.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn count_messages(&self, session_id: &str) -> Result<i64, StoreError> {
        let sql = "select messages from ambient.session_streams where session_id = $1";
        Ok(sqlx::query_scalar(sql).bind(session_id).fetch_optional(self.pool()).await?.unwrap_or(0))
    }
}
