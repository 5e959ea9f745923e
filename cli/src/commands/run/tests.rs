use std::sync::{Arc, Mutex};

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::{
    Arguments,
    commands::{Command, Invocation},
    config::Environment,
    output::capture::{self, Captured},
    stub::{self, Received, Reply, SESSION, Stub, event, ok, phase, refused},
};

struct Ran {
    result: Result<Exit, CliError>,
    out: Captured,
    err: Captured,
}

async fn run(url: &str, arguments: &[&str], interrupts: mpsc::Receiver<()>) -> Ran {
    let base = ["ambient", "run", "--project", "local", "--url", url, "--token", "t", "--reconnect", "5"];
    let Arguments { globals, command } = Arguments::try_parse_from(base.iter().chain(arguments)).unwrap();
    let Command::Run(arguments) = command else { panic!("not run") };
    let (console, out, err) = capture::console(false, false);
    let connection = Connection::new(&Invocation { globals, environment: Environment::default(), console }).unwrap();
    let result = run_interruptibly(*arguments, &connection, interrupts).await;
    Ran { result, out, err }
}

/// Nobody presses Ctrl-C; keep the sender for that long.
fn undisturbed() -> (mpsc::Sender<()>, mpsc::Receiver<()>) {
    mpsc::channel(2)
}

fn course(end: &'static str, reason: &'static str) -> Vec<stub_frames::Frame> {
    vec![
        phase(1, "Pending", "Pending"),
        phase(2, "Creating", "Creating"),
        phase(5, "Running", "Running"),
        event(6, "agent.text", json!({"type": "agent.text", "message_id": "m", "text": "Working.\n"})),
        event(
            7,
            "CUSTOM",
            json!({"type": "CUSTOM", "name": "ambient.snapshot", "value": {"repo": "demo", "commit": "0123456789abcdef", "ref": ""}}),
        ),
        event(
            8,
            "repo.pushed",
            json!({
                "type": "repo.pushed", "repo": "demo", "url": "file:///r", "branch": "out", "commit": "fedcba9876543210",
                "commits": 2, "created": true, "uncommitted": 1
            }),
        ),
        event(
            8,
            "turn.ended",
            json!({"type": "turn.ended", "turn_id": "t", "message_id": "m", "last_message_seq": 1, "outcome": "finished"}),
        ),
        phase(90, "Stopping", reason),
        phase(95, end, reason),
    ]
}

mod stub_frames {
    pub(super) type Frame = ambient_wire::live::ServerFrame;
}

/// Frames in one unbroken sequence.
fn numbered(frames: Vec<stub_frames::Frame>) -> Reply {
    let renumber = |(n, frame): (i64, stub_frames::Frame)| match frame {
        stub_frames::Frame::Event { id, mut event } => {
            event.seq = n;
            stub_frames::Frame::Event { id, event }
        }
        other => other,
    };
    let frames: Vec<_> = (1..).zip(frames).map(renumber).collect();
    Reply::Live(Box::new(move |after| {
        let after = usize::try_from(after.unwrap_or_default()).unwrap();
        (frames.iter().skip(after).cloned().collect(), true)
    }))
}

fn batch_server(end: &'static str, reason: &'static str) -> impl Fn(&Received) -> Reply {
    move |request| match request.line.as_str() {
        "POST /sessions" => {
            let repos =
                json!([{"url": "file:///r", "output": {"push_to": "same", "target_branch": "out"}, "auto_push": true}]);
            ok(&stub::session(&json!({"phase": "Pending", "run": 1, "repos": repos})))
        }
        line if line.ends_with("/ws") => numbered(course(end, reason)),
        _ => refused(404, "unexpected"),
    }
}

#[tokio::test]
async fn the_exit_code_is_the_sessions() {
    let ends = [
        ("Completed", "Completed", Exit::Success),
        ("Failed", "RunnerExit", Exit::Failure),
        ("Failed", "Timeout", Exit::Timeout),
        ("Stopped", "UserStopped", Exit::Interrupted),
    ];
    for (end, reason, exit) in ends {
        let stub = Stub::start(batch_server(end, reason)).await;
        let (_sender, interrupts) = undisturbed();
        let ran = run(&stub.url, &["--prompt", "Do it"], interrupts).await;
        assert_eq!(ran.result.unwrap(), exit, "{end} {reason}");
    }
}

