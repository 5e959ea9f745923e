//! What there is to know about how much of models a session and its project may use, and have used.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;

use crate::{database::Database, error::StoreError, model_usage::PROXY};

/// What a session, its agent and its project say about models, as it stands in their specifications; none: nothing.
#[derive(Debug, Clone, PartialEq, Default, FromRow)]
pub struct ModelRulesRow {
    /// Project.
    pub project_id: String,
    /// The session's.
    pub session: Option<Value>,
    /// Its agent's.
    pub agent: Option<Value>,
    /// Its project's.
    pub project: Option<Value>,
    /// Its project's budget.
    pub budget: Option<Value>,
}

/// Most that a column of the result has.
const MOST: &str = "9223372036854775807";

impl Database {
    /// What is said about a session's models; none if there is no such session. A deleted agent's limits still hold: its sessions must not
    /// get more by that.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn model_rules(&self, session_id: &str) -> Result<Option<ModelRulesRow>, StoreError> {
        let sql = "select s.project_id, s.spec -> 'models' as session, a.spec -> 'models' as agent,
                          p.spec -> 'settings' -> 'models' as project, p.spec -> 'settings' -> 'model_budget' as budget
                   from ambient.sessions s
                   left join ambient.agents a on a.id = s.spec ->> 'agent_id' and a.project_id = s.project_id
                   left join ambient.projects p on p.id = s.project_id
                   where s.id = $1";
        Ok(sqlx::query_as(sql).bind(session_id).fetch_optional(self.pool()).await?)
    }

    /// Tokens, and millionths of the currency, that calls through the proxy have used in all of a project's sessions since a time;
    /// without those of one run, if it is given. One statement, so that nothing is counted twice and nothing is left out.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn model_usage_of_project(
        &self,
        project_id: &str,
        since: Option<DateTime<Utc>>,
        without: Option<(&str, i64)>,
    ) -> Result<(u64, u64), StoreError> {
        let sql = format!(
            "select least(coalesce(sum(input_tokens::numeric + output_tokens), 0), {MOST})::bigint,
                    least(coalesce(sum(cost_micros), 0), {MOST})::bigint
             from ambient.model_usage
             where project_id = $1 and source = $2 and ($3::timestamptz is null or at >= $3)
               and not (session_id = $4 and run = $5)"
        );
        let (session_id, run) = without.unwrap_or_default();
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(project_id).bind(PROXY).bind(since);
        let (tokens, cost): (i64, i64) = query.bind(session_id).bind(run).fetch_one(self.pool()).await?;
        Ok((tokens.unsigned_abs(), cost.unsigned_abs()))
    }
}
