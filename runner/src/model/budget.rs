//! What calls have used, what that costs, and whether it is still within the budget.

use std::collections::BTreeMap;

use ambient_runner_protocol::{ModelBudget, ModelPrice, ProjectBudget, Record};
use ambient_wire::runner_event::{RunnerEvent, Usage, UsageSource};
use chrono::NaiveDate;

/// Used so far in this run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Spent {
    /// By day (UTC).
    days: BTreeMap<NaiveDate, Amount>,
}

/// Tokens, and millionths of the currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amount {
    pub(super) tokens: u64,
    pub(super) cost_micros: u64,
}

impl Amount {
    fn plus(self, tokens: u64, cost_micros: u64) -> Self {
        Self { tokens: self.tokens.saturating_add(tokens), cost_micros: self.cost_micros.saturating_add(cost_micros) }
    }
}

impl Spent {
    /// Adds what an earlier attempt of this run has recorded.
    pub(crate) fn see(&mut self, record: &Record) {
        // Looked at first, because most records are something else.
        if record.event["type"] != "usage" {
            return;
        }
        if let Some(RunnerEvent::Usage { source: UsageSource::Proxy, usage, .. }) = RunnerEvent::read(&record.event) {
            self.add(&usage, record.at.date_naive());
        }
    }

    pub(super) fn add(&mut self, usage: &Usage, day: NaiveDate) {
        let tokens = usage.input_tokens.unwrap_or(0).saturating_add(usage.output_tokens.unwrap_or(0));
        let amount = self.days.entry(day).or_default();
        *amount = amount.plus(tokens, usage.cost_micros.unwrap_or(0));
    }

    /// All of it, or what was used from a day on.
    pub(super) fn since(&self, day: Option<NaiveDate>) -> Amount {
        let days = self.days.range(day.unwrap_or(NaiveDate::MIN)..);
        days.fold(Amount::default(), |sum, (_, amount)| sum.plus(amount.tokens, amount.cost_micros))
    }

    /// Why no further call may be made, in words; none while there is something left.
    pub(super) fn exceeds(&self, budget: &ModelBudget, currency: &str) -> Option<String> {
        let ModelBudget { tokens, cost_micros, spent_tokens, spent_cost_micros, project } = *budget;
        let used = self.since(None).plus(spent_tokens, spent_cost_micros);
        if let Some(much) = used_up(used, tokens, cost_micros, currency) {
            return Some(format!("the session's budget is used up: {much}"));
        }
        let ProjectBudget { tokens, cost_micros, since, elsewhere_tokens, elsewhere_cost_micros } = project?;
        let day = since.map(|since| since.date_naive());
        let used = self.since(day).plus(elsewhere_tokens, elsewhere_cost_micros);
        let much = used_up(used, tokens, cost_micros, currency)?;
        let from = day.map(|day| format!(" from {day} on")).unwrap_or_default();
        Some(format!("the project's budget{from} is used up: {much}"))
    }
}

/// How much of which limit, if there is nothing left of it.
fn used_up(used: Amount, tokens: Option<u64>, cost_micros: Option<u64>, currency: &str) -> Option<String> {
    if let Some(limit) = tokens.filter(|limit| used.tokens >= *limit) {
        return Some(format!("{} of {limit} tokens", used.tokens));
    }
    let limit = cost_micros.filter(|limit| used.cost_micros >= *limit)?;
    Some(format!("{} of {} {currency}", amount(used.cost_micros), amount(limit)))
}

/// Tokens of a call, as its answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tokens {
    /// All of the input.
    pub(super) input: u64,
    /// Of it, read from a cache; none if the answer does not say.
    pub(super) cached: Option<u64>,
    /// Of it, written to a cache.
    pub(super) written: u64,
    /// All of the output.
    pub(super) output: u64,
    /// Of it, reasoning; none if the answer does not say.
    pub(super) reasoning: Option<u64>,
}

impl Tokens {
    /// As it is recorded.
    pub(super) fn usage(&self, price: Option<&ModelPrice>, currency: &str) -> Usage {
        Usage {
            input_tokens: Some(self.input),
            cached_input_tokens: self.cached,
            output_tokens: Some(self.output),
            reasoning_tokens: self.reasoning,
            cost_micros: price.map(|price| self.cost(price)),
            currency: price.map(|_| currency.to_owned()),
        }
    }

