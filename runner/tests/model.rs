//! The way from an agent to its models, through a whole runner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeMap;

use ambient_runner_protocol::{ModelBudget, ModelDialect, ModelEndpoint, Record};
use ambient_scripted_model::{Ending, ScriptedModel};
use ambient_wire::runner_event::{RunnerEvent, TurnOutcome, Usage};
use harness::{Reader, Runner, Session};
use serde_json::json;

const KEY: &str = "sk-key-of-the-endpoint";

/// Asks the model; `answer` then holds the answer with its head.
fn ask(scenario: &str) -> String {
    format!(
        r#"
address=${{AMBIENT_MODEL_URL#http://}}
exec 3<> "/dev/tcp/${{address%:*}}/${{address#*:}}"
body='{{"model":"scripted","stream":true,"messages":[{{"role":"user","content":"SCENARIO={scenario}"}}]}}'
printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Length: %s\r\n\r\n%s' \
    "$AMBIENT_MODEL_TOKEN" "${{#body}}" "$body" >&3
cat <&3 > answer
"#
    )
}

struct Scene {
    session: Session,
    runner: Runner,
    reader: Reader,
    model: ScriptedModel,
    turns: i64,
}

impl Scene {
    async fn new(budget: ModelBudget) -> Self {
        let model = ScriptedModel::start(Some(KEY)).await.unwrap();
        let mut session = Session::new(true);
        let base_urls = BTreeMap::from([(ModelDialect::OpenaiChat, format!("{}/v1", model.url()))]);
        session.spec.model = Some(ModelEndpoint { base_urls, budget, ..ModelEndpoint::default() });
        std::fs::write(session.paths.model_keys(1), json!({ "openai_chat": KEY }).to_string()).unwrap();
        let runner = session.start().await;
        let reader = runner.client.events(1, "", 0).await;
        Self { session, runner, reader, model, turns: 0 }
    }

    async fn deliver(&mut self, script: &str) {
        self.turns += 1;
        let text = format!("```bash\n{script}\n```");
        self.runner.client.deliver(&self.turns.to_string(), self.turns, &text).await.expect(200);
    }

    async fn turn(&mut self, script: &str) -> Vec<RunnerEvent> {
        self.deliver(script).await;
        self.ended().await
    }

    async fn ended(&mut self) -> Vec<RunnerEvent> {
        let ends = |record: &Record| matches!(event(record), Some(RunnerEvent::TurnEnded { .. }));
        self.reader.until(ends).await.iter().filter_map(event).collect()
    }

    fn answer(&self) -> String {
        std::fs::read_to_string(self.session.paths.workspace().join("answer")).unwrap()
    }
}

fn event(record: &Record) -> Option<RunnerEvent> {
    RunnerEvent::read(&record.event)
}

/// Usage, and the turn it belongs to.
fn usage(events: &[RunnerEvent]) -> Vec<(&str, &Usage)> {
    let usage = events.iter().filter_map(|event| match event {
        RunnerEvent::Usage { turn_id, usage, .. } => Some((turn_id.as_str(), usage)),
        _ => None,
    });
    usage.collect()
}

fn result(events: &[RunnerEvent]) -> (TurnOutcome, Option<&str>) {
    let result = events.iter().find_map(|event| match event {
        RunnerEvent::TurnEnded { result, .. } => Some((result.outcome, result.code.as_deref())),
        _ => None,
    });
    result.unwrap()
}

#[tokio::test]
async fn an_agent_asks_its_model_without_ever_seeing_the_key_and_what_it_uses_is_in_the_log() {
    let mut scene = Scene::new(ModelBudget::default()).await;
    let key = scene.session.paths.model_keys(1);
    // The pattern does not find itself in the script.
    let look = format!(
        "{}\ncat {} /proc/*/environ /proc/*/cmdline > seen 2>/dev/null || true\nenv >> seen\ngrep -rs 'sk-key-of-the-[e]ndpoint' \"$HOME\" /tmp . && exit 9\ntrue",
        ask("hello"),
        key.display()
    );
    let events = scene.turn(&look).await;
    assert_eq!(result(&events), (TurnOutcome::Finished, None), "{events:#?}");
    assert!(scene.answer().contains("script.") && scene.answer().contains("[DONE]"), "{}", scene.answer());
    let seen = std::fs::read(scene.session.paths.workspace().join("seen")).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("AMBIENT_MODEL_TOKEN=") && !seen.contains(KEY), "{seen}");
    assert_eq!(scene.model.seen()[0].headers["authorization"], format!("Bearer {KEY}"));
    let usage = usage(&events);
    assert_eq!(usage.len(), 1, "{events:#?}");
    assert_eq!((usage[0].0, usage[0].1.input_tokens, usage[0].1.output_tokens), ("s/1/1", Some(1000), Some(50)));
}

#[tokio::test]
async fn stopping_a_turn_closes_the_connection_to_the_model() {
    let mut scene = Scene::new(ModelBudget::default()).await;
    // It ignores the wish, so that only the runner can close the connection.
    scene.deliver(&format!("trap '' TERM\n{}", ask("stall"))).await;
    scene.model.until(|seen| seen.last().is_some_and(|call| call.scenario == "stall")).await;
    scene.runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    let begin = std::time::Instant::now();
    scene.model.until(|seen| seen[0].ending == Ending::ClosedByClient).await;
    assert!(begin.elapsed() < std::time::Duration::from_secs(1), "{:?}", begin.elapsed());
    let events = scene.ended().await;
    assert_eq!(result(&events), (TurnOutcome::Interrupted, Some("Interrupted")));
    assert_eq!(usage(&events).len(), 1, "what was broken off is counted: {events:#?}");
    let events = scene.turn(&ask("hello")).await;
    assert_eq!(result(&events), (TurnOutcome::Finished, None));
    assert!(scene.answer().contains("script."));
}

#[tokio::test]
async fn a_budget_that_is_used_up_ends_the_turn_and_stays_so_over_the_loss_of_the_runner() {
    let mut scene = Scene::new(ModelBudget { tokens: Some(2000), ..ModelBudget::default() }).await;
    let hello = ask("hello");
    // A turn that would go on for ever is ended, at the third call.
    let events = scene.turn(&format!("{hello}{hello}{hello}\nsleep 3600")).await;
    assert_eq!(result(&events), (TurnOutcome::Error, Some("BudgetExceeded")), "{events:#?}");
    assert_eq!(usage(&events).len(), 2);
    let told = events
        .iter()
        .filter(|event| matches!(event, RunnerEvent::TurnResult { message, .. } if message.contains("2100 of 2000")));
    assert_eq!(told.count(), 1, "{events:#?}");

    let last = scene.reader.last;
    let log_id = scene.reader.log_id.clone();
    scene.runner.child.kill().unwrap();
    scene.runner.child.wait().unwrap();
    scene.session.next_attempt();
    scene.runner = scene.session.start().await;
    scene.reader = scene.runner.client.events(2, &log_id, last).await;
    let events = scene.turn(&hello).await;
    assert_eq!(result(&events), (TurnOutcome::Error, Some("BudgetExceeded")), "{events:#?}");
    assert_eq!(scene.model.seen().len(), 2, "no further call has reached the model");
    // What needs no model still works.
    let events = scene.turn("echo fine").await;
    assert_eq!(result(&events), (TurnOutcome::Finished, None));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_used_is_a_prerequisite_that_fails() {
    let mut session = Session::new(true);
    let base_urls = BTreeMap::from([(ModelDialect::Gemini, "nowhere".to_owned())]);
    session.spec.model = Some(ModelEndpoint { base_urls, ..ModelEndpoint::default() });
    let mut runner = session.spawn();
    assert_eq!(runner.exit_code().await, Some(ambient_runner_protocol::EXIT_PREREQUISITE));
    assert!(session.exited().unwrap().reason.contains("base URL for Gemini"), "{:?}", session.exited());
}
