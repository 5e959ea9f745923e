//! Agents this build can host.

mod blocks;
pub(crate) mod event;
mod output;
mod script;
mod shell;

use std::ffi::OsString;

use ambient_wire::runner::is_platform_variable;

use crate::{
    app::App,
    confine::ENV_PREFIX,
    log::LogError,
    turn::{Turn, TurnEnd},
};

/// Names of the agents of this build.
pub(crate) const AVAILABLE: [&str; 1] = ["script"];

/// Search path if the session names none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Works on one message.
///
/// # Errors
/// When the log fails.
pub(crate) async fn work(turn: &Turn) -> Result<TurnEnd, LogError> {
    match turn.app.spec.agent.as_str() {
        "script" => script::work(turn).await,
        other => Ok(TurnEnd::failed("AgentError", format!("agent '{other}' is not in this build"), None)),
    }
}

/// The agent's whole environment. The platform's part overrides the session's.
pub(crate) fn environment(app: &App, turn: &str) -> Vec<(OsString, OsString)> {
    let mut environment = platform_environment(app);
    environment.push(("AMBIENT_TURN".into(), turn.into()));
    for (name, value) in &app.environment {
        if !is_platform_variable(name) && !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') {
            environment.push((format!("{ENV_PREFIX}{name}").into(), value.into()));
        }
    }
    environment
}

/// What every process of the session has.
pub(crate) fn platform_environment(app: &App) -> Vec<(OsString, OsString)> {
    let (spec, paths) = (&app.spec, &app.paths);
    vec![
        ("HOME".into(), paths.home().into()),
        ("TMPDIR".into(), paths.tmp().into()),
        ("PATH".into(), DEFAULT_PATH.into()),
        ("LANG".into(), "C.UTF-8".into()),
        // The session's user id has no entry in the system's user database; some tools ask the environment first.
        ("USER".into(), "ambient".into()),
        ("LOGNAME".into(), "ambient".into()),
        ("TERM".into(), "dumb".into()),
        ("AMBIENT_SESSION_ID".into(), spec.session_id.clone().into()),
        ("AMBIENT_NONCE".into(), spec.nonce.clone().into()),
        ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
        ("GIT_AUTHOR_NAME".into(), spec.git_identity.name.clone().into()),
        ("GIT_AUTHOR_EMAIL".into(), spec.git_identity.email.clone().into()),
        ("GIT_COMMITTER_NAME".into(), spec.git_identity.name.clone().into()),
        ("GIT_COMMITTER_EMAIL".into(), spec.git_identity.email.clone().into()),
    ]
}
