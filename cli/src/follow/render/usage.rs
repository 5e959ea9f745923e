//! What a turn has cost, in a line.

use ambient_wire::runner_event::{Usage, UsageSource};

use crate::output::figures::{grouped, money};

/// Reports of a turn so far.
#[derive(Debug, Default)]
pub(super) struct Spent {
    /// Of the runner's model proxy: a sum.
    counted: Option<Usage>,
    /// The agent's last: its figures may be of more than the turn.
    told: Option<Usage>,
}

impl Spent {
    pub(super) fn take(&mut self, source: UsageSource, usage: Usage) {
        match source {
            UsageSource::Agent => self.told = Some(usage),
            UsageSource::Proxy => {
                let sum = self.counted.get_or_insert_default();
                let add = |sum: &mut Option<u64>, more: Option<u64>| {
                    *sum = more.map_or(*sum, |more| Some(sum.unwrap_or(0).saturating_add(more)));
                };
                add(&mut sum.input_tokens, usage.input_tokens);
                add(&mut sum.cached_input_tokens, usage.cached_input_tokens);
                add(&mut sum.output_tokens, usage.output_tokens);
                add(&mut sum.reasoning_tokens, usage.reasoning_tokens);
                add(&mut sum.cost_micros, usage.cost_micros);
                sum.currency = usage.currency.or(sum.currency.take());
            }
        }
    }

    /// In words, if anything was reported; what was counted is preferred.
    pub(super) fn words(&mut self) -> Option<String> {
        let Self { counted, told } = std::mem::take(self);
        let (usage, by) = counted.map(|usage| (usage, "")).or(told.map(|usage| (usage, " (as the agent says)")))?;
        let part = |count: Option<u64>, what: &str| count.map(|count| format!("{} {what}", grouped(count)));
        let of_input = part(usage.cached_input_tokens.filter(|cached| *cached > 0), "from the cache");
        let input = part(usage.input_tokens, "tokens in").map(|input| match of_input {
            Some(cached) => format!("{input} ({cached})"),
            None => input,
        });
        let currency = usage.currency.as_deref().unwrap_or("USD");
        let cost = usage.cost_micros.map(|micros| money(micros, currency));
        let parts: Vec<String> = input.into_iter().chain(part(usage.output_tokens, "out")).chain(cost).collect();
        (!parts.is_empty()).then(|| parts.join(", ") + by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() }
    }

    #[test]
    fn what_was_counted_is_summed_up_and_what_an_agent_says_stands_in_for_it() {
        let mut spent = Spent::default();
        assert_eq!(spent.words(), None);
        spent.take(UsageSource::Agent, usage(1, 1));
        spent.take(UsageSource::Agent, Usage { cached_input_tokens: Some(900), ..usage(1_234_567, 89) });
        assert_eq!(
            spent.words().as_deref(),
            Some("1,234,567 tokens in (900 from the cache), 89 out (as the agent says)")
        );
        spent.take(UsageSource::Agent, usage(1, 1));
        let cost = Usage { cost_micros: Some(12_345), currency: Some("EUR".to_owned()), ..usage(100, 20) };
        spent.take(UsageSource::Proxy, cost);
        spent.take(UsageSource::Proxy, usage(900, 3));
        assert_eq!(spent.words().as_deref(), Some("1,000 tokens in, 23 out, 0.0123 EUR"));
        assert_eq!(spent.words(), None, "the next turn begins anew");
    }
}
