//! The endpoint as agents see it.
#![allow(clippy::unwrap_used, reason = "a test ends where its endpoint fails it")]

use ambient_scripted_model::{Ending, ScriptedModel};
use serde_json::{Value, json};

const DIALECTS: [&str; 4] = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1beta/models/scripted"];

/// A request of a user who says this, with a shell as the only tool, after these tool results.
fn request(path: &str, text: &str, results: usize) -> Value {
    let schema = json!({ "type": "object", "properties": { "command": { "type": "string" } } });
    let result = |value: Value| vec![value; results];
    match path {
        "/v1/chat/completions" => {
            let mut messages = vec![json!({ "role": "user", "content": text })];
            messages.extend(result(json!({ "role": "tool", "tool_call_id": "1", "content": "x" })));
            let tools = json!([{ "type": "function", "function": { "name": "bash", "parameters": schema } }]);
            let options = json!({ "include_usage": true });
            json!({ "model": "m", "stream": true, "stream_options": options, "messages": messages, "tools": tools })
        }
        "/v1/responses" => {
            let content = json!([{ "type": "input_text", "text": text }]);
            let mut input = vec![json!({ "type": "message", "role": "user", "content": content })];
            input.extend(result(json!({ "type": "function_call_output", "call_id": "1", "output": "x" })));
            let tools = json!([{ "type": "function", "name": "bash", "parameters": schema }]);
            json!({ "model": "m", "stream": true, "input": input, "tools": tools })
        }
        "/v1/messages" => {
            let mut messages = vec![json!({ "role": "user", "content": [{ "type": "text", "text": text }] })];
            let result = result(json!({ "type": "tool_result", "tool_use_id": "1", "content": "x" }));
            messages.push(json!({ "role": "user", "content": result }));
            let tools = json!([{ "name": "bash", "input_schema": schema }]);
            json!({ "model": "m", "stream": true, "max_tokens": 10, "messages": messages, "tools": tools })
        }
        _ => {
            let mut parts = vec![json!({ "text": text })];
            parts.extend(result(json!({ "functionResponse": { "name": "bash", "response": {} } })));
            let tools = json!([{ "functionDeclarations": [{ "name": "bash", "parametersJsonSchema": schema }] }]);
            json!({ "contents": [{ "role": "user", "parts": parts }], "tools": tools })
        }
    }
}

async fn send(model: &ScriptedModel, path: &str, stream: bool, mut body: Value) -> reqwest::Response {
    let mut url = format!("{}{path}", model.url());
    match path.contains("v1beta") {
        true if stream => url += ":streamGenerateContent?alt=sse",
        true => url += ":generateContent",
        false => body["stream"] = json!(stream),
    }
    reqwest::Client::new().post(url).json(&body).send().await.unwrap()
}

#[tokio::test]
async fn every_dialect_says_the_same_streamed_and_whole_with_usage() {
    let model = ScriptedModel::start(None).await.unwrap();
    for path in DIALECTS {
        for stream in [true, false] {
            let text = send(&model, path, stream, request(path, "SCENARIO=hello USAGE=700,30,20,3", 0)).await;
            let text = text.error_for_status().unwrap().text().await.unwrap();
            let said = if stream { "script." } else { "script" };
            // Anthropic counts the cached input separately.
            let input = if path == "/v1/messages" { "670" } else { "700" };
            assert!(text.contains(said) && text.contains(input), "{path} {stream}: {text}");
            assert_eq!(text.contains("data: "), stream, "{path}: {text}");
        }
    }
    let seen = model.seen();
    assert_eq!(seen.len(), 8);
    assert!(seen.iter().all(|call| call.scenario == "hello" && call.ending == Ending::Done), "{seen:#?}");
}

#[tokio::test]
async fn tool_results_lead_through_the_steps_of_a_scenario() {
    let model = ScriptedModel::start(None).await.unwrap();
    for path in DIALECTS {
        let text = "SCENARIO=shell\nCOMMAND=echo 'it works'";
        let first = send(&model, path, true, request(path, text, 0)).await.text().await.unwrap();
        assert!(first.contains("bash") && first.contains("echo 'it works'"), "{path}: {first}");
        let second = send(&model, path, true, request(path, text, 1)).await.text().await.unwrap();
        assert!(second.contains("done.") && !second.contains("echo"), "{path}: {second}");
    }
}

#[tokio::test]
async fn it_sees_that_a_client_goes_away() {
    let model = ScriptedModel::start(None).await.unwrap();
    for (path, scenario) in DIALECTS.into_iter().zip(["hang", "stall", "slow EVERY_MS=600000", "slow EVERY_MS=5"]) {
        let mut body = request(path, &format!("SCENARIO={scenario}"), 0);
        body["model"] = json!(path);
        let asked = send(&model, path, true, body);
        if scenario == "hang" {
            assert!(tokio::time::timeout(std::time::Duration::from_millis(300), asked).await.is_err());
        } else {
            let mut response = asked.await;
            assert!(response.chunk().await.unwrap().is_some());
            assert_eq!(model.seen().last().unwrap().ending, Ending::Open);
        }
        model.until(|seen| seen.last().unwrap().ending == Ending::ClosedByClient).await;
    }
}

#[tokio::test]
async fn failures_are_as_the_script_has_them_and_a_key_is_required_if_there_is_one() {
    let model = ScriptedModel::start(Some("secret")).await.unwrap();
    let refused = send(&model, DIALECTS[0], true, request(DIALECTS[0], "SCENARIO=hello", 0)).await;
    assert_eq!(refused.status(), 401);
    for (scenario, status) in [("err500", 500), ("err401", 401), ("err429", 429), ("break", 200)] {
        let url = format!("{}/v1/messages", model.url());
        let body = request("/v1/messages", &format!("SCENARIO={scenario}"), 0);
        let response = reqwest::Client::new().post(url).header("x-api-key", "secret").json(&body).send().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.bytes().await.is_err(), scenario == "break");
    }
    let seen = model.seen();
    assert_eq!(seen[1].headers["x-api-key"], "secret");
    assert_eq!(seen[1].body["messages"][0]["content"][0]["text"], "SCENARIO=err500");
}

#[tokio::test]
async fn a_very_long_answer_does_not_gather_in_memory() {
    let model = ScriptedModel::start(None).await.unwrap();
    let path = DIALECTS[0];
    let mut response = send(&model, path, true, request(path, "SCENARIO=long COUNT=200000", 0)).await;
    let mut deltas = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        deltas += chunk.windows(9).filter(|window| *window == b"\"content\"").count();
    }
    assert!(deltas > 190_000, "{deltas}");
}
