//! How what model calls have used is added up and shown.

use ambient_domain::model_rules::ModelBudget;
use ambient_live::Used;
use ambient_persistence::{PROXY, UsageRow};
use ambient_wire::{
    runner_event::UsageSource,
    usage::{BudgetUsage, DayUsage, ModelUsage, RunUsage, TokenUsage},
};

use crate::model_rules;

/// All of it.
pub(crate) fn total<'a>(rows: impl IntoIterator<Item = &'a UsageRow>) -> TokenUsage {
    let (mut total, mut several) = (TokenUsage::default(), false);
    for (at, row) in rows.into_iter().enumerate() {
        let usage = &row.usage;
        let source = if row.source == PROXY { UsageSource::Proxy } else { UsageSource::Agent };
        total.counted_by = Some(source).filter(|_| at == 0 || total.counted_by == Some(source));
        let add = |sum: &mut i64, more: i64| *sum = sum.saturating_add(more);
        add(&mut total.calls, usage.calls);
        add(&mut total.input_tokens, usage.input_tokens);
        add(&mut total.cached_input_tokens, usage.cached_input_tokens);
        add(&mut total.output_tokens, usage.output_tokens);
        add(&mut total.reasoning_tokens, usage.reasoning_tokens);
        if usage.currency.is_empty() {
            continue;
        }
        several |= total.currency.as_ref().is_some_and(|currency| *currency != usage.currency);
        total.currency = Some(usage.currency.clone());
        add(total.cost_micros.get_or_insert_default(), usage.cost_micros);
    }
    if several {
        (total.cost_micros, total.currency) = (None, None);
    }
    total
}

/// What is left of a budget.
pub(crate) fn of_budget(budget: ModelBudget, used: Used, currency: &str) -> BudgetUsage {
    let ModelBudget { tokens, cost_micros, period } = budget;
    BudgetUsage {
        period: period.map(model_rules::shown_period),
        since: used.since,
        currency: currency.to_owned(),
        tokens,
        used_tokens: used.tokens,
        left_tokens: tokens.map(|limit| limit.saturating_sub(used.tokens)),
        cost_micros,
        used_cost_micros: used.cost_micros,
        left_cost_micros: cost_micros.map(|limit| limit.saturating_sub(used.cost_micros)),
    }
}

/// Rows with the same key are next to each other.
fn grouped<K: PartialEq, T>(
    rows: &[UsageRow],
    key: impl Fn(&UsageRow) -> K,
    of: impl Fn(K, TokenUsage) -> T,
) -> Vec<T> {
    rows.chunk_by(|a, b| key(a) == key(b))
        .filter_map(|rows| rows.first().map(|first| of(key(first), total(rows))))
        .collect()
}

pub(crate) fn by_run(rows: &[UsageRow]) -> Vec<RunUsage> {
    grouped(rows, |row| row.run, |run, usage| RunUsage { run, usage })
}

pub(crate) fn by_model(rows: &[UsageRow]) -> Vec<ModelUsage> {
    grouped(rows, |row| row.model.clone(), |model, usage| ModelUsage { model, usage })
}

pub(crate) fn by_day(rows: &[UsageRow]) -> Vec<DayUsage> {
    grouped(rows, |row| row.day, |day, usage| day.map(|day| DayUsage { day, usage })).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use ambient_persistence::{AGENT, ModelUsage as Stored};

    use super::*;

    fn row(run: i64, source: &str, currency: &str) -> UsageRow {
        let usage =
            Stored { calls: 1, input_tokens: 10, cost_micros: 3, currency: currency.to_owned(), ..Stored::default() };
        UsageRow { run, turn: 0, model: String::new(), day: None, source: source.to_owned(), usage }
    }

    #[test]
    fn a_total_says_who_counted_and_has_a_cost_only_in_one_currency() {
        assert_eq!(total(&[]), TokenUsage::default());
        let one = total(&[row(1, PROXY, "USD"), row(2, PROXY, "")]);
        assert_eq!((one.input_tokens, one.cost_micros, one.counted_by), (20, Some(3), Some(UsageSource::Proxy)));
        let mixed = total(&[row(1, PROXY, "USD"), row(2, AGENT, "EUR"), row(3, PROXY, "USD")]);
        assert_eq!((mixed.calls, mixed.cost_micros, mixed.currency, mixed.counted_by), (3, None, None, None));
        let runs = by_run(&[row(1, AGENT, "USD"), row(1, PROXY, "USD"), row(2, PROXY, "USD")]);
        assert_eq!(runs.iter().map(|run| (run.run, run.usage.calls)).collect::<Vec<_>>(), [(1, 2), (2, 1)]);
    }
}
