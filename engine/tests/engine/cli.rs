//! Temporal's own command line against the engine as a server, with a worker that comes over the socket.
//!
//! The program is named by AMBIENT_TEMPORAL_CLI, or `temporal` on PATH. Without one these tests say so and pass.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ambient_tests::TestDatabase;
use serde_json::Value;
use temporalio_client::WorkflowGetResultOptions;
use tokio::process::Command;

use crate::{
    flows,
    harness::{Host, QUEUE, eventually, options},
};

/// Longest time one command may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cli {
    program: PathBuf,
    address: SocketAddr,
}

/// What a command has printed.
struct Said {
    ok: bool,
    out: String,
    all: String,
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("AMBIENT_TEMPORAL_CLI") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("temporal")).find(|file| file.is_file())
}

impl Cli {
    fn find(address: SocketAddr) -> Option<Self> {
        let found = program().map(|program| Self { program, address });
        if found.is_none() {
            println!("skipped: no temporal CLI");
        }
        found
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--color", "never", "--address", &self.address.to_string()]);
        // Nothing of the one who runs the tests.
        command.env_clear().env("HOME", "/nonexistent").env("PATH", "/usr/bin:/bin").kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        let output = tokio::time::timeout(PATIENCE, self.command(arguments).output());
        let output = output.await.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let all = format!("{out}{}", String::from_utf8_lossy(&output.stderr));
        Said { ok: output.status.success(), out, all }
    }

    /// Runs a command that succeeds.
    async fn ok(&self, line: &str) -> String {
        let said = self.run(&words(line)).await;
        assert!(said.ok, "{line}: {}", said.all);
        said.out
    }

    async fn json(&self, line: &str) -> Value {
        let out = self.ok(&format!("{line} -o json")).await;
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{line}: {error}: {out}"))
    }

    /// Runs a command that fails.
    async fn refused(&self, line: &str) -> String {
        let said = self.run(&words(line)).await;
        assert!(!said.ok, "{line}: {}", said.all);
        said.all
    }
}

/// Words, with single quotes as in a shell.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').unwrap(),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

#[track_caller]
fn shows(out: &str, parts: &[&str]) {
    for part in parts {
        assert!(out.contains(part), "{part:?} is not in: {out}");
    }
}

