//! Whether an installed agent starts: it is asked who it is and what it can do, and ended.
//!
//! It gets a home and an environment of its own, and no model: there is nothing that it could tell anybody. A server of root starts it as another user, as sessions do; so it is also seen whether they can read it.

use std::{path::Path, process::Stdio, time::Duration};

use ambient_api::AgentType;
use ambient_domain::session::AgentCommand;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Timeout for an agent to say what it can do: some take half a minute on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of what it writes is read, bytes.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// How much of what it writes to standard error is told, bytes: the end of it.
const MAX_WORDS: usize = 512;
/// After its end, how long its standard error is still read.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The user with the fewest rights, `nobody`.
const NOBODY: u32 = 65534;
/// Where it is told that models are.
const NOWHERE: &str = "http://127.0.0.1:9";

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name, as it says; empty if it does not.
    pub name: String,
    /// Its version, as it says; empty if it does not.
    pub version: String,
    /// What it offers, in words: `load`, `image`, `mcp http`.
    pub offers: Vec<String>,
}

/// Starts an agent, asks it, and ends it.
///
/// # Errors
/// In words: why it cannot be started, or what it says instead.
pub async fn check(known: &AgentType) -> Result<Checked, String> {
    let command = known.launch.command.as_ref().ok_or("it has no command")?;
    let home = tempfile::tempdir().map_err(|error| format!("it can have no home: {error}"))?;
    lay_down(known, home.path()).map_err(|error| format!("its files cannot be written: {error}"))?;
    let mut child = start(known, command, home.path()).map_err(|error| format!("it cannot be started: {error}"))?;
    let group = child.id();
    // Read all the time: one that is full of words would wait to be read.
    let words = tokio::spawn(last_words(child.stderr.take()));
    let answer = match child.stdin.take().zip(child.stdout.take()) {
        Some((stdin, stdout)) => timeout(PATIENCE, ask(stdin, stdout)).await,
        None => Ok(Err("it has no pipes".to_owned())),
    };
    let answer =
        answer.unwrap_or_else(|_| Err(format!("it does not say what it can do within {} s", PATIENCE.as_secs())));
    // Its children too: they are in its group, since it has run nothing for anybody.
    if let Some(group) = group.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait().await;
    // Whatever holds it open beyond its end.
    let words = timeout(LAST_WORDS, words).await.ok().and_then(Result::ok).unwrap_or_default();
    let answer = answer.map_err(|reason| if words.is_empty() { reason } else { format!("{reason}: {words}") })?;
    let info = |field: &str| shown(answer["agentInfo"][field].as_str().unwrap_or_default());
    Ok(Checked { name: info("name"), version: info("version"), offers: offers(&answer["agentCapabilities"]) })
}

/// Values that look like those of a session: some do not start without. At that address nobody listens.
fn put(text: &str, home: &str) -> String {
    let text = text.replace("{home}", home).replace("{workspace}", home);
    let text = text.replace("{endpoint}", NOWHERE).replace("{model_url}", NOWHERE);
    text.replace("{model}", "none").replace("{model_token}", "none")
}

fn lay_down(known: &AgentType, home: &Path) -> std::io::Result<()> {
    let word = home.to_string_lossy();
    let mut made = vec![home.to_owned()];
    for (name, text) in &known.launch.home_files {
        let path = home.join(name);
        let folder = path.parent().unwrap_or(home);
        std::fs::create_dir_all(folder)?;
        let text = put(text, &word);
        std::fs::write(&path, text)?;
        made.extend(folder.ancestors().take_while(|above| *above != home).map(Path::to_owned));
        made.push(path);
    }
    if rustix::process::geteuid().is_root() {
        for path in made {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
        }
    }
    Ok(())
}

fn start(known: &AgentType, command: &AgentCommand, home: &Path) -> std::io::Result<Child> {
    let word = home.to_string_lossy();
    let mut child = Command::new(&command.program);
    child.args(command.args.iter().map(|arg| put(arg, &word))).current_dir(home).env_clear();
    child.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    child.env("HOME", home).env("TMPDIR", home).env("LANG", "C.UTF-8").env("TERM", "dumb");
    child.envs(known.variables.iter().map(|name| (name, "none")));
    child.envs(known.launch.environment.iter().map(|(name, value)| (name, put(value, &word))));
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    if rustix::process::geteuid().is_root() {
        child.uid(NOBODY).gid(NOBODY);
    }
    child.spawn()
}