#[tokio::test]
async fn a_batch_session_is_made_followed_and_summed_up() {
    let stub = Stub::start(batch_server("Completed", "Completed")).await;
    let (_sender, interrupts) = undisturbed();
    let ran = run(
        &stub.url,
        &["--prompt", "Do it", "--name", "demo", "--label", "a=b", "--repo", "file:///r", "--push", "out"],
        interrupts,
    )
    .await;
    assert_eq!(ran.result.unwrap(), Exit::Success);
    let sent: Value = serde_json::from_str(&stub.requests()[0].body).unwrap();
    assert_eq!(
        (&sent["interactive"], &sent["start"], &sent["prompt"], &sent["project_id"], &sent["labels"]["a"]),
        (&json!(false), &json!(true), &json!("Do it"), &json!("local"), &json!("b"))
    );
    assert_eq!(
        sent["repos"],
        json!([{"url": "file:///r", "output": {"push_to": "same", "target_branch": "out"}, "auto_push": true}])
    );
    assert_eq!(ran.out.text(), "Working.\n");
    insta::assert_snapshot!(ran.err.text(), @"
    session 2PzyKuGf4Pp1cYCmLvjkxyDiEBD (demo)
    ● Pending
    ● Creating
    ● Running
      snapshot of demo: 0123456789ab…
      pushed 2 commits to branch out of file:///r: fedcba9
      demo: 1 changed file is not committed, so it is not in the push
    ● Stopping (Completed)
    ● Completed
    Session demo (2PzyKuGf4Pp1cYCmLvjkxyDiEBD): Completed in 9.4 s
      Pending         0.1 s
      Creating        0.3 s
      Running         8.5 s
      Stopping        0.5 s  Completed
      Completed
      snapshot of demo: 0123456789ab
      pushed 2 commits to branch out of file:///r: fedcba9
      demo: 1 changed file is not committed, so it is not in the push
    ");
}

#[tokio::test]
async fn a_killed_server_changes_nothing_but_the_time_it_takes() {
    let batch = batch_server("Completed", "Completed");
    let stub = Stub::start(move |request| match (request.line.as_str(), request.before) {
        ("POST /sessions", 0) => Reply::Cut,
        (line, 0) if line.ends_with("/ws") => {
            Reply::Live(Box::new(|_| (vec![phase(1, "Pending", ""), phase(2, "Creating", "")], false)))
        }
        (line, 1..=3) if line.ends_with("/ws") => Reply::Cut,
        _ => batch(request),
    })
    .await;
    let (_sender, interrupts) = undisturbed();
    let ran = run(&stub.url, &["--prompt", "Do it", "-o", "json"], interrupts).await;
    assert_eq!(ran.result.unwrap(), Exit::Success);
    let seqs: Vec<_> =
        ran.out.text().lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["seq"].clone()).collect();
    assert_eq!(seqs, (1..=9).map(Value::from).collect::<Vec<_>>());
    assert!(ran.err.text().contains("connection lost; resuming after seq 2 …"));
    let keys: Vec<_> = stub
        .requests()
        .into_iter()
        .filter(|r| r.line == "POST /sessions")
        .map(|r| r.headers["idempotency-key"].clone())
        .collect();
    assert_eq!((keys.len(), &keys[0]), (2, &keys[1]), "one session, whatever was lost");
}

#[tokio::test]
async fn the_first_interrupt_stops_the_session_and_the_second_leaves_it() {
    let stopped = Arc::new(Mutex::new(None::<mpsc::Sender<()>>));
    let again = Arc::clone(&stopped);
    let stub = Stub::start(move |request| match request.line.as_str() {
        "POST /sessions" => ok(&stub::session(&json!({"phase": "Pending", "run": 1}))),
        line if line.ends_with("/ws") => numbered(vec![phase(1, "Pending", ""), phase(2, "Running", "")]),
        line if line.ends_with("/stop") => {
            // The second comes once the first has taken effect.
            again.lock().unwrap().take().unwrap().try_send(()).unwrap();
            ok(&stub::session(&json!({"phase": "Stopping", "run": 1})))
        }
        _ => refused(404, "unexpected"),
    })
    .await;
    let (sender, interrupts) = mpsc::channel(2);
    *stopped.lock().unwrap() = Some(sender.clone());
    let url = stub.url.clone();
    let running = tokio::spawn(async move { run(&url, &["--prompt", "Do it", "--delete"], interrupts).await });
    // The session can be stopped only once it exists.
    while stub.cursors().is_empty() {
        tokio::task::yield_now().await;
    }
    sender.send(()).await.unwrap();
    let ran = running.await.unwrap();
    assert_eq!(ran.result.unwrap(), Exit::Interrupted);
    assert!(stub.lines().contains(&format!("POST /sessions/{SESSION}/stop")));
    assert!(!stub.lines().iter().any(|line| line.starts_with("DELETE")), "what is left to itself is not deleted");
    assert!(ran.err.text().ends_with(&format!("\n  stop:   ambient session stop {SESSION}\n")), "{}", ran.err.text());
}

