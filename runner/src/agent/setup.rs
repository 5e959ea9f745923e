//! What prepares the workspace before the agent's first turn: the session's or its agent's script, else `.ambient/setup.sh` of each
//! repository, run with the agent's rights as tool calls of that turn. It is not run again in the same workspace until a
//! script or a lock file is another.

use std::{path::PathBuf, time::Duration};

use ambient_runner_protocol::EXIT_PREREQUISITE;
use ambient_wire::runner_event::SETUP_SCRIPT;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::shell;
use crate::{
    attempt::Attempt,
    content, event,
    file_change::hex,
    git::repos::Repos,
    life,
    log::LogError,
    process::Mark,
    turn::{INTERRUPT_PATIENCE, Turn, TurnEnd},
};

/// A repository's own script, in its folder.
const OF_REPOSITORY: &str = ".ambient/setup.sh";
/// Longest script, bytes.
const MAX_SCRIPT: u64 = 64 * 1024;
/// Longest lock file that is read, bytes.
const MAX_LOCK: u64 = 32 * 1024 * 1024;
/// Timeout for each script.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// Files that say which versions a repository depends on, in its top folder.
const LOCKS: [&str; 27] = [
    "Cargo.lock",
    "Gemfile.lock",
    "Package.resolved",
    "Pipfile.lock",
    "Podfile.lock",
    "bun.lock",
    "bun.lockb",
    "composer.lock",
    "conda-lock.yml",
    "deno.lock",
    "flake.lock",
    "go.sum",
    "gradle.lockfile",
    "mix.lock",
    "npm-shrinkwrap.json",
    "package-lock.json",
    "packages.lock.json",
    "paket.lock",
    "pdm.lock",
    "pixi.lock",
    "pnpm-lock.yaml",
    "poetry.lock",
    "pubspec.lock",
    "pylock.toml",
    "requirements.txt",
    "uv.lock",
    "yarn.lock",
];

/// Whether the workspace is ready, as far as this attempt knows.
#[derive(Default)]
pub(crate) struct Setup {
    is_done: bool,
}

/// A script to run.
struct Script {
    title: String,
    text: String,
    folder: PathBuf,
}

/// What is on record.
#[derive(Serialize, Deserialize)]
struct Done {
    key: String,
}

impl Setup {
    /// Prepares the workspace, unless that has been done. How the turn ends, if it cannot go on.
    ///
    /// # Errors
    /// When the log fails.
    pub(crate) async fn prepare(&mut self, turn: &Turn) -> Result<Option<TurnEnd>, LogError> {
        if self.is_done {
            return Ok(None);
        }
        let attempt = &turn.app.attempt;
        let scripts = match scripts(attempt, &turn.app.repos).await {
            Ok(scripts) => scripts,
            Err(reason) => return Ok(Some(failed(turn, &reason, ""))),
        };
        let before = key(attempt, &turn.app.repos, &scripts).await;
        if !scripts.is_empty() && (before.is_none() || before != on_record(attempt)) {
            for (number, script) in (1..).zip(&scripts) {
                if let Some(end) = run(turn, number, script).await? {
                    return Ok(Some(end));
                }
            }
            // A script may write the lock files itself.
            if let Some(key) = key(attempt, &turn.app.repos, &scripts).await
                && let Err(error) = life::write_record(&attempt.paths.setup(), &Done { key })
            {
                life::note_want_of_space(&error);
                tracing::warn!(%error, "what was set up is not recorded, and will be done again");
            }
        }
        self.is_done = true;
        Ok(None)
    }
}

async fn run(turn: &Turn, number: u32, script: &Script) -> Result<Option<TurnEnd>, LogError> {
    let id = format!("{}/setup/{number}", turn.run_id);
    let file = format!("setup-{}-{number}.sh", turn.number);
    let call = shell::Call { turn, id: id.clone(), title: &script.title, file };
    let Ok(ended) = timeout(PATIENCE, call.run(&script.text, &script.folder)).await else {
        turn.app.attempt.processes.end(Mark::Turn(turn.run_id.clone()), INTERRUPT_PATIENCE).await;
        turn.emit(vec![event::shell_result(&id, "", None)]).await?;
        return Ok(Some(failed(
            turn,
            &script.title,
            &format!("it took longer than {} minutes", PATIENCE.as_secs() / 60),
        )));
    };
    Ok(match ended? {
        shell::Ended::Success => None,
        shell::Ended::Stopped => Some(TurnEnd::Stopped),
        shell::Ended::Failure { reason, .. } => Some(failed(turn, &script.title, &reason)),
    })
}

fn failed(turn: &Turn, what: &str, reason: &str) -> TurnEnd {
    let because = if reason.is_empty() { String::new() } else { format!(" failed: {reason}") };
    let again = if turn.app.attempt.spec.interactive { ", and the next message tries again" } else { "" };
    let message = format!("{what}{because}; the agent was not asked{again}");
    TurnEnd::failed("SetupFailed", message, Some(EXIT_PREREQUISITE))
}

/// The scripts to run, in order.
async fn scripts(attempt: &Attempt, repos: &Repos) -> Result<Vec<Script>, String> {
    if let Some(text) = &attempt.spec.setup_script {
        let (title, folder) = (SETUP_SCRIPT.to_owned(), repos.working_directory());
        let script = Script { title, text: text.clone(), folder };
        return Ok(if text.trim().is_empty() { Vec::new() } else { vec![script] });
    }
    let workspace = attempt.paths.workspace();
    let mut scripts = Vec::new();
    for name in repos.names() {
        let path = format!("{name}/{OF_REPOSITORY}");
        let title = format!("{SETUP_SCRIPT} {path}");
        let Some(bytes) =
            content::small_file(&workspace, &path, MAX_SCRIPT).await.map_err(|e| format!("{title}: {e}"))?
        else {
            continue;
        };
        let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| format!("{title}: must be UTF-8 text"))?;
        if !text.trim().is_empty() {
            scripts.push(Script { title, text, folder: workspace.join(name) });
        }
    }
    Ok(scripts)
}

/// What the scripts and the repositories' lock files come to; none if one of these cannot be read, and so could be any.
async fn key(attempt: &Attempt, repos: &Repos, scripts: &[Script]) -> Option<String> {
    let mut all = Sha256::new();
    let mut add = |name: &str, bytes: &[u8]| {
        all.update(format!("{}:{name}:{}:", name.len(), bytes.len()));
        all.update(bytes);
    };
    for script in scripts {
        add(&script.title, script.text.as_bytes());
    }
    let workspace = attempt.paths.workspace();
    for name in repos.names() {
        for lock in LOCKS {
            let path = format!("{name}/{lock}");
            match content::small_file(&workspace, &path, MAX_LOCK).await {
                Ok(Some(bytes)) => add(&path, &bytes),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%path, %error, "a lock file cannot be read");
                    return None;
                }
            }
        }
    }
    Some(hex(&all.finalize()))
}

fn on_record(attempt: &Attempt) -> Option<String> {
    let bytes = std::fs::read(attempt.paths.setup()).ok()?;
    serde_json::from_slice(&bytes).ok().map(|Done { key }| key)
}
