//! What calls have used, what that costs, and whether it is still within the budget.

use ambient_runner_protocol::{ModelBudget, ModelPrice, Record};
use ambient_wire::runner_event::{RunnerEvent, Usage, UsageSource};

/// Used so far, tokens and millionths of the currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spent {
    pub(crate) tokens: u64,
    pub(crate) cost_micros: u64,
}

impl Spent {
    /// Adds what an earlier attempt of this run has recorded.
    pub(crate) fn see(&mut self, record: &Record) {
        // Looked at first, because most records are something else.
        if record.event["type"] != "usage" {
            return;
        }
        if let Some(RunnerEvent::Usage { source: UsageSource::Proxy, usage, .. }) = RunnerEvent::read(&record.event) {
            self.add(&usage);
        }
    }

    pub(super) fn add(&mut self, usage: &Usage) {
        let tokens = usage.input_tokens.unwrap_or(0).saturating_add(usage.output_tokens.unwrap_or(0));
        self.tokens = self.tokens.saturating_add(tokens);
        self.cost_micros = self.cost_micros.saturating_add(usage.cost_micros.unwrap_or(0));
    }

    /// Why no further call may be made, in words; none while there is something left.
    pub(super) fn exceeds(&self, budget: &ModelBudget, currency: &str) -> Option<String> {
        let tokens = self.tokens.saturating_add(budget.spent_tokens);
        if let Some(limit) = budget.tokens.filter(|limit| tokens >= *limit) {
            return Some(format!("the budget is used up: {tokens} of {limit} tokens"));
        }
        let cost = self.cost_micros.saturating_add(budget.spent_cost_micros);
        let limit = budget.cost_micros.filter(|limit| cost >= *limit)?;
        Some(format!("the budget is used up: {} of {} {currency}", amount(cost), amount(limit)))
    }
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
    use ambient_runner_protocol::{ModelBudget, ModelPrice, Record};
    use serde_json::json;

    use super::{Spent, Tokens};

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
        assert_eq!(spent, Spent { tokens: 30, cost_micros: 14 });
        let budget = |tokens, cost_micros| ModelBudget { tokens, cost_micros, spent_tokens: 2, spent_cost_micros: 6 };
        assert_eq!(spent.exceeds(&budget(Some(33), Some(21)), "USD"), None);
        assert!(spent.exceeds(&budget(Some(32), None), "USD").unwrap().contains("32 of 32 tokens"));
        assert!(spent.exceeds(&budget(None, Some(20)), "USD").unwrap().contains("0.000020 of 0.000020 USD"));
    }
}
