//! What does not go through.

use super::{
    ALL, Anthropic, Gemini, KEY, ModelProxy, OpenaiChat, OpenaiResponses, Scene, ScriptedModel, Spent, endpoint,
    listener, message, question,
};
use serde_json::{Value, json};

#[tokio::test]
async fn errors_of_the_endpoint_are_passed_on_and_cost_nothing() {
    let model = ScriptedModel::start(Some(KEY)).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    for dialect in ALL {
        for (scenario, status) in [("err401", 401), ("err429", 429), ("err500", 500)] {
            let response = scene.ask(dialect, true, &format!("SCENARIO={scenario}")).await;
            assert_eq!(response.status(), status);
            assert_eq!(message(&response.json().await.unwrap()), format!("scripted {status}"));
        }
    }
    scene.ask(OpenaiChat, true, "SCENARIO=hello").await.bytes().await.unwrap();
    scene.usage(1).await;
}

#[tokio::test]
async fn only_allowed_models_are_asked_and_others_are_refused_in_the_dialects_words() {
    let model = ScriptedModel::start(None).await.unwrap();
    let mut endpoint = endpoint(&model.url());
    endpoint.allowed_models = Some(vec!["other".to_owned(), "another".to_owned()]);
    let scene = Scene::new(&endpoint).await;
    for dialect in ALL {
        let response = scene.ask(dialect, true, "SCENARIO=hello").await;
        assert_eq!(response.status(), 403);
        let body: Value = response.json().await.unwrap();
        assert_eq!(message(&body), "model: this session may not ask 'scripted'; it may ask other, another");
        match dialect {
            OpenaiChat | OpenaiResponses => assert_eq!(body["error"]["code"], "model_not_allowed"),
            Anthropic => {
                assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!("permission_error")));
            }
            Gemini => assert_eq!(
                (&body["error"]["code"], &body["error"]["status"]),
                (&json!(403), &json!("PERMISSION_DENIED"))
            ),
        }
    }
    assert!(model.seen().is_empty());
    let (path, mut body) = question(Anthropic, true, "SCENARIO=hello");
    body["model"] = json!("another");
    assert_eq!(scene.post(path).json(&body).send().await.unwrap().status(), 200);
    scene.usage(1).await;
}

