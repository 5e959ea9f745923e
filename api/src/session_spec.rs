//! From a caller's session fields to its complete specification: defaults come from the project, then from the server.

use std::{collections::BTreeMap, str::FromStr};

use ambient_domain::{
    Defaults,
    agent::Agent,
    name, network, permission,
    project::{Project, Settings},
    quantity::NotAQuantity,
    session::{
        self, AgentCommand, DEFAULT_BATCH_TIMEOUT, DEFAULT_INACTIVITY_TIMEOUT, ResourceOverrides, ResourcePatch, Spec,
    },
};
use ambient_live::permissions as as_runners_say;
use ambient_wire::{
    agent_type as wire_type,
    git::Submodules,
    name as wire_name, network as wire_network,
    permission::Permissions,
    playbook as wire_playbook,
    repo::{PushTo, Repo},
    session::{self as wire, Attachment, SessionCreate, SessionPatch},
};

use crate::{
    agent_types,
    error::{ApiError, ApiResult, Number},
    given, mcp, model_rules,
};

const DEFAULT_NAME: &str = "session";
const DEFAULT_TEMPERATURE: f64 = 0.7;
const DEFAULT_MAX_TOKENS: i64 = 4000;
const MAX_NAME_CHARS: usize = wire_name::MAX;
const MAX_MODEL_CHARS: usize = 200;
const MAX_AGENT_TYPE: usize = 100;

/// What the server contributes: its default model, its agent types, and what sessions may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerDefaults<'a> {
    /// Model if neither session nor project names one.
    pub(crate) llm_model: Option<&'a str>,
    /// Agent type if neither session, agent nor project names one, or gives a command.
    pub(crate) agent_type: &'a str,
    /// Agent types in this build.
    pub(crate) agent_types: &'a [String],
    /// The most a session may ask for.
    pub(crate) maxima: &'a ResourceOverrides,
}

/// A project's defaults for its sessions.
pub(crate) fn defaults(project: &Settings, server: ServerDefaults<'_>) -> Defaults {
    Defaults {
        llm_model: project.llm_model.clone().or_else(|| server.llm_model.map(str::to_owned)),
        inactivity_timeout: Some(project.inactivity_timeout.unwrap_or(DEFAULT_INACTIVITY_TIMEOUT)),
        agent: None,
    }
}

/// The specification of a new session.
pub(crate) fn resolve(
    body: SessionCreate,
    project: &Project,
    agent: Option<&Agent>,
    server: ServerDefaults<'_>,
) -> ApiResult<Spec> {
    let body = SessionCreate { name: body.name.as_deref().map(given::composed), ..body };
    check(&body)?;
    let settings = &project.spec.settings;
    let defaults = defaults(settings, server);
    let of_agent = agent.map(|agent| agent.spec.clone()).unwrap_or_default();
    let given_type = body.agent_type.or(of_agent.agent_type);
    let mut has_command = body.agent_command.is_some() || of_agent.agent_command.is_some();
    let given_type = if given_type.is_none() && !has_command {
        has_command = settings.agent_command.is_some();
        settings.agent_type.clone()
    } else {
        given_type
    };
    let interactive = body.interactive.or(of_agent.interactive).unwrap_or(true);
    let limits = resources(body.resource_overrides.unwrap_or_default(), server)?;
    Ok(Spec {
        display_name: body.name.unwrap_or_else(|| name_of_prompt(body.prompt.as_deref())),
        prompt: body.prompt,
        repos: named_repos(body.repos)?,
        main_repo_index: body.main_repo_index,
        active_workflow: body.active_workflow.map(playbook),
        agent_id: body.agent_id,
        agent_type: agent_type(given_type, has_command, server)?,
        agent_command: body.agent_command.map(agent_command),
        agent_mode: body.agent_mode,
        agent_options: body.agent_options,
        mcp_servers: mcp::given(body.mcp_servers),
        interactive,
        stop_on_run_finished: body.stop_on_run_finished,
        timeout: body.timeout.or(of_agent.timeout).or_else(|| (!interactive).then_some(DEFAULT_BATCH_TIMEOUT)),
        inactivity_timeout: body
            .inactivity_timeout
            .or(of_agent.inactivity_timeout)
            .or(defaults.inactivity_timeout)
            .unwrap_or(DEFAULT_INACTIVITY_TIMEOUT),
        llm_model: body.llm_model.or(of_agent.llm_model).or(defaults.llm_model),
        llm_temperature: body.llm_temperature.or(of_agent.llm_temperature).unwrap_or(DEFAULT_TEMPERATURE),
        llm_max_tokens: body.llm_max_tokens.or(of_agent.llm_max_tokens).unwrap_or(DEFAULT_MAX_TOKENS),
        resource_overrides: limits.or(&of_agent.resource_overrides),
        network: body.network.map(network),
        setup_script: body.setup_script,
        // Sealed once the session has its id.
        environment_variables: BTreeMap::new(),
        models: model_rules::given(body.models),
        permissions: permissions(body.permissions),
        parent_session_id: body.parent_session_id,
        labels: body.labels,
        annotations: body.annotations,
    })
}

