//! The live log by turns: where they end, and what their runs consist of.

use crate::{database::Database, error::StoreError, live::StoredEvent};

/// What ends a turn: today's records, and those of earlier runners.
const TURN_ENDED: &str = "(type = 'turn.ended' or (type = 'CUSTOM' and data ->> 'name' = 'ambient.turn_ended'))";
/// What a turn's runs begin and end with.
const STRUCTURE: &str =
    "(type in ('turn.started', 'turn.result', 'turn.ended', 'permission.requested', 'permission.closed',
        'session.phase', 'RUN_STARTED', 'RUN_FINISHED', 'RUN_ERROR')
    or (type = 'CUSTOM' and data ->> 'name' = 'ambient.turn_ended'))";
const COLUMNS: &str = "session_id, seq, at, type, data, message_id, run, log_id, runner_seq, operation_id";

impl Database {
    /// Seq of the last event up to `seq` that ends a turn; 0 if there is none.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn last_turn_end(&self, session_id: &str, seq: i64) -> Result<i64, StoreError> {
        let sql = format!(
            "select seq from ambient.session_events where session_id = $1 and seq <= $2 and {TURN_ENDED} order by seq desc limit 1"
        );
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(session_id).bind(seq);
        Ok(query.fetch_optional(self.pool()).await?.unwrap_or(0))
    }

    /// Events after `after_seq` that turns and their runs begin and end with, and phases, in order; at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn turn_events(
        &self,
        session_id: &str,
        after_seq: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let sql = format!(
            "select {COLUMNS} from ambient.session_events where session_id = $1 and seq > $2 and {STRUCTURE} order by seq limit $3"
        );
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(session_id).bind(after_seq).bind(limit);
        Ok(query.fetch_all(self.pool()).await?)
    }

    /// Where an interrupt was requested and where it was closed, as far as it was.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn interrupt_seqs(
        &self,
        session_id: &str,
        interrupt_id: &str,
    ) -> Result<Option<(i64, Option<i64>)>, StoreError> {
        let place = async |event_type: &str, after: i64| -> Result<Option<i64>, StoreError> {
            let sql = "select seq from ambient.session_events
                       where session_id = $1 and type = $2 and data ->> 'interrupt_id' = $3 and seq > $4 order by seq desc limit 1";
            let query = sqlx::query_scalar(sql).bind(session_id).bind(event_type).bind(interrupt_id).bind(after);
            Ok(query.fetch_optional(self.pool()).await?)
        };
        let Some(requested) = place("permission.requested", 0).await? else { return Ok(None) };
        Ok(Some((requested, place("permission.closed", requested).await?)))
    }
}