/// What `run` says when it is interrupted twice, the second time this long after the server has been asked to stop the session.
async fn told_at_the_second_interrupt(pause: std::time::Duration) -> String {
    let stub = Stub::start(move |request| match request.line.as_str() {
        "POST /sessions" => ok(&stub::session(&json!({"phase": "Pending", "run": 1}))),
        line if line.ends_with("/ws") => numbered(vec![phase(1, "Pending", ""), phase(2, "Running", "")]),
        _ => ok(&stub::session(&json!({"phase": "Stopping", "run": 1}))),
    })
    .await;
    let (sender, interrupts) = mpsc::channel(2);
    let (url, stop) = (stub.url.clone(), format!("POST /sessions/{SESSION}/stop"));
    let running = tokio::spawn(async move { run(&url, &["--prompt", "Do it"], interrupts).await });
    while stub.cursors().is_empty() {
        tokio::task::yield_now().await;
    }
    sender.send(()).await.unwrap();
    while !stub.lines().contains(&stop) {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(pause).await;
    sender.send(()).await.unwrap();
    let ran = running.await.unwrap();
    assert_eq!(ran.result.unwrap(), Exit::Interrupted);
    ran.err.text()
}

#[tokio::test]
async fn a_stop_that_was_accepted_goes_on_without_the_command() {
    let told = format!("the stop goes on without this command\n  follow: ambient session attach {SESSION}\n");
    // Nothing shows from outside when the answer has arrived; a busy machine takes longer.
    for milliseconds in [50, 500, 5_000] {
        let text = told_at_the_second_interrupt(std::time::Duration::from_millis(milliseconds)).await;
        if text.ends_with(&told) {
            return;
        }
    }
    panic!("not told");
}

#[tokio::test]
async fn a_detached_run_prints_its_id() {
    let stub = Stub::start(batch_server("Completed", "Completed")).await;
    for format in ["name", "table"] {
        let (_sender, interrupts) = undisturbed();
        let ran = run(&stub.url, &["--prompt", "Do it", "--detach", "-o", format], interrupts).await;
        assert_eq!((ran.result.unwrap(), ran.out.text()), (Exit::Success, format!("{SESSION}\n")));
    }
    assert_eq!(stub.lines(), ["POST /sessions", "POST /sessions"]);
}

#[tokio::test]
async fn a_run_that_cannot_be_followed_says_how_to_go_on() {
    let batch = batch_server("Completed", "Completed");
    let stub = Stub::start(
        move |request| if request.line.ends_with("/ws") { refused(403, "not yours") } else { batch(request) },
    )
    .await;
    let (_sender, interrupts) = undisturbed();
    let ran = run(&stub.url, &["--prompt", "Do it"], interrupts).await;
    assert_eq!(ran.result.unwrap_err().exit(), Exit::Denied);
    assert!(ran.err.text().contains(&format!("ambient session attach {SESSION}")));
}

#[tokio::test]
async fn wrong_input_is_a_usage_error_before_anything_is_asked() {
    let stub = Stub::start(|_| refused(500, "asked")).await;
    for arguments in [
        ["--prompt", " ", "--name", "x"],
        ["--file", "no-such-file", "--name", "x"],
        ["--prompt", "x", "--repo", "no-such-folder"],
    ] {
        let (_sender, interrupts) = undisturbed();
        let ran = run(&stub.url, &arguments, interrupts).await;
        assert_eq!(ran.result.unwrap_err().exit(), Exit::Usage, "{arguments:?}");
    }
    assert!(stub.requests().is_empty());
}
