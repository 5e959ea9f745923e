//! Steps on the way to Running.

use std::{collections::BTreeMap, time::Duration};

use ambient_compute::{LaunchRequest, OwnLimits, RunnerState, Secret, SecretName};
use ambient_domain::{
    WorkflowInput,
    permission::Permissions,
    quantity::{Bytes, Cpu},
    session::{self, Fact, ResourceOverrides, Session},
};
use ambient_live::{agent, permissions};
use ambient_runner_protocol::{AgentCommand, AgentEndpoint, GitIdentity, Network};

use super::{project, retention};
use crate::{
    model_access::{self, Owners},
    network::network,
    observer,
    services::{Services, StepError, StepResult, session_ref},
    step::Progress,
};

/// Lifetime of a runner-to-server token, seconds.
pub const TOKEN_LIFE: i64 = 3_600;

/// Longest wait of one attempt for a runner to answer; shorter than the step's timeout, so that its failure says what was waited for.
const READY_WITHIN: Duration = Duration::from_secs(110);

/// Checks of a runner that is coming up, a millisecond apart, before the session is checked again and the pauses get longer.
const FAST_LOOKS: u32 = 40;

/// From nothing to a launched runner, with all that it needs in place beforehand.
pub(super) async fn bring_up_runner(s: &Services, by: &str, i: &WorkflowInput) -> StepResult {
    let session = s.report_and_read(by, i, Fact::Provisioning).await?;
    if project::ensure_space(s, i).await? == Progress::Superseded {
        return Ok(Progress::Superseded);
    }
    prove_gone(s, i).await?;
    if retention::begin_anew(s, by, i).await? == Progress::Superseded {
        return Ok(Progress::Superseded);
    }
    s.compute.ensure_workspace(&session_ref(i)).await?;
    let owners = Owners::of(s, &session).await?;
    write_credentials(s, i, &session, &owners).await?;
    let session = inherit_permissions(s, by, i, session, owners.permissions()).await?;
    // The fence decides whether it is still wanted: whoever stops the session raises it first.
    s.compute.launch(&launch_request(s, &session, &owners, i).await?).await?;
    Ok(Progress::Done)
}

/// The session, with what its agent and its project say about permissions now. What they say later the reader of its runner reports.
async fn inherit_permissions(
    s: &Services,
    by: &str,
    i: &WorkflowInput,
    session: Session,
    permissions: Permissions,
) -> Result<Session, StepError> {
    if permissions == session.inherited_permissions {
        return Ok(session);
    }
    s.report_and_read(by, i, Fact::PermissionsInherited { permissions, since_launch: false }).await
}

pub(super) async fn prove_gone(s: &Services, i: &WorkflowInput) -> Result<(), StepError> {
    let earlier = i.run - 1;
    if earlier > 0 {
        let session = session_ref(i);
        s.compute.raise_fence(&session, earlier).await?;
        s.compute.prove_absent(&session, earlier).await?;
    }
    Ok(())
}

pub(super) async fn write_credentials(
    s: &Services,
    i: &WorkflowInput,
    session: &Session,
    owners: &Owners,
) -> Result<(), StepError> {
    let (variables, access) = (owners.variables(session), owners.models(s, session));
    let session = session_ref(i);
    // Files of an earlier attempt would have keys that are no longer meant for anyone.
    let is_again = i.attempt > 1;
    if !variables.is_empty() || is_again {
        let environment = environment(s, &variables).await?;
        s.compute.write_secret(&session, i.run, SecretName::Environment, &environment).await?;
    }
    let keys = model_access::keys(s, &access).await?;
    if let Some(keys) = keys.or_else(|| is_again.then(|| Secret::new("{}".to_owned()))) {
        s.compute.write_secret(&session, i.run, SecretName::ModelKeys, &keys).await?;
    }
    let token = Secret::new(s.tokens.server_to_runner(&i.session_id, i.run));
    s.compute.write_secret(&session, i.run, SecretName::ServerToRunner, &token).await?;
    write_runner_token(s, i).await
}

/// The values of a session's variables, in the runner's form.
async fn environment(s: &Services, ids: &BTreeMap<String, String>) -> Result<Secret, StepError> {
    let values = s.vault.get_all(ids.values()).await?;
    let mut environment = BTreeMap::new();
    for (name, id) in ids {
        let value = values.get(id).and_then(|value| std::str::from_utf8(value.expose()).ok());
        let missing = || StepError::Fatal {
            reason: "SecretMissing",
            message: format!("the value of environment variable {name} is gone"),
        };
        environment.insert(name, value.ok_or_else(missing)?);
    }
    let json = serde_json::to_string(&environment).map_err(|error| StepError::retry("SecretMissing", &error))?;
    Ok(Secret::new(json))
}

/// A new token for the runner, replacing the old one; the runner reads the file at each use.
pub(super) async fn refresh_token(s: &Services, i: &WorkflowInput) -> StepResult {
    s.active_session(i).await?;
    write_runner_token(s, i).await?;
    Ok(Progress::Done)
}

