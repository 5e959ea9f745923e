//! What goes through, and what is counted.

use super::{ALL, Anthropic, Gemini, KEY, OpenaiChat, Scene, ScriptedModel, endpoint, price, question};

#[tokio::test]
async fn every_dialect_is_passed_on_byte_by_byte_and_metered_exactly() {
    let model = ScriptedModel::start(Some(KEY)).await.unwrap();
    let mut endpoint = endpoint(&model.url());
    endpoint.prices.insert("scripted".to_owned(), price(2_000_000, 10_000_000));
    let scene = Scene::new(&endpoint).await;
    let mut count = 0;
    for dialect in ALL {
        for stream in [true, false] {
            let text = "SCENARIO=hello USAGE=700,30,20,3";
            let through = scene.ask(dialect, stream, text).await;
            assert_eq!(through.status(), 200);
            let kind = through.headers()["content-type"].clone();
            let through = through.text().await.unwrap();
            count += 1;
            let (turn, usage, raw) = scene.usage(count).await.pop().unwrap();
            let reasoning = if dialect == Anthropic { None } else { Some(3) };
            assert_eq!(turn, "s/1/1");
            assert_eq!((usage.input_tokens, usage.cached_input_tokens), (Some(700), Some(30)), "{dialect:?}");
            assert_eq!((usage.output_tokens, usage.reasoning_tokens), (Some(20), reasoning), "{dialect:?} {stream}");
            assert_eq!((usage.cost_micros, usage.currency.as_deref()), (Some(1600), Some("USD")));
            assert!(raw.get("estimated").is_none(), "{raw}");
            // What comes directly, but for the number of the call in its ids.
            let (path, body) = question(dialect, stream, text);
            let direct = scene.client.post(format!("{}{path}", model.url())).bearer_auth(KEY).json(&body);
            let direct = direct.send().await.unwrap();
            assert_eq!(direct.headers()["content-type"], kind);
            let numbers = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
            assert_eq!(numbers(&through), numbers(&direct.text().await.unwrap()), "{dialect:?} {stream}");
        }
    }
}

#[tokio::test]
async fn the_key_takes_the_place_of_every_credential_of_the_agent() {
    let model = ScriptedModel::start(Some(KEY)).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    let token = scene.proxy.access().token.clone();
    for dialect in ALL {
        let (path, body) = question(dialect, true, "SCENARIO=hello");
        let path = format!("{path}{}key=of-the-agent&x=1", if path.contains('?') { "&" } else { "?" });
        let request =
            scene.post(&path).json(&body).header("x-api-key", "of-the-agent").header("cookie", "of-the-agent");
        let request = request.header("x-goog-api-key", "of-the-agent").header("api-key", "of-the-agent");
        let request = request.header("openai-organization", "of-the-agent").header("connection", "x-hop, close");
        let request = request.header("x-hop", "of-the-agent").header("anthropic-beta", "kept");
        request.send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
        let seen = model.seen().pop().unwrap();
        let all = format!("{} {:?}", seen.path, seen.headers);
        assert!(!all.contains("of-the-agent") && !all.contains(&token), "{all}");
        assert!(seen.path.ends_with("x=1"), "{all}");
        let with_key: Vec<_> = seen.headers.iter().filter(|(_, value)| value.contains(KEY)).collect();
        assert_eq!(with_key.len(), 1, "{all}");
        assert_eq!(seen.headers["anthropic-beta"], "kept");
        assert_eq!(seen.headers["host"], model.address().to_string());
    }
}

#[tokio::test]
async fn usage_is_asked_of_chat_completions_and_left_out_of_what_the_client_sees() {
    let model = ScriptedModel::start(None).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    let text = scene.ask(OpenaiChat, true, "SCENARIO=hello").await.text().await.unwrap();
    assert!(text.contains("script.") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(!text.contains("prompt_tokens"), "{text}");
    assert_eq!(scene.usage(1).await[0].1.output_tokens, Some(50));
    assert_eq!(model.seen()[0].body["stream_options"]["include_usage"], true);
    let (path, mut body) = question(OpenaiChat, true, "SCENARIO=hello");
    body["stream_options"] = serde_json::json!({ "include_usage": true });
    let text = scene.post(path).json(&body).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("\"prompt_tokens\":1000"), "{text}");
    scene.usage(2).await;
}

#[tokio::test]
async fn lists_and_counts_go_through_and_cost_nothing() {
    let model = ScriptedModel::start(Some(KEY)).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    let access = scene.proxy.access();
    for path in ["/v1/models", "/v1beta/models", "/models"] {
        let listed = scene.client.get(format!("{}{path}", access.url)).bearer_auth(&access.token).send().await.unwrap();
        assert!(listed.text().await.unwrap().contains("scripted"), "{path}");
    }
    for path in ["/v1/messages/count_tokens", "/v1beta/models/scripted:countTokens"] {
        let counted = scene.post(path).json(&serde_json::json!({ "model": "scripted" })).send().await.unwrap();
        assert!(counted.text().await.unwrap().contains("10"), "{path}");
    }
    scene.usage(0).await;
}

#[tokio::test]
async fn gemini_without_events_is_a_list_that_is_metered_too() {
    let model = ScriptedModel::start(None).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    let (_, body) = question(Gemini, true, "SCENARIO=hello");
    let list = scene.post("/v1beta/models/scripted:streamGenerateContent").json(&body).send().await.unwrap();
    assert!(list.json::<serde_json::Value>().await.unwrap().is_array());
    let (_, usage, _) = scene.usage(1).await.pop().unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(1000), Some(50)));
}

#[tokio::test]
async fn pieces_arrive_when_they_are_said_and_a_connection_serves_call_after_call() {
    let model = ScriptedModel::start(None).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    for dialect in ALL {
        let mut response = scene.ask(dialect, true, "SCENARIO=stall").await;
        let mut text = String::new();
        // The endpoint says nothing more, so that whatever waited for more would wait for ever.
        while !text.contains("part ") {
            let piece = tokio::time::timeout(std::time::Duration::from_secs(10), response.chunk()).await;
            text += &String::from_utf8_lossy(&piece.expect("a piece in time").unwrap().unwrap());
        }
    }
}
