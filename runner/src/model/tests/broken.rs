//! Connections that end before an answer does.

use std::time::Duration;

use super::{ALL, Anthropic, OpenaiChat, Scene, ScriptedModel, closed, endpoint, message};

#[tokio::test]
async fn a_client_that_goes_away_closes_the_endpoints_connection_and_what_it_had_is_counted() {
    let model = ScriptedModel::start(None).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    for (n, dialect) in ALL.into_iter().enumerate() {
        let mut response = scene.ask(dialect, true, "SCENARIO=stall").await;
        assert!(response.chunk().await.unwrap().is_some());
        drop(response);
        model.until(closed).await;
        let (_, usage, raw) = scene.usage(n + 1).await.pop().unwrap();
        assert_eq!(raw["estimated"], true, "{dialect:?}");
        let input = usage.input_tokens.unwrap();
        assert_eq!(input == 1000, dialect == Anthropic, "only Anthropic says at the beginning: {dialect:?} {input}");
        assert!(input > 10 && usage.output_tokens.unwrap() > 0, "{dialect:?} {usage:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_before_there_is_an_answer_has_asked_nevertheless() {
    let model = ScriptedModel::start(None).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    let asked = tokio::time::timeout(Duration::from_millis(500), scene.ask(OpenaiChat, false, "SCENARIO=hang"));
    assert!(asked.await.is_err());
    model.until(closed).await;
    let (_, usage, _) = scene.usage(1).await.pop().unwrap();
    assert!(usage.input_tokens.unwrap() > 10 && usage.output_tokens == Some(0), "{usage:?}");
}

#[tokio::test]
async fn a_stopped_turn_closes_every_connection_even_of_a_client_that_does_not_read() {
    let model = ScriptedModel::start(None).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    let stalled = scene.ask(OpenaiChat, true, "SCENARIO=stall").await;
    let unread = scene.ask(Anthropic, true, "SCENARIO=long COUNT=10000000").await;
    let asking = {
        let (path, body) = super::question(OpenaiChat, true, "SCENARIO=hang");
        tokio::spawn(scene.post(path).json(&body).send())
    };
    model.until(|seen| seen.len() == 3 && seen.iter().all(|call| !call.scenario.is_empty())).await;
    let begin = std::time::Instant::now();
    scene.proxy.close_calls().await;
    model.until(closed).await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    let refused = asking.await.unwrap().unwrap();
    assert_eq!(refused.status(), 403);
    assert_eq!(message(&refused.json().await.unwrap()), "the turn was stopped");
    assert!(stalled.bytes().await.is_err(), "the answer does not look complete");
    drop(unread);
    scene.usage(3).await;
    let later = scene.ask(OpenaiChat, true, "SCENARIO=hello").await;
    assert_eq!(later.status(), 403);
    scene.proxy.begin_turn("s/1/2");
    scene.ask(OpenaiChat, true, "SCENARIO=hello").await.error_for_status().unwrap().bytes().await.unwrap();
    assert_eq!(scene.usage(4).await[3].0, "s/1/2");
}

#[tokio::test]
async fn an_endpoint_that_dies_in_the_middle_breaks_the_answer_off() {
    let model = ScriptedModel::start(None).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    for (n, dialect) in ALL.into_iter().enumerate() {
        let response = scene.ask(dialect, true, "SCENARIO=break").await;
        assert_eq!(response.status(), 200);
        assert!(response.bytes().await.is_err(), "{dialect:?}: the answer does not look complete");
        assert_eq!(scene.usage(n + 1).await[n].2["estimated"], true);
    }
    drop(model);
    let gone = scene.ask(Anthropic, true, "SCENARIO=hello").await;
    assert_eq!(gone.status(), 502);
    let body = gone.json().await.unwrap();
    assert!(message(&body).starts_with("the model endpoint "), "{body}");
    scene.usage(ALL.len()).await;
}

#[tokio::test]
async fn a_connection_that_the_endpoint_has_closed_meanwhile_is_replaced() {
    let first = ScriptedModel::start(None).await.unwrap();
    let (url, address) = (first.url(), first.address());
    let scene = Scene::new(&endpoint(&url)).await;
    scene.ask(OpenaiChat, true, "SCENARIO=hello").await.bytes().await.unwrap();
    drop(first);
    let second = loop {
        match ScriptedModel::start_at(address, None).await {
            Ok(model) => break model,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    scene.ask(OpenaiChat, true, "SCENARIO=hello").await.error_for_status().unwrap().bytes().await.unwrap();
    assert_eq!(second.seen().len(), 1);
}