async fn ask(mut stdin: ChildStdin, stdout: ChildStdout) -> Result<Value, String> {
    let question = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": 1,
        "clientCapabilities": { "fs": { "readTextFile": true, "writeTextFile": true }, "terminal": true },
        "clientInfo": { "name": "ambient", "version": env!("CARGO_PKG_VERSION") },
    } });
    let ended = |error: std::io::Error| format!("it does not listen: {error}");
    stdin.write_all(format!("{question}\n").as_bytes()).await.map_err(ended)?;
    stdin.flush().await.map_err(ended)?;
    let mut lines = BufReader::new(stdout.take(MAX_OUTPUT)).lines();
    loop {
        let line = lines.next_line().await.map_err(|error| format!("it cannot be read: {error}"))?;
        let line = line.ok_or("it ended, or wrote very much, without an answer")?;
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        if message["id"] != 0 || message.get("method").is_some() {
            continue;
        }
        if let Some(error) = message.get("error").filter(|error| !error.is_null()) {
            return Err(format!("it refuses: {}", shown(error["message"].as_str().unwrap_or_default())));
        }
        let answer = message["result"].clone();
        return match answer["protocolVersion"].as_u64() {
            Some(1) => Ok(answer),
            Some(other) => Err(format!("it speaks version {other} of the Agent Client Protocol, and not 1")),
            None => Err("it does not say which version of the Agent Client Protocol it speaks".to_owned()),
        };
    }
}

/// Reads standard error to its end; returns the last of it.
async fn last_words(stderr: Option<ChildStderr>) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let (mut kept, mut part) = (Vec::new(), [0; MAX_WORDS]);
    while let Ok(read @ 1..) = stderr.read(&mut part).await {
        kept.extend_from_slice(&part[..read]);
        kept.drain(..kept.len().saturating_sub(MAX_WORDS));
    }
    shown(String::from_utf8_lossy(&kept).trim())
}

/// What of its capabilities makes a difference.
fn offers(capabilities: &Value) -> Vec<String> {
    let all = [
        ("load", &capabilities["loadSession"]),
        ("image", &capabilities["promptCapabilities"]["image"]),
        ("audio", &capabilities["promptCapabilities"]["audio"]),
        ("embedded context", &capabilities["promptCapabilities"]["embeddedContext"]),
        ("mcp http", &capabilities["mcpCapabilities"]["http"]),
        ("mcp sse", &capabilities["mcpCapabilities"]["sse"]),
    ];
    let mut offers: Vec<String> =
        all.into_iter().filter(|(_, offered)| **offered == true).map(|(name, _)| name.to_owned()).collect();
    let of_sessions = capabilities["sessionCapabilities"].as_object().into_iter().flatten();
    offers.extend(
        of_sessions.filter(|(_, offered)| !offered.is_null()).map(|(name, _)| format!("session {}", shown(name))),
    );
    offers
}

/// For a terminal: what an agent says is no more than text.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').take(MAX_WORDS).collect::<String>().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use ambient_domain::session::AgentLaunch;

    use super::*;

    /// An agent that is a shell script.
    fn agent(script: &str) -> AgentType {
        let args = vec!["-c".to_owned(), script.to_owned(), "{model}".to_owned()];
        let launch = AgentLaunch {
            command: Some(AgentCommand { program: "/bin/sh".to_owned(), args, directory: None }),
            environment: [("SEEN".to_owned(), "{home}".to_owned()), ("URL".to_owned(), "{endpoint}/v1".to_owned())]
                .into(),
            home_files: [(".a/b.toml".to_owned(), "home = {home}\n".to_owned())].into(),
            ..AgentLaunch::default()
        };
        AgentType { name: "a".into(), title: "A".into(), installed: true, variables: vec!["KEY".into()], launch }
    }

    #[tokio::test]
    async fn an_agent_says_who_it_is_and_what_does_not_is_told_with_its_words() {
        let answer = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":1,"agentInfo":{"name":"A\u001b","version":"1"},"agentCapabilities":{"loadSession":true,"mcpCapabilities":{"http":true},"sessionCapabilities":{"list":{}}}}}"#;
        let script = format!(
            r#"read line; test "$SEEN" = "$HOME" && test "$URL" = http://127.0.0.1:9/v1 && test "$0" = none && test "$KEY" = none && test "$(cat .a/b.toml)" = "home = $HOME" && echo noise && echo '{answer}'; sleep 600"#
        );
        let checked = check(&agent(&script)).await.unwrap();
        assert_eq!((checked.name.as_str(), checked.version.as_str()), ("A", "1"));
        assert_eq!(checked.offers, ["load", "mcp http", "session list"]);
        let told = check(&agent("seq 100000 >&2; echo no library >&2; exit 1")).await.unwrap_err();
        assert!(told.ends_with(" 100000 no library"), "{told}");
        let other = r#"echo '{"id":0,"result":{"protocolVersion":2}}'"#;
        let told = check(&agent(&format!("read line; {other}; sleep 600"))).await.unwrap_err();
        assert!(told.contains("version 2"), "{told}");
    }

    #[tokio::test]
    async fn a_program_that_others_may_not_run_does_not_pass_on_a_server_of_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let program = dir.path().join("agent");
        std::fs::copy("/bin/sh", &program).unwrap();
        let mut agent = agent(r#"read line; echo '{"id":0,"result":{"protocolVersion":1}}'"#);
        agent.launch.command.as_mut().unwrap().program = program.to_string_lossy().into_owned();
        let checked = check(&agent).await;
        assert_eq!(checked.is_err(), rustix::process::geteuid().is_root(), "{checked:?}");
    }
}