fn kinds(history: &Value) -> Vec<&str> {
    history["events"].as_array().unwrap().iter().map(|e| e["eventType"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_starts_shows_and_ends_workflows() {
    let database = TestDatabase::new().await;
    let (host, address) = Host::served(&database).await;
    let Some(cli) = Cli::find(address) else { return };
    let _worker = host.worker();

    let executed = cli.json(&format!("workflow execute --task-queue {QUEUE} --type three -w e1 --input '\"a\"'")).await;
    assert_eq!((&executed["status"], &executed["result"]), (&"COMPLETED".into(), &"axxx".into()), "{executed}");
    let executed = cli.ok(&format!("workflow execute --task-queue {QUEUE} --type three -w e2 --input '\"b\"'")).await;
    shows(&executed, &["COMPLETED", "bxxx"]);
    let started = cli.json(&format!("workflow start --task-queue {QUEUE} --type inbox -w i1 --input 2")).await;
    let run = started["runId"].as_str().unwrap().to_owned();
    assert_eq!(started["workflowId"], "i1");

    cli.ok("workflow signal -w i1 --name put --input '\"x\"'").await;
    let answer = eventually("the signal is seen", || async {
        let answer = cli.json("workflow query -w i1 --type list").await;
        (answer["queryResult"] == serde_json::json!([["x"]])).then_some(answer)
    });
    answer.await;
    let stack = cli.run(&words("workflow stack -w i1")).await;
    assert!(stack.ok || stack.all.contains("__stack_trace"), "answered by the worker: {}", stack.all);
    let metadata = cli.run(&words("workflow metadata -w i1")).await;
    assert!(metadata.ok || metadata.all.contains("__temporal_workflow_metadata"), "{}", metadata.all);

    let described = cli.json("workflow describe -w i1").await;
    assert_eq!(described["workflowExecutionInfo"]["status"], "WORKFLOW_EXECUTION_STATUS_RUNNING");
    assert_eq!(described["workflowExecutionInfo"]["execution"]["runId"], *run);
    shows(&cli.ok("workflow describe -w i1").await, &["i1", "inbox", QUEUE, "Pending Activities: 0"]);
    shows(&cli.ok("workflow describe -w e1").await, &["COMPLETED", "axxx"]);

    // Follows until the workflow ends.
    let mut follow = cli.command(&words("workflow show -w i1 --follow"));
    let follow = follow.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let waits = tokio::spawn({
        let cli = Cli { program: cli.program.clone(), address };
        async move { cli.json("workflow result -w i1").await }
    });
    cli.ok("workflow signal -w i1 --name put --input '\"y\"'").await;
    let followed = tokio::time::timeout(PATIENCE, follow.wait_with_output()).await.unwrap().unwrap();
    let followed = String::from_utf8_lossy(&followed.stdout).into_owned();
    shows(
        &followed,
        &["WorkflowExecutionStarted", "WorkflowExecutionSignaled", "WorkflowExecutionCompleted", "COMPLETED"],
    );
    let result = waits.await.unwrap();
    assert_eq!(result["result"], serde_json::json!(["x", "y"]), "{result}");

    let history = cli.json("workflow show -w e1").await;
    let ids: Vec<&str> = history["events"].as_array().unwrap().iter().map(|e| e["eventId"].as_str().unwrap()).collect();
    assert_eq!(ids, (1..=ids.len()).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(kinds(&history).last(), Some(&"EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED"));
    shows(&cli.ok("workflow show -w e1").await, &["ActivityTaskScheduled", "WorkflowExecutionCompleted"]);
    shows(&cli.ok("workflow show -w e1 --detailed").await, &["ActivityTaskCompleted", "result[0]: axxx"]);
    shows(&cli.ok("workflow trace -w e1 --no-fold").await, &["three", "step"]);
    shows(&cli.refused("workflow describe -w nowhere").await, &["not found"]);
    let again = cli
        .refused(&format!(
            "workflow start --task-queue {QUEUE} --type three -w e1 --id-reuse-policy RejectDuplicate --fail-existing"
        ))
        .await;
    shows(&again, &["already"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_cancels_terminates_updates_and_resets() {
    let database = TestDatabase::new().await;
    let (host, address) = Host::served(&database).await;
    let Some(cli) = Cli::find(address) else { return };
    let _worker = host.worker();
    for id in ["c1", "t1"] {
        cli.ok(&format!("workflow start --task-queue {QUEUE} --type sleeper -w {id} --input 3600")).await;
    }
    cli.ok("workflow cancel -w c1").await;
    cli.ok("workflow result -w c1").await;
    shows(&cli.ok("workflow show -w c1").await, &["WorkflowExecutionCancelRequested", "TimerCanceled"]);
    cli.ok("workflow terminate -w t1 --reason 'out of order'").await;
    let ended = cli.json("workflow describe -w t1").await;
    assert_eq!(ended["workflowExecutionInfo"]["status"], "WORKFLOW_EXECUTION_STATUS_TERMINATED");
    assert_eq!(ended["closeEvent"]["workflowExecutionTerminatedEventAttributes"]["reason"], "out of order");

    cli.ok(&format!("workflow start --task-queue {QUEUE} --type ledger -w l1 --input 0")).await;
    let updated = cli.json("workflow update execute -w l1 --name add --input 5 --update-id u1").await;
    assert_eq!((&updated["result"], &updated["updateId"]), (&5.into(), &"u1".into()), "{updated}");
    let known = cli.json("workflow update result -w l1 --update-id u1").await;
    assert_eq!(known["result"], 5, "{known}");
    shows(&cli.refused("workflow update execute -w l1 --name add --input 0").await, &["not a positive number"]);
    let started = cli.json("workflow update start -w l1 --name add --input 2 --wait-for-stage accepted").await;
    let id = started["updateId"].as_str().unwrap();
    assert_eq!(cli.json(&format!("workflow update result -w l1 --update-id {id}")).await["result"], 7);
    cli.ok("workflow signal -w l1 --name finish --input null").await;
    assert_eq!(cli.json("workflow result -w l1").await["result"], 7);

    cli.ok(&format!("workflow execute --task-queue {QUEUE} --type three -w r1 --input '\"a\"'")).await;
    let before = cli.json("workflow describe -w r1").await["workflowExecutionInfo"]["execution"]["runId"].clone();
    let reset = cli.json("workflow reset -w r1 --type FirstWorkflowTask --reason again").await;
    assert_ne!(reset["runId"], before, "{reset}");
    assert_eq!(cli.json("workflow result -w r1").await["result"], "axxx");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_lists_counts_and_asks_operators_questions() {
    let database = TestDatabase::new().await;
    let (host, address) = Host::served(&database).await;
    let Some(cli) = Cli::find(address) else { return };
    let worker = host.worker();
    assert!(cli.ok("operator cluster health").await.contains("SERVING"));
    shows(&cli.ok("operator cluster describe").await, &["ambient", "postgresql"]);
    shows(&cli.ok("operator cluster system").await, &["1.29.1"]);
    shows(&cli.ok("operator namespace describe -n default").await, &["default", "Registered", "168h0m0s"]);
    shows(&cli.ok("operator namespace list").await, &["default"]);
    cli.ok("operator search-attribute create --name Colour --type Keyword --name Size --type Int").await;
    shows(&cli.ok("operator search-attribute list").await, &["Colour", "Size", "StartTime"]);

    let start = format!("workflow start --task-queue {QUEUE} --type inbox --input 1");
    cli.ok(&format!("{start} -w a --search-attribute 'Colour=\"red\"' --search-attribute Size=3")).await;
    cli.ok(&format!("{start} -w b --search-attribute 'Colour=\"blue\"'")).await;
    shows(&cli.refused(&format!("{start} -w c --search-attribute Shape=3")).await, &["Shape"]);
    let done = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("d")).await.unwrap();
    done.get_result(WorkflowGetResultOptions::default()).await.unwrap();

    let listed = cli.json("workflow list -q 'Colour IN (\"red\", \"blue\") AND NOT Size > 5'").await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["execution"]["workflowId"], "a");
    shows(&cli.ok("workflow list").await, &["a", "b", "d", "Completed", "Running"]);
    assert_eq!(cli.json("workflow list --limit 2").await.as_array().unwrap().len(), 2);
    shows(&cli.ok("workflow count -q 'TaskQueue = \"work\"'").await, &["Total: 3"]);
    let grouped = cli.ok("workflow count -q 'GROUP BY ExecutionStatus'").await;
    shows(&grouped, &["Total: 3", "Group total: 2, values: Running", "Group total: 1, values: Completed"]);
    shows(&cli.refused("workflow list -q 'Flavour = 1'").await, &["Flavour"]);

    let queue = cli.json(&format!("task-queue describe --task-queue {QUEUE}")).await;
    let pollers = queue["pollers"].as_array().unwrap();
    assert!(pollers.iter().any(|p| p["identity"] == "over-the-socket" && p["taskQueueType"] == "activity"), "{queue}");
    assert!(queue["stats"].as_array().unwrap().iter().all(|s| s["approximateBacklogCount"] == 0), "{queue}");
    shows(&cli.ok(&format!("task-queue describe --task-queue {QUEUE} --legacy-mode")).await, &["over-the-socket"]);
    worker.stop();
    let start = "workflow start --task-queue nobody --type inbox --input 1";
    for id in ["w1", "w2"] {
        cli.ok(&format!("{start} -w {id}")).await;
    }
    let queue = cli.json("task-queue describe --task-queue nobody --task-queue-type workflow").await;
    assert_eq!(queue["stats"][0]["approximateBacklogCount"], 2, "{queue}");
    shows(&cli.refused("schedule list").await, &["ListSchedules is not supported"]);
}
