//! The budget.

use super::{
    ALL, Anthropic, Gemini, OpenaiChat, OpenaiResponses, Scene, ScriptedModel, budget, endpoint, message, price,
};
use ambient_runner_protocol::{ModelBudget, ProjectBudget};
use serde_json::Value;

#[tokio::test]
async fn the_call_after_the_one_that_uses_it_up_is_refused_and_the_turn_is_told() {
    let model = ScriptedModel::start(None).await.unwrap();
    let mut endpoint = endpoint(&model.url());
    endpoint.budget = budget(Some(2000), None);
    let scene = Scene::new(&endpoint).await;
    for _ in 0..2 {
        scene.ask(Anthropic, true, "SCENARIO=hello").await.error_for_status().unwrap().bytes().await.unwrap();
        assert_eq!(scene.proxy.why_exceeded(), None);
    }
    for dialect in ALL {
        let refused = scene.ask(dialect, true, "SCENARIO=hello").await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["x-should-retry"], "false");
        let body: Value = refused.json().await.unwrap();
        assert_eq!(message(&body), "the session's budget is used up: 2100 of 2000 tokens");
        match dialect {
            OpenaiChat | OpenaiResponses => assert_eq!(body["error"]["code"], "insufficient_quota"),
            Anthropic => assert_eq!(body["error"]["type"], "rate_limit_error"),
            Gemini => assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED"),
        }
    }
    scene.proxy.exceeded().await;
    assert_eq!(scene.proxy.why_exceeded().unwrap(), "the session's budget is used up: 2100 of 2000 tokens");
    assert_eq!(model.seen().len(), 2);
    scene.proxy.begin_turn("s/1/2");
    assert_eq!(scene.proxy.why_exceeded(), None);
    assert_eq!(scene.ask(Anthropic, false, "SCENARIO=hello").await.status(), 429);
    assert!(scene.proxy.why_exceeded().is_some());
}

#[tokio::test]
async fn what_an_earlier_attempt_has_used_is_used() {
    let model = ScriptedModel::start(None).await.unwrap();
    let mut endpoint = endpoint(&model.url());
    endpoint.budget = budget(None, Some(3100));
    endpoint.budget.spent_cost_micros = 1000;
    endpoint.prices.insert("scripted".to_owned(), price(1_000_000, 1_000_000));
    let scene = Scene::new(&endpoint).await;
    scene.ask(OpenaiChat, false, "SCENARIO=hello").await.error_for_status().unwrap().bytes().await.unwrap();
    scene.usage(1).await;
    let Scene { directory, log, proxy, .. } = scene;
    drop((log, proxy));
    let scene = Scene::continued(directory, &endpoint).await;
    scene.ask(OpenaiChat, true, "SCENARIO=hello").await.error_for_status().unwrap().bytes().await.unwrap();
    let refused = scene.ask(OpenaiChat, true, "SCENARIO=hello").await;
    assert_eq!(refused.status(), 429);
    let body = refused.json().await.unwrap();
    assert_eq!(message(&body), "the session's budget is used up: 0.003100 of 0.003100 USD");
}

#[tokio::test]
async fn within_a_budget_of_money_a_model_without_a_price_is_not_asked() {
    let model = ScriptedModel::start(None).await.unwrap();
    let mut endpoint = endpoint(&model.url());
    endpoint.budget = budget(None, Some(1));
    let scene = Scene::new(&endpoint).await;
    let refused = scene.ask(OpenaiResponses, true, "SCENARIO=hello").await;
    assert_eq!(refused.status(), 403);
    assert!(message(&refused.json().await.unwrap()).contains("'scripted' has no price"));
    assert!(model.seen().is_empty());
}

#[tokio::test]
async fn breaking_answers_off_does_not_avoid_the_budget() {
    let model = ScriptedModel::start(None).await.unwrap();
    let mut endpoint = endpoint(&model.url());
    endpoint.budget = budget(Some(200), None);
    let scene = Scene::new(&endpoint).await;
    for n in 1.. {
        let mut response = scene.ask(OpenaiChat, true, "SCENARIO=stall").await;
        if response.status() == 429 {
            assert!(n > 2, "the first are not refused");
            return;
        }
        response.chunk().await.unwrap();
        drop(response);
        scene.usage(n).await;
        assert!(n < 20, "never refused");
    }
}

#[tokio::test]
async fn a_budget_that_is_changed_holds_from_the_next_call_on() {
    let model = ScriptedModel::start(None).await.unwrap();
    let scene = Scene::new(&endpoint(&model.url())).await;
    let ask = async || scene.ask(Anthropic, false, "SCENARIO=hello").await.status().as_u16();
    assert_eq!(ask().await, 200);
    scene.usage(1).await;
    let project = |tokens, elsewhere_tokens| ModelBudget {
        project: Some(ProjectBudget { tokens: Some(tokens), elsewhere_tokens, ..ProjectBudget::default() }),
        ..ModelBudget::default()
    };
    scene.proxy.set_budget(project(2000, 949));
    assert_eq!(ask().await, 200);
    scene.usage(2).await;
    assert_eq!(ask().await, 429);
    assert_eq!(scene.proxy.why_exceeded().unwrap(), "the project's budget is used up: 3049 of 2000 tokens");
    scene.proxy.begin_turn("s/1/2");
    scene.proxy.set_budget(project(5000, 949));
    assert_eq!(ask().await, 200);
    // Money of the project's alone wants a price, too.
    let cost = ProjectBudget { cost_micros: Some(1), ..ProjectBudget::default() };
    scene.proxy.set_budget(ModelBudget { project: Some(cost), ..ModelBudget::default() });
    assert_eq!(ask().await, 403);
    assert_eq!(model.seen().len(), 3);
}
