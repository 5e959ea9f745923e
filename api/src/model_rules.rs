//! What is said about models, between the API's form and the domain's.

use ambient_domain::model_rules as domain;
use ambient_wire::model as wire;

/// In the domain's form.
pub(crate) fn given(rules: wire::ModelRules) -> domain::ModelRules {
    let wire::ModelRules { allowed, limits, endpoints: wire::ModelSources { openai, anthropic, gemini } } = rules;
    let source = |wire::ModelSource { base_url, key_variable }| domain::ModelSource { base_url, key_variable };
    domain::ModelRules {
        allowed,
        limits: domain::ModelLimits { tokens: limits.tokens, cost_micros: limits.cost_micros },
        endpoints: domain::ModelSources {
            openai: openai.map(source),
            anthropic: anthropic.map(source),
            gemini: gemini.map(source),
        },
    }
}

/// In the API's form.
pub(crate) fn shown(rules: &domain::ModelRules) -> wire::ModelRules {
    let domain::ModelRules { allowed, limits, endpoints } = rules.clone();
    let domain::ModelSources { openai, anthropic, gemini } = endpoints;
    let source = |domain::ModelSource { base_url, key_variable }| wire::ModelSource { base_url, key_variable };
    wire::ModelRules {
        allowed,
        limits: shown_limits(limits),
        endpoints: wire::ModelSources {
            openai: openai.map(source),
            anthropic: anthropic.map(source),
            gemini: gemini.map(source),
        },
    }
}

/// Limits in the API's form.
pub(crate) fn shown_limits(limits: domain::ModelLimits) -> wire::ModelLimits {
    wire::ModelLimits { tokens: limits.tokens, cost_micros: limits.cost_micros }
}

/// A budget in the domain's form.
pub(crate) fn given_budget(budget: wire::ModelBudget) -> domain::ModelBudget {
    let period = budget.period.map(|period| match period {
        wire::BudgetPeriod::Day => domain::BudgetPeriod::Day,
        wire::BudgetPeriod::Month => domain::BudgetPeriod::Month,
    });
    domain::ModelBudget { tokens: budget.tokens, cost_micros: budget.cost_micros, period }
}

/// A budget in the API's form.
pub(crate) fn shown_budget(budget: domain::ModelBudget) -> wire::ModelBudget {
    let domain::ModelBudget { tokens, cost_micros, period } = budget;
    wire::ModelBudget { tokens, cost_micros, period: period.map(shown_period) }
}

/// A period in the API's form.
pub(crate) fn shown_period(period: domain::BudgetPeriod) -> wire::BudgetPeriod {
    match period {
        domain::BudgetPeriod::Day => wire::BudgetPeriod::Day,
        domain::BudgetPeriod::Month => wire::BudgetPeriod::Month,
    }
}

/// A provider in the API's form.
pub(crate) fn shown_provider(provider: domain::ModelProvider) -> wire::ModelProvider {
    match provider {
        domain::ModelProvider::Openai => wire::ModelProvider::Openai,
        domain::ModelProvider::Anthropic => wire::ModelProvider::Anthropic,
        domain::ModelProvider::Gemini => wire::ModelProvider::Gemini,
    }
}
