//! A server on a free port, and a client for it.

mod compute;
mod executions;
pub mod runner;

use std::{sync::Arc, time::Duration};

use ambient_actors::{ActorOptions, Actors, Caller, Request};
use ambient_api::{ApiConfig, AppParts, AppState, PlatformRole, Principal, PrincipalKind, StaticToken};
use ambient_domain::{
    retention::{KeptDays, RetentionRules},
    session::{Command, Fact, Session},
};
use ambient_live::{HubOptions, LiveHub, Tokens};
use ambient_persistence::{Database, DatabaseOptions, Hints, Vault};
use ambient_tests::TestDatabase;
use ambient_workflows::Retention;
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

pub use compute::TestCompute;

pub const BASE: &str = "/api/ambient/v1";
pub const ADMIN: &str = "token-of-the-administrator";
pub const ALICE: &str = "token-of-alice";
pub const VERA: &str = "token-of-vera-who-may-look";
pub const NOBODY: &str = "token-of-nobody";

pub struct Server {
    pub database: Database,
    pub actors: Actors,
    pub tokens: Tokens,
    pub compute: Arc<TestCompute>,
    pub address: std::net::SocketAddr,
    pub http: reqwest::Client,
    hub: LiveHub,
    _test_database: TestDatabase,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adapt: impl FnOnce(&mut ApiConfig)) -> Self {
        let test_database = TestDatabase::new().await;
        let database = Database::connect(&test_database.url(), DatabaseOptions::default()).await.unwrap();
        database.migrate().await.unwrap();
        let hints = Hints::local();
        let actors = Actors::start(database.clone(), hints.clone(), ActorOptions::default());
        let hub = LiveHub::start(database.clone(), hints, HubOptions::default());
        let tokens = Tokens::new([7; 32]);
        let compute = Arc::new(TestCompute::default());
        let mut config = config();
        adapt(&mut config);
        let state = AppState::new(AppParts {
            database: database.clone(),
            actors: actors.clone(),
            hub: hub.clone(),
            tokens: tokens.clone(),
            vault: Vault::open(&database, &[7; 32]).await.unwrap(),
            compute: compute.clone(),
            executions: Arc::new(executions::TestExecutions { database: database.clone() }),
            snapshots: None,
            retention: Retention::new(retention_rules()),
            prometheus: Some(PrometheusBuilder::new().build_recorder().handle()),
            traces: None,
            config,
        });
        let address = serve(state).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { database, actors, tokens, compute, address, http, hub, _test_database: test_database }
    }

    pub fn url(&self, path: &str) -> String {
        if path.starts_with("/api/") || path.starts_with("http") {
            format!("http://{}{path}", self.address)
        } else {
            format!("http://{}{BASE}{path}", self.address)
        }
    }

    pub fn request_as(&self, token: &str, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path)).bearer_auth(token).timeout(Duration::from_secs(30))
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_as(ADMIN, method, path)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body).send().await.unwrap()).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).json(&body).send().await.unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path).send().await.unwrap()).await
    }

    /// A project in which alice may edit and vera may look.
    pub async fn project(&self, name: &str) -> String {
        let created = self.post("/projects", json!({"name": name})).await.expect(StatusCode::CREATED);
        let id = created["id"].as_str().unwrap().to_owned();
        for (subject, role) in [("alice", "edit"), ("vera", "view")] {
            let grant = json!({"subject_type": "user", "subject_name": subject, "role": role});
            self.post(&format!("/projects/{id}/permissions"), grant).await.expect(StatusCode::OK);
        }
        id
    }

    pub async fn session(&self, project: &str) -> String {
        let body = json!({"project_id": project, "name": "test", "prompt": "say hello"});
        let created = self.post("/sessions", body).await.expect(StatusCode::CREATED);
        created["id"].as_str().unwrap().to_owned()
    }

    /// A session in phase Running, with one repository.
    pub async fn running_session(&self, project: &str) -> String {
        let body =
            json!({"project_id": project, "name": "test", "start": true, "repos": [{"url": "file:///r/demo.git"}]});
        let created = self.post("/sessions", body).await.expect(StatusCode::CREATED);
        let id = created["id"].as_str().unwrap().to_owned();
        for fact in [Fact::Provisioning, Fact::RunnerReady { missing_confinement: Vec::new() }, Fact::MarkRunning] {
            self.fact(&id, fact).await;
        }
        id
    }

    pub async fn fact(&self, session: &str, fact: Fact) {
        let caller = Caller { principal: "system:test".to_owned(), ..Caller::default() };
        let command = Command::Fact { run: 1, attempt: 1, fact };
        self.actors.call::<Session>(session, Request::new(command, caller)).await.unwrap();
    }

    /// At least `count` operations. The feed shows what is older than every transaction that runs on the database server, and
    /// other tests run there too.
    pub async fn operations(&self, query: &str, count: usize) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let list = self.get(&format!("/operations?{query}")).await.expect(StatusCode::OK);
            if list["items"].as_array().unwrap().len() >= count {
                return list;
            }
            assert!(tokio::time::Instant::now() < deadline, "{list}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn stop_live(&self) {
        self.hub.shutdown();
    }
}

/// Nothing goes unless a project says so, within bounds.
fn retention_rules() -> RetentionRules {
    RetentionRules { defaults: KeptDays::default(), min_days: 2, max_days: 0 }
}

fn config() -> ApiConfig {
    let person = |name: &str| Principal::person(name, Vec::new());
    ApiConfig {
        static_tokens: vec![
            StaticToken::new(ADMIN, Principal::platform_admin("admin")),
            StaticToken::new(ALICE, person("alice")),
            StaticToken::new(VERA, person("vera")),
            StaticToken::new(NOBODY, person("nobody")),
            StaticToken::new(
                "token-of-a-viewer",
                Principal {
                    name: "viewer".into(),
                    groups: vec![],
                    kind: PrincipalKind::Platform(PlatformRole::Viewer),
                },
            ),
        ],
        ticket_key: [9; 32],
        ..ApiConfig::default()
    }
}

async fn serve(state: AppState) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(ambient_api::serve(listener, state, ambient_api::Limits::default(), std::future::pending()));
    address
}

/// A response, read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The body, if the status is the one expected.
    #[track_caller]
    pub fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// An error envelope with this status; checks what every envelope has.
    #[track_caller]
    pub fn error(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let body = self.json();
        assert_eq!(body["kind"], "Error");
        assert_eq!(body["code"], format!("ambient-{}", body["id"].as_str().unwrap()));
        assert_eq!(body["href"], format!("{BASE}/errors/{}", body["id"].as_str().unwrap()));
        assert_eq!(body["operation_id"], self.header("x-operation-id"));
        assert_eq!(self.header("content-type"), "application/json");
        body
    }

    /// The field at fault.
    #[track_caller]
    pub fn fault(&self, status: u16) -> String {
        let error = self.error(status);
        error["details"][0]["field"].as_str().unwrap_or_else(|| panic!("no field in {error}")).to_owned()
    }
}
