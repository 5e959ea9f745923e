//! What an agent's command leaves open until it is started: `{home}`, `{workspace}`, `{endpoint}`, `{model_url}`, `{model_token}`, `{model}`.
//!
//! Something without a value is left out: an argument, a variable, a line of a file. So one description of an agent serves with a model proxy
//! and without, with a chosen model and with the agent's own.

use ambient_runner_protocol::{AgentCommand, MODEL, MODEL_TOKEN, MODEL_URL};

use crate::{attempt::Attempt, model::ModelProxy};

/// Where models are asked: through the proxy, else at the address that the session has set, else at the agent's usual one.
const ENDPOINT: &str = "{endpoint}";

/// Values of placeholders; those without one are none.
pub(super) struct Values(Vec<(&'static str, Option<String>)>);

impl Values {
    pub(super) fn of(attempt: &Attempt, command: &AgentCommand) -> Self {
        let proxy = attempt.model.as_ref().map(ModelProxy::access);
        let chosen = command.settings.model.clone();
        let endpoint = command.endpoint.as_ref().and_then(|endpoint| match proxy {
            Some(proxy) => Some(format!("{}{}", proxy.url, endpoint.path)),
            None => attempt.environment.get(&endpoint.variable).cloned().or_else(|| endpoint.usual.clone()),
        });
        Self(vec![
            ("{home}", Some(attempt.paths.home().to_string_lossy().into_owned())),
            ("{workspace}", Some(attempt.paths.workspace().to_string_lossy().into_owned())),
            (ENDPOINT, endpoint),
            (MODEL_URL, proxy.map(|proxy| proxy.url.clone())),
            (MODEL_TOKEN, proxy.map(|proxy| proxy.token.clone())),
            (MODEL, chosen.or_else(|| proxy.and_then(|proxy| proxy.model.clone()))),
        ])
    }

    /// The text with values in place; none if one of them is missing. What is put in is not looked at again.
    pub(super) fn put(&self, text: &str) -> Option<String> {
        let (mut done, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(brace) = rest.find('{') {
            let (before, at) = rest.split_at(brace);
            done.push_str(before);
            match self.0.iter().find(|(name, _)| at.starts_with(name)) {
                Some((name, value)) => {
                    done.push_str(value.as_ref()?);
                    rest = &at[name.len()..];
                }
                None => {
                    done.push('{');
                    rest = &at[1..];
                }
            }
        }
        Some(done + rest)
    }

    /// A file, without the lines for which a value is missing.
    pub(super) fn put_in_file(&self, text: &str) -> String {
        text.split_inclusive('\n').filter_map(|line| self.put(line)).collect()
    }
}

/// Whether the agent is told its model when it is started, so that it need not be told again.
pub(super) fn tell_the_model(command: &AgentCommand) -> bool {
    let texts = command.args.iter().chain(command.environment.values()).chain(command.home_files.values());
    texts.into_iter().any(|text| text.contains(MODEL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_value_is_left_out_and_other_braces_stay() {
        let values =
            Values(vec![("{home}", Some("/h".to_owned())), (MODEL, None), (ENDPOINT, Some("{home}".to_owned()))]);
        assert_eq!(values.put("a{home}/{x}{").as_deref(), Some("a/h/{x}{"));
        assert_eq!(values.put("{endpoint}").as_deref(), Some("{home}"), "what is put in is not looked at again");
        assert_eq!(values.put("m={model}"), None);
        assert_eq!(values.put_in_file("model = \"{model}\"\nhome = \"{home}\"\n{ }\n"), "home = \"/h\"\n{ }\n");
    }
}
