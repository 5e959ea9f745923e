//! The command line against a real server: its exit codes, what it prints and where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use ambient_tests::TestDatabase;
use serde_json::{Value, json};
use support::{Origin, PATIENCE, Server, binary, clean_command, eventually, processes, script};

struct Cli {
    _database: TestDatabase,
    server: Server,
}

impl Cli {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let server = Server::start(&database, "one").await;
        server.project("cli").await;
        Self { _database: database, server }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = clean_command(binary("ambient"));
        let home = self.server.dir.path();
        command.args(arguments).env("HOME", home).env("AMBIENT_CONFIG", home.join("config.toml"));
        command.env("AMBIENT_URL", format!("http://{}", self.server.address()));
        command.env("AMBIENT_TOKEN", self.server.token()).env("AMBIENT_PROJECT", "cli");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        end_of(self.command(arguments).spawn().unwrap()).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Output of a command that ends in time.
async fn end_of(child: Child) -> Output {
    let (pid, started) = (child.id(), Instant::now());
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let ended = tokio::time::timeout(PATIENCE, waiting).await;
    ended
        .unwrap_or_else(|_| {
            processes::signal(pid, "KILL");
            panic!("a command did not end within {:?}", started.elapsed())
        })
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn run_ends_with_the_result_of_the_session() {
    let cli = Cli::new().await;
    let origin = Origin::new();
    let good = script("echo made >> log.txt\ngit commit -qam made\ncat log.txt");
    let run = cli.run(&["run", "--prompt", &good, "--repo", &origin.url(), "--push", "out"]).await;
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(text(&run.stdout).contains("start\nmade\n"), "{}", text(&run.stdout));
    assert_eq!(origin.file("out", "log.txt"), "start\nmade\n");
    // What the agent left, not what was cloned.
    let list = cli.json(&["session", "list"]).await;
    let session = cli.json(&["session", "get", list["items"][0]["id"].as_str().unwrap()]).await;
    let pushed = origin.git(&origin.path(), &["rev-parse", "out"]);
    assert_eq!(session["reconciled_repos"][0]["head"], pushed.trim(), "{session}");

    let failing = format!("{}\n{}", script("echo before; exit 37"), script("echo never"));
    let run = cli.run(&["run", "--name", "failing", "--prompt", &failing]).await;
    let told = text(&run.stdout) + &text(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("before") && told.contains("37") && !told.contains("never\n"), "{told}");

    let run = cli.run(&["run", "--name", "long", "--timeout", "2", "--prompt", &script("echo began; sleep 600")]).await;
    assert_eq!(run.status.code(), Some(124), "{}", text(&run.stderr));

    let list = cli.json(&["session", "list"]).await;
    let items = list["items"].as_array().unwrap();
    let named = |name: &str| items.iter().find(|session| session["name"] == name).unwrap();
    let failed = named("failing");
    assert_eq!((&failed["phase"], &failed["outcome"]["exit_code"]), (&Value::from("Failed"), &Value::from(37)));
    assert_eq!((&named("long")["phase"], &named("long")["outcome"]["reason"]), (&"Failed".into(), &"Timeout".into()));
    cli.server.verified().await;
}

#[tokio::test]
async fn ctrl_c_stops_the_session_of_run() {
    let cli = Cli::new().await;
    let child =
        cli.command(&["run", "--name", "endless", "--prompt", &script("echo began; sleep 600")]).spawn().unwrap();
    let id = eventually("run has made its session", async || {
        let list = cli.server.get("/sessions").await.expect(200);
        list["items"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    cli.server.printed(&id, "began").await;
    processes::signal(child.id(), "INT");
    let output = end_of(child).await;
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let session = cli.server.phase(&id, "Stopped").await;
    assert_eq!(session["outcome"]["reason"], "UserStopped");
    assert!(processes::marked(&processes::nonces_of(&cli.server.session_dir(&id))).is_empty());
}

#[tokio::test]
async fn wrong_calls_are_told_apart_by_their_exit_codes() {
    let cli = Cli::new().await;
    let code = async |arguments: &[&str]| cli.run(arguments).await.status.code();
    assert_eq!(code(&["run"]).await, Some(64));
    assert_eq!(code(&["run", "--prompt", "x", "--bogus"]).await, Some(64));
    assert_eq!(code(&["session", "get", "nope"]).await, Some(4));
    let unknown = cli.run(&["run", "--agent-type", "nobodys", "--prompt", "x"]).await;
    assert_eq!(unknown.status.code(), Some(4), "{}", text(&unknown.stderr));
    let told = text(&unknown.stderr);
    assert!(told.contains("nobodys") && told.contains("script"), "an unknown agent type lists those there are: {told}");
    let former = cli.run(&["run", "--agent", "script", "--prompt", "x"]).await;
    assert_eq!(former.status.code(), Some(4));
    assert!(text(&former.stderr).contains("--agent-type"), "{}", text(&former.stderr));
    assert_eq!(told.lines().count(), 1, "a problem is told once: {told}");
    let mut stranger = cli.command(&["session", "list"]);
    assert_eq!(end_of(stranger.env("AMBIENT_TOKEN", "wrong").spawn().unwrap()).await.status.code(), Some(77));
    let mut nobody = cli.command(&["session", "list"]);
    let nobody = end_of(nobody.env("AMBIENT_URL", "http://127.0.0.1:9").spawn().unwrap()).await;
    assert_eq!(nobody.status.code(), Some(69));
    assert_eq!(nobody.stdout, b"", "what is no data goes to standard error");
}

#[tokio::test]
async fn what_came_of_each_message_is_told_with_commits_and_files_whoever_died_meanwhile() {
    let mut cli = Cli::new().await;
    let origin = Origin::new();
    let first = script("echo one >> log.txt\ngit commit -qam 'Say one'\necho loose > loose.txt");
    let created = cli
        .json(&["session", "create", "--name", "two-turns", "--repo", &origin.url(), "--prompt", &first, "--start"])
        .await;
    let id = created["id"].as_str().unwrap().to_owned();
    let ended = async |cli: &Cli, turn: &str| {
        eventually("the turn is over", async || {
            let turns = cli.json(&["session", "turns", &id]).await;
            let of = turns["items"].as_array().unwrap().iter().find(|item| item["id"] == turn).cloned();
            of.filter(|turn| !turn["ended_at"].is_null())
        })
        .await
    };
    let one = ended(&cli, "1-1").await;
    assert_eq!(
        (&one["status"], &one["tool_calls"], &one["repos"][0]["branch"]),
        (&json!("finished"), &json!(1), &json!("main"))
    );
    let files = |turn: &Value| -> Vec<String> {
        let files = turn["repos"][0]["changes"]["files"].as_array().unwrap();
        files.iter().map(|file| format!("{} {}", file["path"].as_str().unwrap(), file["added"])).collect()
    };
    assert_eq!(files(&one), ["log.txt 1", "loose.txt 1"]);
    assert_eq!(one["repos"][0]["changes"]["commits"][0]["subject"], "Say one");

    // The server dies in the second turn; the runner goes on, and what it did counts once.
    let second = script("echo began; sleep 2; rm loose.txt; git commit -q --allow-empty -m 'Say two'; exit 3");
    cli.run(&["session", "send", &id, &second]).await;
    cli.server.printed(&id, "began").await;
    let working = cli.json(&["session", "turns", &id, "1-2"]).await;
    assert_eq!((&working["status"], &working["ended_at"]), (&json!("working"), &Value::Null));
    cli.server.kill();
    cli.server.restart().await;
    let two = ended(&cli, "1-2").await;
    assert_eq!((&two["status"], &two["code"], &two["exit_code"]), (&json!("error"), &json!("ScriptFailed"), &json!(3)));
    assert_eq!(files(&two), ["loose.txt 0"], "only what this turn has changed");
    let commits = two["repos"][0]["changes"]["commits"].as_array().unwrap();
    assert_eq!(commits.iter().map(|commit| commit["subject"].as_str().unwrap()).collect::<Vec<_>>(), ["Say two"]);
    let shown = text(&cli.run(&["session", "turns", &id, "1-1"]).await.stdout);
    assert!(
        shown.contains("Say one (") && shown.contains("log.txt (+1 -0)") && shown.contains("+++ b/loose.txt"),
        "{shown}"
    );
    let listed = text(&cli.run(&["session", "turns", &id]).await.stdout);
    assert!(listed.lines().nth(1).unwrap().starts_with("1-2    error"), "{listed}");
    assert_eq!(cli.run(&["session", "turns", &id, "1-9"]).await.status.code(), Some(4));
    cli.server.verified().await;
}

#[tokio::test]
async fn wrong_words_about_repositories_and_labels_are_refused_with_what_is_meant() {
    let cli = Cli::new().await;
    let (origin, other) = (Origin::new(), Origin::new());
    let told = async |arguments: &[&str], code: i32| {
        let output = cli.run(arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    };
    let twice = told(&["session", "create", "--name", "x", "--label", "a=1", "--label", "a=2"], 64).await;
    assert!(twice.contains("--label: 'a' is given twice"), "{twice}");
    told(&["session", "create", "--name", "one", "--label", "a=1", "--label", "b=1"], 0).await;
    let repos = ["--repo", &origin.url(), "--repo", &other.url()];
    let chat = [&["session", "create", "--name", "two", "--label", "a=1", "--start"], &repos[..]].concat();
    told(&chat, 0).await;
    let listed = cli.json(&["session", "list", "--label", "a=1", "--label", "b=1"]).await;
    assert_eq!((listed["total"].as_u64(), listed["items"][0]["name"].as_str()), (Some(1), Some("one")));
    let id = cli.json(&["session", "list", "--name", "two"]).await["items"][0]["id"].as_str().unwrap().to_owned();
    cli.server.phase(&id, "Running").await;
    eventually("the repositories are there", async || {
        let session = cli.json(&["session", "get", &id]).await;
        (session["reconciled_repos"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    // In the same words, whoever finds that it is missing.
    let needed =
        [told(&["session", "diff", &id], 64).await, told(&["session", "push", &id, "--branch", "b"], 64).await];
    assert!(needed[0].contains("--repo: is required; there are ") && needed[0] == needed[1], "{needed:?}");
    let repo = cli.json(&["session", "get", &id]).await["reconciled_repos"][0]["name"].as_str().unwrap().to_owned();
    let whole = told(&["session", "push", &id, "--repo", &repo, "--branch", "refs/heads/z"], 65).await;
    assert!(whole.contains("name the branch alone, 'z'"), "{whole}");
}

#[tokio::test]
async fn an_origin_that_may_not_be_written_is_told_by_what_and_where() {
    let cli = Cli::new().await;
    let origin = Origin::new();
    let closed = |mode: &str, part: &str| {
        let chmod = Command::new("chmod").args(["-R", mode]).arg(origin.path().join(part)).status().unwrap();
        assert!(chmod.success());
    };
    let prompt = script("git commit -q --allow-empty -m made");
    for (part, place) in [("objects", "/origin.git/objects"), ("refs", "/origin.git/refs/heads/out.lock")] {
        closed("a-w", part);
        let run = cli.run(&["run", "--prompt", &prompt, "--repo", &origin.url(), "--push", "out"]).await;
        let told = text(&run.stdout) + &text(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{told}");
        assert!(told.contains("cannot be written: the session's user (uid ") && told.contains(place), "{told}");
        closed("a+w", part);
    }
    let objects = origin.path().join("objects");
    let set = |mode: u32| fs::set_permissions(&objects, fs::Permissions::from_mode(mode)).unwrap();
    set(0o000);
    let run = cli.run(&["session", "create", "--name", "shut", "--repo", &origin.url(), "--start"]).await;
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    eventually("it is told that the origin cannot be read", async || {
        let session = cli.json(&["session", "get", "shut"]).await.to_string();
        session.contains("cannot be read: the session's user").then_some(())
    })
    .await;
    set(0o777);
}

#[tokio::test]
async fn migrate_says_what_came_of_it_without_notices() {
    let database = TestDatabase::empty().await;
    for time in ["first", "second"] {
        let mut migrate = clean_command(binary("ambient"));
        migrate.arg("migrate").env("AMBIENT_DATABASE_URL", database.url());
        let done = end_of(migrate.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).await;
        let told = text(&done.stderr);
        assert_eq!((done.status.code(), done.stdout.len()), (Some(0), 0), "{time}: {told}");
        assert!(told.trim_end().ends_with("is up to date") && !told.contains("skipping"), "{time}: {told}");
    }
}

#[tokio::test]
async fn a_session_is_created_listed_started_sent_to_stopped_and_deleted() {
    let cli = Cli::new().await;
    let created = cli.run(&["session", "create", "--name", "fresh", "-o", "name"]).await;
    assert_eq!(created.status.code(), Some(0), "{}", text(&created.stderr));
    let id = text(&created.stdout).trim().to_owned();
    let list = text(&cli.run(&["session", "list"]).await.stdout);
    let line = list.lines().find(|line| line.contains("fresh")).unwrap_or_else(|| panic!("{list}"));
    assert!(line.contains("New"), "a session that was never started is New: {list}");
    assert_eq!(cli.run(&["session", "stop", &id]).await.status.code(), Some(5), "it was never started");

    let done = async |arguments: &[&str]| {
        let output = cli.run(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    done(&["session", "start", &id]).await;
    cli.server.phase(&id, "Running").await;
    done(&["session", "send", &id, &script("echo content > a.txt; echo sent")]).await;
    cli.server.printed(&id, "sent").await;
    assert!(done(&["session", "files", &id]).await.contains("a.txt"));
    assert_eq!(done(&["session", "files", &id, "a.txt"]).await, "content\n");
    assert!(done(&["session", "logs", &id]).await.contains("sent"));
    done(&["session", "stop", &id]).await;
    cli.server.phase(&id, "Stopped").await;
    assert!(done(&["executions", "history", &format!("session-stop/{id}/1")]).await.contains("terminate-runner"));

    done(&["session", "start", &id, "--wait"]).await;
    let path = cli.server.dir.path().join("followed");
    let mut following = cli.command(&["session", "logs", &id, "--follow"]);
    let following = following.stdout(std::fs::File::create(&path).unwrap()).spawn().unwrap();
    let printed = || std::fs::read_to_string(&path).unwrap();
    eventually("the first run is shown", async || printed().contains("sent\n").then_some(())).await;
    done(&["session", "send", &id, &script("echo again")]).await;
    cli.server.printed(&id, "again").await;
    done(&["session", "stop", &id, "--wait"]).await;
    let followed = end_of(following).await;
    let (out, err) = (printed(), text(&followed.stderr));
    assert_eq!(followed.status.code(), Some(0), "{err}");
    let lines: Vec<_> = out.lines().filter(|line| ["sent", "again"].contains(line)).collect();
    assert_eq!(lines, ["sent", "again"], "the messages of the first run, then what happens: {out}");
    assert_eq!(err.matches("● Running").count(), 1, "the first run is shown as its messages: {err}");
    assert!(done(&["operations", "list", "--entity-id", &id]).await.contains("stop"));
    assert!(done(&["executions", "list", "--session", &id]).await.contains("session-stop"));
    done(&["replay", "verify"]).await;
    done(&["session", "delete", &id]).await;
    assert_eq!(cli.run(&["session", "get", &id]).await.status.code(), Some(4));
}

#[tokio::test]
async fn a_workspace_is_filled_from_outside_and_goes_with_its_origin() {
    let cli = Cli::new().await;
    let origin = Origin::new();
    cli.run(&["session", "create", "--name", "w", "--repo", &origin.url(), "--start"]).await;
    let done = async |arguments: &[&str]| {
        let output = cli.run(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let id = done(&["session", "get", "w", "-o", "name"]).await.trim().to_owned();
    cli.server.phase(&id, "Running").await;
    let repo = eventually("it is cloned", async || {
        let session = cli.server.get(&format!("/sessions/{id}")).await.expect(200);
        session["reconciled_repos"][0]["name"].as_str().map(str::to_owned)
    })
    .await;
    let within = |path: &str| format!("{repo}/{path}");

    // A file goes in, belongs to the agent, and comes out.
    let local = cli.server.dir.path().join("tool.sh");
    fs::write(&local, "#!/bin/sh\necho from outside\n").unwrap();
    fs::set_permissions(&local, fs::Permissions::from_mode(0o755)).unwrap();
    let local = local.display().to_string();
    done(&["session", "put", "w", &local, &within("bin/"), "--parents"]).await;
    let (run, odd) = (
        "./bin/tool.sh; echo more >> bin/tool.sh",
        "mkdir -p bin/locked/in; chmod 0 bin/locked; echo odd > $'odd\\xff'; echo made",
    );
    done(&["session", "send", "w", &script(&format!("{run}; {odd}"))]).await;
    cli.server.printed(&id, "from outside").await;
    cli.server.printed(&id, "made").await;
    assert!(done(&["session", "cat", "w", &within("bin/tool.sh")]).await.ends_with("outside\nmore\n"));
    assert_eq!(done(&["session", "cat", "w", &within(r"odd\xff")]).await, "odd\n");
    let listed = done(&["session", "files", "w", &repo, "-o", "name"]).await;
    assert!(listed.lines().any(|line| line == within(r"odd\xff")), "{listed}");
    done(&["session", "mv", "w", &within(r"odd\xff"), &within("even")]).await;
    let refused = cli.run(&["session", "put", "w", &local, &within("even"), "--no-clobber"]).await;
    assert_eq!(refused.status.code(), Some(5), "{}", text(&refused.stderr));
    assert!(cli.json(&["session", "stat", "w", &within("even"), "--sha256"]).await["sha256"].is_string());
    let mut piped = cli.command(&["session", "put", "w", "-", &within("piped")]);
    let mut child = piped.stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"piped\n").unwrap();
    assert_eq!(end_of(child).await.status.code(), Some(0));
    assert!(done(&["session", "diff", "w", "piped"]).await.ends_with("+piped\n"));
    done(&["session", "rm", "w", &within("bin"), "--recursive"]).await;
    assert_eq!(cli.run(&["session", "rm", "w", &within("bin")]).await.status.code(), Some(4));

    // The origin goes on, and so does the agent.
    done(&["session", "branch", "w", "topic", "--switch"]).await;
    done(&["session", "send", "w", &script("git add -A; git commit -qm ours; echo committed")]).await;
    cli.server.printed(&id, "committed").await;
    let work = origin.path().with_file_name("work");
    fs::write(work.join("log.txt"), "start\ntheirs\n").unwrap();
    origin.git(&work, &["-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-qam", "theirs"]);
    origin.git(&work, &["push", "-q", "../origin.git", "main"]);
    origin.open_to_everyone();
    let status = cli.json(&["session", "merge-status", "w"]).await;
    assert_eq!(
        (&status["ahead"], &status["behind"], &status["conflicts"]),
        (&1.into(), &1.into(), &Value::Array(Vec::new()))
    );
    assert_eq!(cli.run(&["session", "pull", "w"]).await.status.code(), Some(5), "there are commits on both sides");
    assert!(done(&["session", "sync", "w", "--branch", "main", "--rebase"]).await.contains("pushed 1 commit"));
    assert_eq!(
        (origin.file("main", "piped").as_str(), origin.file("main", "log.txt").as_str()),
        ("piped\n", "start\ntheirs\n")
    );
    let log = done(&["session", "log", "w"]).await;
    let subjects: Vec<_> = log.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(subjects, ["ours", "theirs", "start"], "{log}");
    assert!(done(&["session", "branches", "w"]).await.contains("topic*"));

    let given_up = cli.json(&["session", "abandon", "w"]).await;
    assert_eq!((&given_up["commits"], &given_up["files"]), (&2.into(), &0.into()));
    assert_eq!(done(&["session", "cat", "w", &within("log.txt")]).await, "start\n");
    done(&["session", "branch", "w", "back", "--from", given_up["reference"].as_str().unwrap(), "--switch"]).await;
    assert_eq!(done(&["session", "cat", "w", &within("piped")]).await, "piped\n");
    done(&["session", "stop", "w", "--wait"]).await;
    let stopped = cli.run(&["session", "put", "w", &local, "x"]).await;
    assert!(
        stopped.status.code() == Some(5) && text(&stopped.stderr).contains("start it with"),
        "{}",
        text(&stopped.stderr)
    );
}