fn check(body: &SessionCreate) -> ApiResult<()> {
    given::optional_name("agent_type", body.agent_type.as_deref(), MAX_AGENT_TYPE)?;
    given::optional_name("name", body.name.as_deref(), MAX_NAME_CHARS)?;
    given::repos(&body.repos)?;
    body.active_workflow.iter().try_for_each(|given| given::playbook("active_workflow.", given))?;
    given::optional_name("llm_model", body.llm_model.as_deref(), MAX_MODEL_CHARS)?;
    given::network("network", body.network.as_ref())?;
    given::models("models", &body.models)?;
    given::permissions("permissions", &body.permissions)?;
    given::labels(&body.labels)?;
    given::annotations(&body.annotations)
}

fn check_patch(body: &SessionPatch) -> ApiResult<()> {
    given::optional_name("name", body.name.as_deref(), MAX_NAME_CHARS)?;
    given::repos(body.repos.as_deref().unwrap_or_default())?;
    body.active_workflow.iter().flatten().try_for_each(|given| given::playbook("active_workflow.", given))?;
    given::optional_name("llm_model", body.llm_model.as_ref().and_then(Option::as_deref), MAX_MODEL_CHARS)?;
    given::network("network", body.network.as_ref().and_then(Option::as_ref))?;
    body.models.iter().flatten().try_for_each(|rules| given::models("models", rules))?;
    body.permissions.iter().flatten().try_for_each(|all| given::permissions("permissions", all))?;
    body.labels.as_ref().map_or(Ok(()), given::labels)?;
    body.annotations.as_ref().map_or(Ok(()), given::annotations)
}

/// A change in the domain's form, except for the variables, whose values are sealed first.
pub(crate) fn patch(body: SessionPatch, server: ServerDefaults<'_>) -> ApiResult<session::SessionPatch> {
    let body = SessionPatch { name: body.name.as_deref().map(given::composed), ..body };
    check_patch(&body)?;
    let SessionPatch {
        name,
        prompt,
        repos,
        main_repo_index,
        active_workflow,
        agent_command: command,
        agent_mode,
        agent_options,
        mcp_servers,
        timeout,
        inactivity_timeout,
        llm_model,
        llm_temperature,
        llm_max_tokens,
        resource_overrides,
        network: given_network,
        setup_script,
        environment_variables: _,
        models,
        permissions: given_permissions,
        labels,
        annotations,
    } = body;
    Ok(session::SessionPatch {
        environment_variables: None,
        models: models.map(|given| model_rules::given(given.unwrap_or_default())),
        permissions: given_permissions.map(|given| permissions(given.unwrap_or_default())),
        display_name: name,
        labels,
        annotations,
        repos: repos.map(named_repos).transpose()?,
        main_repo_index,
        active_workflow: active_workflow.map(|given| given.map(playbook)),
        prompt,
        agent_command: command.map(|given| given.map(agent_command)),
        agent_mode,
        agent_options,
        mcp_servers: mcp_servers.map(mcp::given),
        timeout,
        inactivity_timeout,
        llm_model,
        llm_temperature,
        llm_max_tokens,
        resource_overrides: resource_overrides.map(|patch| resource_patch(patch, server)).transpose()?,
        network: given_network.map(|given| given.map(network)),
        setup_script,
    })
}

/// A playbook in the domain's form.
pub(crate) fn playbook(given: wire_playbook::Playbook) -> session::Playbook {
    let wire_playbook::Playbook { git_url, branch, path } = given;
    session::Playbook { git_url, branch, path }
}

/// A network in the domain's form.
pub(crate) fn network(given: wire_network::Network) -> network::Network {
    use {network::NetworkMode as Domain, wire_network::NetworkMode as Wire};
    let mode = match given.mode {
        Wire::Open => Domain::Open,
        Wire::None => Domain::None,
        Wire::AllowList => Domain::AllowList,
    };
    network::Network { mode, allow: given.allow }
}

