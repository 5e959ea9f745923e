//! The environment of the session's processes.

use std::{ffi::OsString, path::Path};

use ambient_runner_protocol::is_platform_variable;

use crate::{attempt::Attempt, confine::ENV_PREFIX, network::NetworkProxy};

/// Search path if the session names none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where systems have their certificate authorities in one file.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The agent's whole environment. The platform's part overrides the session's.
pub(crate) fn of_agent(attempt: &Attempt, turn: &str) -> Vec<(OsString, OsString)> {
    let mut environment = of_platform(attempt);
    environment.push(("AMBIENT_TURN".into(), turn.into()));
    // Agents that are not told look for it, read a folder of hundreds of files too, and do so for each message (20 ms).
    if let Some(file) = AUTHORITIES.into_iter().find(|file| Path::new(file).is_file()) {
        environment.push(("SSL_CERT_FILE".into(), file.into()));
    }
    if let Some(model) = &attempt.model {
        // The token opens our proxy, as long as this attempt lasts, and nothing else.
        environment.push(("AMBIENT_MODEL_URL".into(), model.access().url.clone().into()));
        environment.push(("AMBIENT_MODEL_TOKEN".into(), model.access().token.clone().into()));
    }
    for (name, value) in &attempt.environment {
        if !is_platform_variable(name) && !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') {
            environment.push((format!("{ENV_PREFIX}{name}").into(), value.into()));
        }
    }
    // Last, and so in place of the session's own: a proxy of people's could not be reached.
    for (name, value) in attempt.network.iter().flat_map(NetworkProxy::variables) {
        environment.push((format!("{ENV_PREFIX}{name}").into(), value.into()));
    }
    environment
}

/// The environment of an agent that is started with a command of its own: that command's variables go behind the session's.
pub(crate) fn of_acp_agent(
    attempt: &Attempt,
    own: impl Iterator<Item = (String, String)>,
    mark: &str,
) -> Vec<(OsString, OsString)> {
    let mut environment = of_agent(attempt, mark);
    environment.extend(
        own.filter(|(name, _)| !is_platform_variable(name))
            .map(|(name, value)| (format!("{ENV_PREFIX}{name}").into(), value.into())),
    );
    environment
}

/// What every process of the session has.
pub(crate) fn of_platform(attempt: &Attempt) -> Vec<(OsString, OsString)> {
    let (spec, paths) = (&attempt.spec, &attempt.paths);
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