async fn write_runner_token(s: &Services, i: &WorkflowInput) -> Result<(), StepError> {
    let now = s.clock.now().timestamp();
    // The number is the time: every token of a run is different, and any server can make it.
    let token = s.tokens.runner_to_server(&i.session_id, i.run, now, now + TOKEN_LIFE);
    s.compute.write_secret(&session_ref(i), i.run, SecretName::RunnerToServer, &Secret::new(token)).await?;
    Ok(())
}

pub(super) async fn launch_request(
    s: &Services,
    session: &Session,
    owners: &Owners,
    i: &WorkflowInput,
) -> Result<LaunchRequest, StepError> {
    let access = owners.models(s, session);
    let budget = owners.budget(s, session, i.run, &access).await?;
    Ok(LaunchRequest {
        session: session_ref(i),
        run: i.run,
        attempt: i.attempt,
        interactive: session.spec.interactive,
        agent: session.spec.agent_type.clone(),
        agent_command: agent_command(session),
        model: s.models.server.endpoint(access, session.spec.llm_model.clone(), budget),
        permissions: permissions::policy(&session.permissions()),
        git_identity: GitIdentity {
            name: format!("{} (Ambient session)", session.spec.display_name),
            email: format!("{}@sessions.ambient.invalid", session.id.to_lowercase()),
        },
        limits: own_limits(&session.spec.resource_overrides),
        network: launch_network(session),
        setup_script: setup_script(session),
    })
}

/// How the run's agent is started; none for one that is built into the runner.
fn agent_command(session: &Session) -> Option<AgentCommand> {
    let launch = session.run()?.agent.as_deref()?;
    let command = launch.command.as_ref()?;
    Some(AgentCommand {
        program: command.program.clone(),
        args: command.args.clone(),
        environment: launch.environment.clone(),
        endpoint: launch.endpoint.clone().map(|session::AgentEndpoint { path, variable, usual }| AgentEndpoint {
            path,
            variable,
            usual,
        }),
        directory: command.directory.clone(),
        home_files: launch.home_files.clone(),
        settings: agent::settings(session),
        mcp_servers: launch.mcp_servers.iter().map(agent::mcp_server).collect(),
        conversation: None,
    })
}

/// What the run was started with; one that an earlier release has started knows only the session's own.
fn launch_network(session: &Session) -> Option<Network> {
    let launch = session.run().and_then(|run| run.agent.as_deref());
    launch.map_or(session.spec.network.as_ref(), |launch| launch.network.as_ref()).map(network)
}

fn setup_script(session: &Session) -> Option<String> {
    let launch = session.run().and_then(|run| run.agent.as_deref());
    launch.map_or(session.spec.setup_script.as_ref(), |launch| launch.setup_script.as_ref()).cloned()
}

fn own_limits(own: &ResourceOverrides) -> OwnLimits {
    OwnLimits {
        cpu_millis: own.cpu.map(Cpu::millis),
        memory_bytes: own.memory.map(Bytes::get),
        processes: own.processes,
        disk_bytes: own.disk.map(Bytes::get),
        open_files: own.open_files,
    }
}

/// Waits until the runner answers. A local one takes some 10 ms: checks are a millisecond apart at first, and only ask compute.
pub(super) async fn await_runner(s: &Services, by: &str, i: &WorkflowInput) -> StepResult {
    let began = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(1);
    let mut looks = 0;
    loop {
        if began.elapsed() > READY_WITHIN {
            let message = format!("the runner has not answered for {} s", READY_WITHIN.as_secs());
            return Err(StepError::Retry { reason: "RunnerNotReady", message });
        }
        if looks == 0 || looks > FAST_LOOKS {
            s.active_session(i).await?;
        }
        looks += 1;
        match s.compute.state(&session_ref(i), i.run, i.attempt).await? {
            RunnerState::Running { missing_confinement } => {
                if answers(s, i).await {
                    s.readers.ensure(&i.project_id, &i.session_id, i.run);
                    return s.report(by, i, Fact::RunnerReady { missing_confinement }).await;
                }
            }
            RunnerState::Absent => {}
            ended => {
                observer::report_end(s, &session_ref(i), i.run, i.attempt, &ended).await?;
                return Ok(Progress::Superseded);
            }
        }
        tokio::time::sleep(pause).await;
        if looks > FAST_LOOKS {
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
}

async fn answers(s: &Services, i: &WorkflowInput) -> bool {
    let Ok(runner) = s.runner(i).await else { return false };
    runner.health().await.is_ok_and(|health| health.run == i.run && health.attempt == i.attempt)
}

/// Waits until the runner has recorded every message so far (the prompt among them).
pub(super) async fn await_delivery(s: &Services, i: &WorkflowInput) -> StepResult {
    let mut pause = Duration::from_millis(10);
    loop {
        s.active_session(i).await?;
        if s.db.undelivered_messages(&i.session_id, i.run).await?.is_empty() {
            return Ok(Progress::Done);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