/// Permissions in the domain's form.
pub(crate) fn permissions(given: Permissions) -> permission::Permissions {
    let Permissions { rules, otherwise, timeout, repeat_answers } = given;
    permission::Permissions {
        rules: rules.into_iter().map(as_runners_say::rule_of).collect(),
        otherwise: otherwise.map(as_runners_say::effect_of),
        timeout,
        repeat_answers,
    }
}

/// Limits in the domain's form.
pub(crate) fn resources(limits: wire::ResourceOverrides, server: ServerDefaults<'_>) -> ApiResult<ResourceOverrides> {
    let wire::ResourceOverrides { cpu, memory, processes, disk, open_files } = limits;
    let limits = ResourceOverrides {
        cpu: quantity("cpu", cpu)?,
        memory: quantity("memory", memory)?,
        processes,
        disk: quantity("disk", disk)?,
        open_files,
    };
    limits.within(server.maxima)?;
    Ok(limits)
}

/// Changes to limits in the domain's form.
pub(crate) fn resource_patch(
    patch: Option<wire::ResourcePatch>,
    server: ServerDefaults<'_>,
) -> ApiResult<ResourcePatch> {
    let Some(patch) = patch else { return Ok(ResourcePatch::CLEARED) };
    let wire::ResourcePatch { cpu, memory, processes, disk, open_files } = patch;
    let set = wire::ResourceOverrides {
        cpu: cpu.clone().flatten(),
        memory: memory.clone().flatten(),
        processes: processes.flatten(),
        disk: disk.clone().flatten(),
        open_files: open_files.flatten(),
    };
    let set = resources(set, server)?;
    Ok(ResourcePatch {
        cpu: cpu.map(|_| set.cpu),
        memory: memory.map(|_| set.memory),
        processes: processes.map(|_| set.processes),
        disk: disk.map(|_| set.disk),
        open_files: open_files.map(|_| set.open_files),
    })
}

fn quantity<T: FromStr<Err = NotAQuantity>>(name: &str, text: Option<String>) -> ApiResult<Option<T>> {
    let named = |wrong: NotAQuantity| ApiError::invalid(format!("resource_overrides.{name}"), wrong.to_string());
    text.map(|text| text.parse().map_err(named)).transpose()
}

/// A repository to add to these; without a name it gets the URL's.
pub(crate) fn repo(repo: Repo, present: &[session::Repo]) -> ApiResult<session::Repo> {
    given::repo(&repo)?;
    let name = repo.name.clone().unwrap_or_else(|| name::repo_name_of_url(&repo.url));
    not_a_route("name", &name)?;
    let repo = as_named(repo, name);
    session::validate_output("", &repo)?;
    if present.iter().all(|other| other.name != repo.name) {
        given::destinations(&[present, std::slice::from_ref(&repo)].concat(), true)?;
    }
    Ok(repo)
}

fn as_named(given: Repo, name: String) -> session::Repo {
    let Repo { name: _, url, branch, output, auto_push, submodules } = given;
    let output = session::RepoOutput {
        push_to: match output.push_to {
            PushTo::Same => session::PushTo::Same,
            PushTo::Fork => session::PushTo::Fork,
            PushTo::None => session::PushTo::None,
        },
        target_repo: output.target_repo,
        target_branch: output.target_branch,
    };
    session::Repo { name, url, branch, output, auto_push, submodules: as_domain(submodules) }
}

fn as_domain(which: Submodules) -> session::Submodules {
    match which {
        Submodules::None => session::Submodules::None,
        Submodules::Shallow => session::Submodules::Shallow,
        Submodules::Recursive => session::Submodules::Recursive,
    }
}

/// `DELETE …/repos/{name}` could not address a repository of that name.
fn not_a_route(field: &str, name: &str) -> ApiResult<()> {
    if name == "status" { Err(ApiError::invalid(field, "'status' is reserved; use another name")) } else { Ok(()) }
}

/// The first line of the prompt.
fn name_of_prompt(prompt: Option<&str>) -> String {
    let prompt = prompt.unwrap_or_default();
    let prompt = prompt.strip_prefix('\u{feff}').unwrap_or(prompt);
    let lines = prompt.lines().map(str::trim).filter(is_said);
    let mut names = lines.filter_map(|line| wire_name::made_of(line, MAX_NAME_CHARS));
    names.next().map_or_else(|| DEFAULT_NAME.to_owned(), |name| given::composed(&name))
}

/// A line that says something: not empty, and not a code fence.
fn is_said(line: &&str) -> bool {
    !line.is_empty() && !line.starts_with("```") && !line.starts_with("~~~")
}