    /// Millionths, rounded up.
    fn cost(&self, price: &ModelPrice) -> u64 {
        let cached = self.cached.unwrap_or(0);
        let other = self.input.saturating_sub(cached).saturating_sub(self.written);
        let parts = [
            (other, price.input_micros),
            (cached, price.cached_input_micros.unwrap_or(price.input_micros)),
            (self.written, price.cache_write_micros.unwrap_or(price.input_micros)),
            (self.output, price.output_micros),
        ];
        // Two factors of 64 bits fit, and four such products are cut off rather than wrapped.
        let sum = parts.iter().fold(0_u128, |sum, (n, price)| sum.saturating_add(u128::from(*n) * u128::from(*price)));
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// Millionths as a decimal number.
fn amount(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use ambient_runner_protocol::{ModelBudget, ModelPrice, ProjectBudget, Record};
    use ambient_wire::runner_event::Usage;
    use serde_json::json;

    use super::{Amount, Spent, Tokens};

    #[test]
    fn each_part_of_the_input_has_its_price_and_fractions_are_rounded_up() {
        let price = ModelPrice {
            input_micros: 3_000_000,
            cached_input_micros: Some(300_000),
            cache_write_micros: Some(3_750_000),
            output_micros: 15_000_000,
        };
        let tokens = Tokens { input: 1000, cached: Some(600), written: 100, output: 10, reasoning: None };
        assert_eq!(tokens.usage(Some(&price), "USD").cost_micros, Some(300 * 3 + 180 + 375 + 150));
        let one = Tokens { output: 1, ..Tokens::default() };
        let cheap =
            ModelPrice { input_micros: 0, cached_input_micros: None, cache_write_micros: None, output_micros: 1 };
        assert_eq!(one.usage(Some(&cheap), "USD").cost_micros, Some(1));
        let most = Tokens { input: u64::MAX, output: u64::MAX, ..Tokens::default() };
        assert_eq!(most.usage(Some(&price), "USD").cost_micros, Some(u64::MAX));
        assert_eq!(most.usage(None, "USD").cost_micros, None);
    }

    #[test]
    fn only_what_the_proxy_has_counted_is_spent_again_after_a_restart() {
        let mut spent = Spent::default();
        let usage = |source: &str| {
            json!({
                "type": "usage", "turn_id": "t", "source": source, "input_tokens": 10, "output_tokens": 5, "cost_micros": 7,
            })
        };
        for event in
            [usage("proxy"), usage("agent"), json!({ "type": "agent.notice", "text": "usage" }), usage("proxy")]
        {
            spent.see(&Record { n: 1, at: chrono::Utc::now(), event });
        }
        assert_eq!(spent.since(None), Amount { tokens: 30, cost_micros: 14 });
        let budget = |tokens, cost_micros| ModelBudget {
            tokens,
            cost_micros,
            spent_tokens: 2,
            spent_cost_micros: 6,
            project: None,
        };
        assert_eq!(spent.exceeds(&budget(Some(33), Some(21)), "USD"), None);
        assert!(spent.exceeds(&budget(Some(32), None), "USD").unwrap().contains("32 of 32 tokens"));
        assert!(spent.exceeds(&budget(None, Some(20)), "USD").unwrap().contains("0.000020 of 0.000020 USD"));
    }

    #[test]
    fn of_a_projects_budget_counts_what_is_used_elsewhere_and_here_in_its_time() {
        let mut spent = Spent::default();
        for day in ["2026-11-30", "2026-12-01"] {
            let usage = Usage { input_tokens: Some(10), cost_micros: Some(5), ..Usage::default() };
            spent.add(&usage, day.parse().unwrap());
        }
        let project = |since: Option<&str>, tokens, cost_micros| ModelBudget {
            project: Some(ProjectBudget {
                tokens,
                cost_micros,
                since: since.map(|since| since.parse().unwrap()),
                elsewhere_tokens: 7,
                elsewhere_cost_micros: 3,
            }),
            ..ModelBudget::default()
        };
        let why = |budget: ModelBudget| spent.exceeds(&budget, "USD");
        assert_eq!(why(project(None, Some(28), None)), None);
        assert_eq!(why(project(None, Some(27), None)).unwrap(), "the project's budget is used up: 27 of 27 tokens");
        let december = Some("2026-12-01T00:00:00Z");
        assert_eq!(why(project(december, Some(18), Some(9))), None);
        let told = why(project(december, None, Some(8))).unwrap();
        assert_eq!(told, "the project's budget from 2026-12-01 on is used up: 0.000008 of 0.000008 USD");
        // Both have run out: the narrower one is named.
        let both = ModelBudget { tokens: Some(1), ..project(None, Some(1), None) };
        assert!(why(both).unwrap().starts_with("the session's budget is used up"));
    }
}