#[tokio::test]
async fn without_the_token_there_is_no_way_through() {
    let model = ScriptedModel::start(None).await.unwrap();
    let (ours, theirs) = (Scene::new(&endpoint(&model.url())).await, Scene::new(&endpoint(&model.url())).await);
    let (path, body) = question(Anthropic, true, "SCENARIO=hello");
    let url = format!("{}{path}", ours.proxy.access().url);
    let request = || ours.client.post(&url).json(&body);
    let token = &ours.proxy.access().token;
    let wrong = [
        request(),
        request().bearer_auth(&theirs.proxy.access().token),
        request().bearer_auth(""),
        request().bearer_auth(format!("{token}x")),
        request().header("x-api-key", &token[1..]),
        request().bearer_auth(KEY),
    ];
    for request in wrong {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["connection"], "close");
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["type"], "authentication_error");
    }
    assert!(model.seen().is_empty());
    let right = [
        request().bearer_auth(token),
        request().header("x-api-key", token),
        request().header("x-goog-api-key", token),
        ours.client.post(format!("{url}?key={token}")).json(&body),
    ];
    for request in right {
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_request_has_bounds() {
    let model = ScriptedModel::start(None).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    let large = || vec![b' '; (32 << 20) + 1];
    // Some clients see the connection close while they still send.
    if let Ok(announced) = scene.post("/v1/messages").body(large()).send().await {
        assert_eq!(announced.status(), 413);
    }
    let pieces = futures::stream::iter(
        large().chunks(1 << 20).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>(),
    );
    if let Ok(streamed) = scene.post("/v1/messages").body(reqwest::Body::wrap_stream(pieces)).send().await {
        assert_eq!(streamed.status(), 413);
    }
    let packed = scene.post("/v1/messages").header("content-encoding", "gzip").body("x").send().await.unwrap();
    assert_eq!((packed.status().as_u16(), packed.text().await.unwrap().contains("content-encoding")), (400, true));
    let broken = scene.post("/v1/messages").body("{\"model\":").send().await.unwrap();
    assert_eq!((broken.status().as_u16(), broken.text().await.unwrap().contains("body: EOF")), (400, true));
    let nowhere = scene.post("/v1/files").body("{}").send().await.unwrap();
    assert_eq!((nowhere.status().as_u16(), nowhere.text().await.unwrap().contains("POST /v1/files")), (404, true));
    assert!(model.seen().is_empty());
}

#[tokio::test]
async fn a_base_url_or_a_key_that_cannot_be_used_is_told_without_showing_it() {
    let scene = Scene::new(&endpoint("http://127.0.0.1:1")).await;
    for url in ["ftp://x", "http://u:secret@x", "https://x?key=secret", "x"] {
        let mut endpoint = endpoint("http://x");
        endpoint.base_urls.insert(Gemini, url.to_owned());
        let started =
            ModelProxy::start(&endpoint, scene.directory.path(), Spent::default(), scene.log.clone(), listener().await);
        assert!(!started.await.err().unwrap().contains("secret"));
        let key = scene.directory.path().join("no-such-key");
        let started = ModelProxy::start(&endpoint, &key, Spent::default(), scene.log.clone(), listener().await);
        let reason = started.await.err().unwrap();
        assert!(reason.contains("Gemini") && !reason.contains("secret"), "{reason}");
    }
    let key = scene.directory.path().join("bad-key");
    std::fs::write(&key, r#"{"anthropic":"two words"}"#).unwrap();
    let endpoint = endpoint("http://x");
    let started = ModelProxy::start(&endpoint, &key, Spent::default(), scene.log.clone(), listener().await);
    assert_eq!(started.await.err().unwrap(), "the model endpoint's key for Anthropic is not usable");
}

#[tokio::test]
async fn an_address_that_others_have_named_leads_to_what_is_public_or_allowed() {
    let model = ScriptedModel::start(None).await.unwrap();
    let own = model.url().strip_prefix("http://").unwrap().to_owned();
    let mut endpoint = endpoint(&model.url());
    endpoint.public_only = ALL.into_iter().collect();
    let private = ["169.254.169.254", "10.0.0.1", "[::1]:80", "[::ffff:127.0.0.1]", "localhost"];
    for (host, dialect) in private.into_iter().zip([Anthropic, Anthropic, Anthropic, Anthropic, Gemini]) {
        endpoint.base_urls.insert(dialect, format!("http://{host}"));
        let scene = Scene::new(&endpoint).await;
        for dialect in [dialect, OpenaiChat] {
            let refused = scene.ask(dialect, true, "SCENARIO=hello").await;
            let told = (refused.status().as_u16(), refused.headers()["x-should-retry"].to_str().unwrap().to_owned());
            assert_eq!(told, (403, "false".to_owned()), "{host}");
            assert!(message(&refused.json().await.unwrap()).contains("not public"));
        }
    }
    assert!(model.seen().is_empty());
    endpoint.private_hosts = vec![own];
    let scene = Scene::new(&endpoint).await;
    scene.ask(OpenaiChat, true, "SCENARIO=hello").await.error_for_status().unwrap();
    assert_eq!(scene.ask(Gemini, true, "SCENARIO=hello").await.status(), 403, "only what is named");
}

#[tokio::test]
async fn if_no_model_is_allowed_none_is_asked() {
    let model = ScriptedModel::start(None).await.unwrap();
    let mut endpoint = endpoint(&model.url());
    endpoint.allowed_models = Some(Vec::new());
    let scene = Scene::new(&endpoint).await;
    let refused = scene.ask(Anthropic, true, "SCENARIO=hello").await;
    assert_eq!(refused.status(), 403);
    assert!(message(&refused.json().await.unwrap()).ends_with("it may ask none"));
    assert!(model.seen().is_empty());
}