/// What comes with a message, in the domain's form.
pub(crate) fn attachments(given: Vec<Attachment>) -> Vec<session::Attachment> {
    let one = |attachment| match attachment {
        Attachment::File { path } => session::Attachment::File { path },
        Attachment::Link { uri, name } => session::Attachment::Link { uri, name },
    };
    given.into_iter().map(one).collect()
}

pub(crate) fn agent_command(given: wire_type::AgentCommand) -> AgentCommand {
    let wire_type::AgentCommand { program, args, directory } = given;
    AgentCommand { program, args, directory }
}

fn agent_type(given: Option<String>, has_command: bool, server: ServerDefaults<'_>) -> ApiResult<String> {
    let usual = if has_command { agent_types::CUSTOM } else { server.agent_type };
    let agent_type = given.unwrap_or_else(|| usual.to_owned());
    known_agent_type("agent_type", Some(&agent_type), server.agent_types)?;
    Ok(agent_type)
}

/// Refuses an agent type that this server does not have.
pub(crate) fn known_agent_type(field: &str, given: Option<&str>, there_are: &[String]) -> ApiResult<()> {
    match given {
        Some(given) if !there_are.iter().any(|known| known == given) => {
            // Well-formed, and perhaps known to another server.
            let problem = format!("'{}' is not on this server; it has: {}", given.escape_debug(), there_are.join(", "));
            Err(ApiError::new(Number::NotFound, format!("{field}: {problem}")).at(field, problem))
        }
        _ => Ok(()),
    }
}

/// Derives missing names from URLs and makes them unique; given names stay (the domain refuses duplicates).
fn named_repos(repos: Vec<Repo>) -> ApiResult<Vec<session::Repo>> {
    let mut taken: Vec<String> = repos.iter().filter_map(|repo| repo.name.clone()).collect();
    let name = |given: Option<String>, url: &str, taken: &mut Vec<String>| {
        given.unwrap_or_else(|| {
            let unique = unique(&name::repo_name_of_url(url), taken);
            taken.push(unique.clone());
            unique
        })
    };
    let named = |(i, repo): (usize, Repo)| {
        let name = name(repo.name.clone(), &repo.url, &mut taken);
        not_a_route(&format!("repos[{i}].name"), &name)?;
        Ok(as_named(repo, name))
    };
    let repos: Vec<_> = repos.into_iter().enumerate().map(named).collect::<ApiResult<_>>()?;
    given::destinations(&repos, false)?;
    Ok(repos)
}

fn unique(name: &str, taken: &[String]) -> String {
    let numbered = (2..).map(|n| format!("{}-{n}", name.chars().take(95).collect::<String>()));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_prompt_and_the_urls() {
        assert_eq!(name_of_prompt(None), "session");
        assert_eq!(name_of_prompt(Some("\n  fix\tit \nmore")), "fix it");
        assert_eq!(name_of_prompt(Some(&"ä".repeat(200))).chars().count(), 100);
        assert_eq!(name_of_prompt(Some("---\n\u{200b}\n- fix https://bot:ab/cd@h/x")), "fix https://…@h/x");
        let named = |name: Option<&str>, url: &str| {
            let (name, url) = (name.map(str::to_owned), url.to_owned());
            Repo { name, url, ..Repo::default() }
        };
        let url = |url: &str| named(None, url);
        let given = named(Some("b"), "file:///x");
        let repos = named_repos(vec![url("https://h/a/b.git"), url("https://h/c/b"), given]).unwrap();
        let names: Vec<_> = repos.iter().map(|repo| repo.name.as_str()).collect();
        assert_eq!(names, ["b-2", "b-3", "b"]);
    }

    #[test]
    fn an_unknown_agent_type_is_told_with_those_there_are() {
        let there_are = ["script", "codex", "custom"].map(str::to_owned);
        let maxima = ResourceOverrides::default();
        let server =
            |agent_type| ServerDefaults { llm_model: None, agent_type, agent_types: &there_are, maxima: &maxima };
        let error = agent_type(Some("claude".to_owned()), false, server("script")).unwrap_err();
        assert_eq!(error.to_string(), "agent_type: 'claude' is not on this server; it has: script, codex, custom");
        assert_eq!(agent_type(None, false, server("script")).unwrap(), "script");
        assert_eq!(agent_type(None, false, server("codex")).unwrap(), "codex");
        assert_eq!(agent_type(None, true, server("codex")).unwrap(), "custom");
    }
}
