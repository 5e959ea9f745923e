//! Traces, as a real OpenTelemetry Collector gets them: from the request to the calls of an agent, whatever is killed or away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use ambient_scripted_model::ScriptedModel;
use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};
use support::{
    Server, binary, clean_command,
    collector::{Collector, Span},
    eventually, fake_agent, runner, script,
};

/// In no word of anything else.
const KEY: &str = "canary-4f7d21aa";
const HEADER: &str = "canary-77ab0c1e";
const PROMPT: &str = "canary-prompt-31c9";
/// The caller's span.
const CALLER: &str = "00f067aa0ba902b7";

/// A trace of the caller's.
fn trace() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Asks a model, and prints what was asked.
fn ask() -> String {
    let request = r#"
address=${AMBIENT_MODEL_URL#http://}
exec 3<> "/dev/tcp/${address%:*}/${address#*:}"
body='{"model":"scripted","stream":true,"messages":[{"role":"user","content":"SCENARIO=hello PROMPT"}]}'
printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Length: %s\r\n\r\n%s' \
    "$AMBIENT_MODEL_TOKEN" "${#body}" "$body" >&3
cat <&3 > answer
echo PROMPT asked"#;
    script(&request.replace("PROMPT", PROMPT))
}

fn settings(collector: &Collector, model: &ScriptedModel) -> Vec<(&'static str, String)> {
    let programs = binary("ambient-fake-agent").parent().unwrap().to_string_lossy().into_owned();
    let mut settings = vec![
        ("AMBIENT_OTEL_ENDPOINT", collector.url()),
        ("AMBIENT_OTEL_HEADERS", format!("x-key={HEADER}")),
        ("AMBIENT_OPENAI_URL", format!("{}/v1", model.url())),
        ("AMBIENT_OPENAI_KEY", KEY.to_owned()),
        ("AMBIENT_DEFAULT_MODEL", "scripted".to_owned()),
        ("AMBIENT_READABLE_PATHS", programs),
    ];
    // On a Temporal server, where there is one (scripts/with-temporal); a namespace each, since all are called alike.
    if let Some(address) = std::env::var("AMBIENT_TEST_TEMPORAL").ok().filter(|address| !address.is_empty()) {
        settings.push(("AMBIENT_ENGINE", "temporal".to_owned()));
        settings.push(("AMBIENT_TEMPORAL_ADDRESS", address));
        settings.push(("AMBIENT_TEMPORAL_NAMESPACE", format!("otel-{}", trace())));
    }
    settings
}

/// A session that is started with this trace context; its id.
async fn session(server: &Server, mut body: Value, trace: &str, flags: &str) -> String {
    body["start"] = json!(true);
    let request = server.request(Method::POST, "/sessions").json(&body);
    let created = server.send(request.header("traceparent", format!("00-{trace}-{CALLER}-{flags}"))).await.expect(201);
    created["id"].as_str().unwrap().to_owned()
}

async fn turn_ended(server: &Server, id: &str) {
    eventually("the turn ends", async || (!runner::ended(&server.events(id).await).is_empty()).then_some(())).await;
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    found.next().unwrap_or_else(|| panic!("no {name} in {:#?}", spans.iter().map(|s| &s.name).collect::<Vec<_>>()))
}

fn has(spans: &[Span], name: &str) -> bool {
    spans.iter().any(|span| span.name == name)
}

/// Each came once.
fn once(spans: &[Span]) {
    let mut seen = HashSet::new();
    let again: Vec<&Span> = spans.iter().filter(|span| !seen.insert((&span.trace, &span.id))).collect();
    assert!(again.is_empty(), "{again:#?}");
}

/// The tree of a trace, for people.
fn tree(spans: &[Span], parent: &str, depth: usize) -> String {
    let mut below: Vec<&Span> = spans.iter().filter(|span| span.parent == parent).collect();
    below.sort_by_key(|span| span.nanos);
    let line = |span: &Span| {
        let millis = (span.nanos.1 - span.nanos.0) / 1_000_000;
        format!("{}{} ({millis} ms)\n{}", "  ".repeat(depth), span.name, tree(spans, &span.id, depth + 1))
    };
    below.into_iter().map(line).collect()
}

/// All that a session of a script, which asks a model, must leave in a trace.
fn is_whole(spans: &[Span]) -> bool {
    let names =
        ["invoke_agent script", "chat scripted", "execute_tool execute", "RunWorkflow:session-start", "session create"];
    names.iter().all(|name| has(spans, name))
}

#[tokio::test]
async fn a_request_and_all_that_it_causes_are_one_trace_without_what_was_said() {
    let Some(mut collector) = Collector::found() else { return };
    collector.start().await;
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(Some(KEY)).await.unwrap());
    let mut server = Server::new(&database, "one");
    server.settings = settings(&collector, &model);
    server.restart().await;
    server.project("traces").await;

    let (wanted, unwanted) = (trace(), trace());
    let body = json!({ "project_id": "traces", "prompt": ask() });
    let id = session(&server, body.clone(), &wanted, "01").await;
    let other = session(&server, body, &unwanted, "00").await;
    turn_ended(&server, &id).await;
    turn_ended(&server, &other).await;
    let route = "POST /api/ambient/v1/sessions";
    let reports = |spans: &[Span]| {
        let started = &named(spans, "RunWorkflow:session-start").id;
        spans.iter().any(|span| span.name.starts_with("session fact_") && span.parent == *started)
    };
    let is_all = |spans: &[Span]| {
        is_whole(spans) && has(spans, route) && has(spans, "session fact_turn_ended") && reports(spans)
    };
    let spans = collector.trace(&wanted, "the trace is whole", is_all).await;
    once(&spans);
    println!("{}", tree(&spans, CALLER, 0));

    let request = named(&spans, route);
    assert_eq!(
        (request.parent.as_str(), request.kind, request.word("http.response.status_code").as_str()),
        (CALLER, 2, "201")
    );
    let created = named(&spans, "session create");
    assert_eq!((&created.parent, created.word("ambient.entity.id")), (&request.id, id.clone()));
    let started = named(&spans, "RunWorkflow:session-start");
    assert_eq!((&started.parent, started.word("temporal.workflow.status").as_str()), (&created.id, "Completed"));
    let activities: Vec<&Span> = spans.iter().filter(|span| span.name.starts_with("RunActivity:")).collect();
    assert!(
        activities
            .iter()
            .any(|activity| activity.parent == started.id && activity.word("temporal.activity.attempt") == "1")
    );
    let turn = named(&spans, "invoke_agent script");
    assert_eq!(turn.parent, created.id);
    let of_turn =
        ["gen_ai.conversation.id", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.provider.name"];
    assert_eq!(of_turn.map(|key| turn.word(key)), [id.as_str(), "1000", "50", "openai"]);
    let call = named(&spans, "chat scripted");
    assert_eq!((&call.parent, call.kind), (&turn.id, 3));
    let of_call =
        ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.usage.input_tokens"];
    assert_eq!(of_call.map(|key| call.word(key)), ["chat", "openai", "scripted", "1000"]);
    assert!(!call.word("gen_ai.response.time_to_first_chunk").is_empty(), "{call:#?}");
    assert!(call.nanos.0 >= turn.nanos.0 && call.nanos.1 <= turn.nanos.1 && call.nanos.0 <= call.nanos.1);
    let tool = named(&spans, "execute_tool execute");
    assert_eq!((&tool.parent, tool.word("ambient.tool.status").as_str()), (&turn.id, "completed"));
    assert_eq!(named(&spans, "session fact_turn_ended").parent, turn.id);
    let ids: HashSet<&str> = spans.iter().map(|span| span.id.as_str()).chain([CALLER]).collect();
    let lost: Vec<&Span> = spans.iter().filter(|span| !ids.contains(span.parent.as_str())).collect();
    // Workflows that work for as long as the session does are not over.
    let open = |span: &&&Span| !span.parent.is_empty() && !span.name.starts_with("session fact_");
    let lost: Vec<&&Span> = lost.iter().filter(open).collect();
    assert!(lost.is_empty(), "spans without a parent: {lost:#?}");

    // The trace is what the operation tells as its correlation.
    let operations = server.get(&format!("/operations?correlation_id={wanted}")).await.expect(200);
    assert_eq!(operations["items"][0]["id"].as_str().unwrap(), created.word("ambient.operation.id"));
    let text = collector.text();
    for secret in [PROMPT, KEY, HEADER, server.token().as_str(), unwanted.as_str()] {
        assert!(!text.contains(secret), "{secret} is in the traces");
    }
    assert!(!server.whole_log().contains(HEADER));
    // The lag is looked at from time to time.
    eventually("the figures are told", async || {
        let metrics = server.metrics().await;
        let told = ["ambient_trace_spans_exported_total", "ambient_trace_lag_seconds"];
        told.iter().all(|name| metrics.contains(name)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_people_is_a_span_and_contents_are_told_only_where_they_are_wanted() {
    let Some(mut collector) = Collector::found() else { return };
    collector.start().await;
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(Some(KEY)).await.unwrap());
    let mut server = Server::new(&database, "one");
    server.settings = settings(&collector, &model);
    server.settings.push(("AMBIENT_OTEL_CONTENT", "on".to_owned()));
    server.restart().await;
    server.project("agents").await;
    let trace = trace();
    let prompt = format!("say {PROMPT}\ntool t1 ls -l\nask t1 ls -l\ndone t1 listed");
    let id = session(&server, fake_agent::body(&prompt), &trace, "01").await;
    let interrupt = fake_agent::asked(&server, &id).await;
    server.post(&format!("/sessions/{id}/interrupts/{interrupt}"), json!({ "answer": "once" })).await;
    turn_ended(&server, &id).await;
    let fits = |spans: &[Span]| has(spans, "permission execute");
    let spans = collector.trace(&trace, "the wait is told", fits).await;
    let (wait, tool) = (named(&spans, "permission execute"), named(&spans, "execute_tool execute"));
    assert_eq!((&wait.parent, wait.word("ambient.permission.answer").as_str()), (&tool.id, "once"));
    assert!(tool.word("gen_ai.tool.call.arguments").contains("ls -l"), "{tool:#?}");
    assert_eq!(tool.word("gen_ai.tool.call.result"), "listed");
    let turn = spans.iter().find(|span| span.name.starts_with("invoke_agent")).unwrap();
    assert!(
        turn.word("gen_ai.input.messages").contains(PROMPT) && turn.word("gen_ai.output.messages").contains(PROMPT)
    );
    assert!(!collector.text().contains(&server.token()));
}

/// Takes connections and never answers.
async fn hanging(address: String) -> tokio::task::JoinHandle<()> {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    })
}

#[tokio::test]
async fn a_collector_that_hangs_slows_nobody_and_a_killed_server_exports_later_what_it_had_not_each_once() {
    let Some(mut collector) = Collector::found() else { return };
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(Some(KEY)).await.unwrap());
    let hangs = hanging(collector.address()).await;
    let mut server = Server::new(&database, "one");
    server.settings = settings(&collector, &model);
    server.restart().await;
    server.project("traces").await;
    let trace = trace();
    let id = session(&server, json!({ "project_id": "traces", "prompt": ask() }), &trace, "01").await;
    turn_ended(&server, &id).await;
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let begun = Instant::now();
        server.post("/projects", json!({ "name": format!("quick-{number}") })).await.expect(201);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");

    server.kill();
    hangs.abort();
    let _ = hangs.await;
    collector.start().await;
    server.restart().await;
    let spans = collector.trace(&trace, "what was not exported comes", is_whole).await;
    let turn = named(&spans, "invoke_agent script");
    assert_eq!(named(&spans, "session create").id, turn.parent);
    once(&collector.spans());

    // And once more, with a collector that is gone for a while, and no kill.
    collector.kill();
    let later = self::trace();
    let id = session(&server, json!({ "project_id": "traces", "prompt": ask() }), &later, "01").await;
    turn_ended(&server, &id).await;
    collector.start().await;
    let fits = |spans: &[Span]| is_whole(spans) && has(spans, "POST /api/ambient/v1/sessions");
    collector.trace(&later, "what waited comes, the request too", fits).await;
    once(&collector.spans().into_iter().filter(|span| span.trace == later).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_command_continues_the_trace_of_its_environment() {
    let Some(mut collector) = Collector::found() else { return };
    collector.start().await;
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(Some(KEY)).await.unwrap());
    let mut server = Server::new(&database, "one");
    server.settings = settings(&collector, &model);
    server.restart().await;
    let trace = trace();
    let (address, token, traceparent) = (server.address(), server.token(), format!("00-{trace}-{CALLER}-01"));
    let output = tokio::task::spawn_blocking(move || {
        let mut command = clean_command(binary("ambient"));
        command.args(["project", "create", "from-cli"]).env("TRACEPARENT", traceparent);
        command.env("AMBIENT_URL", format!("http://{address}")).env("AMBIENT_TOKEN", token);
        command.env("AMBIENT_CONFIG", "/dev/null").output().unwrap()
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let fits = |spans: &[Span]| has(spans, "project create") && has(spans, "POST /api/ambient/v1/projects");
    let spans = collector.trace(&trace, "the command's trace", fits).await;
    assert_eq!(named(&spans, "POST /api/ambient/v1/projects").parent, CALLER);
}
