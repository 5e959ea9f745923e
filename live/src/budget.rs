//! How much of models a run may use, from what session, agent, project and server say and what has been used.

use ambient_domain::model_rules::{self, BudgetPeriod, ModelLimits, ModelRules};
use ambient_persistence::{Database, ModelRulesRow, StoreError};
use ambient_runner_protocol::{ModelBudget, ProjectBudget};
use chrono::{DateTime, Datelike, NaiveTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Knows the budgets of runs. Clones share the database.
#[derive(Debug, Clone)]
pub struct Budgets {
    db: Database,
    server: ModelLimits,
}

/// What a project's sessions have used of its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Since when; none: ever.
    pub since: Option<DateTime<Utc>>,
    /// Tokens, input and output together.
    pub tokens: u64,
    /// Millionths of the currency.
    pub cost_micros: u64,
}

impl Budgets {
    /// With the server's limits for a session.
    #[must_use]
    pub fn new(db: Database, server: ModelLimits) -> Self {
        Self { db, server }
    }

    /// A run's, as of now. What the run itself has used its runner knows.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn of(&self, session_id: &str, run: i64) -> Result<ModelBudget, StoreError> {
        let said = self.db.model_rules(session_id).await?.unwrap_or_default();
        let ModelRulesRow { project_id, session, agent, project, budget } = said;
        let mut limits = self.server;
        for rules in [session, agent, project] {
            limits = limits.and(read::<ModelRules>(rules, session_id)?.unwrap_or_default().limits);
        }
        let budget = read::<model_rules::ModelBudget>(budget, session_id)?;
        self.within((&project_id, session_id, run), limits, budget).await
    }

    /// That of a run (project, session and number) within these limits, which are all that hold for its session.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn within(
        &self,
        (project_id, session_id, run): (&str, &str, i64),
        limits: ModelLimits,
        budget: Option<model_rules::ModelBudget>,
    ) -> Result<ModelBudget, StoreError> {
        let ModelLimits { tokens, cost_micros } = limits;
        // Looked up only if it matters.
        let (spent_tokens, spent_cost_micros) =
            if limits.is_empty() { (0, 0) } else { self.db.model_usage_before(session_id, run).await? };
        let project = match budget {
            Some(model_rules::ModelBudget { tokens, cost_micros, period }) => {
                let since = began(period, Utc::now());
                let without = Some((session_id, run));
                let elsewhere = self.db.model_usage_of_project(project_id, since, without).await?;
                let (elsewhere_tokens, elsewhere_cost_micros) = elsewhere;
                Some(ProjectBudget { tokens, cost_micros, since, elsewhere_tokens, elsewhere_cost_micros })
            }
            None => None,
        };
        Ok(ModelBudget { tokens, cost_micros, spent_tokens, spent_cost_micros, project })
    }

    /// What all sessions of a project have used of its budget.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn used(&self, project_id: &str, period: Option<BudgetPeriod>) -> Result<Used, StoreError> {
        let since = began(period, Utc::now());
        let (tokens, cost_micros) = self.db.model_usage_of_project(project_id, since, None).await?;
        Ok(Used { since, tokens, cost_micros })
    }
}

fn read<T: DeserializeOwned>(stored: Option<Value>, session_id: &str) -> Result<Option<T>, StoreError> {
    let corrupt = |error: serde_json::Error| StoreError::Corrupt {
        what: format!("what is said about models for session {session_id}"),
        reason: error.to_string(),
    };
    stored.filter(|value| !value.is_null()).map(serde_json::from_value).transpose().map_err(corrupt)
}

/// When the current period began.
fn began(period: Option<BudgetPeriod>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let today = now.date_naive();
    let first = match period? {
        BudgetPeriod::Day => today,
        BudgetPeriod::Month => today.with_day(1).unwrap_or(today),
    };
    Some(first.and_time(NaiveTime::MIN).and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_begins_with_its_first_second_in_utc() {
        let now = "2026-12-31T23:59:59.999Z".parse().unwrap();
        let began = |period| began(period, now).map(|since| since.to_rfc3339());
        assert_eq!(began(None), None);
        assert_eq!(began(Some(BudgetPeriod::Day)).as_deref(), Some("2026-12-31T00:00:00+00:00"));
        assert_eq!(began(Some(BudgetPeriod::Month)).as_deref(), Some("2026-12-01T00:00:00+00:00"));
    }

    #[test]
    fn what_is_stored_is_read_or_told_as_corrupt() {
        assert_eq!(read::<ModelRules>(None, "s").unwrap(), None);
        assert_eq!(read::<ModelRules>(Some(Value::Null), "s").unwrap(), None);
        assert!(matches!(read::<ModelRules>(Some(serde_json::json!({"x": 1})), "s"), Err(StoreError::Corrupt { .. })));
    }
}
