//! Who may do what, for every existing route: the routes come from the document, so that none can be forgotten.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ALICE, Answer, BASE, NOBODY, Server, VERA};

/// Routes that are open to everybody.
const OPEN: [&str; 12] = [
    "/livez",
    "/readyz",
    "/metrics",
    "/version",
    "/openapi.json",
    "/openapi.yaml",
    "/api/ambient/v1/errors",
    "/api/ambient/v1/errors/{error_id}",
    "/api/ambient/v1/sessions/{session_id}/status",
    "/api/ambient/v1/sessions/{session_id}/spawn-content-pod",
    "/api/ambient/v1/sessions/{session_id}/content-pod-status",
    "/api/ambient/v1/sessions/{session_id}/content-pod",
];

/// Routes that are about no entity that exists, and what anybody who is known gets there.
const ANYBODY: [(&str, &str, u16); 4] = [
    ("get", "/api/ambient/v1/agent_types", 200),
    ("post", "/api/ambient/v1/projects", 201),
    ("post", "/api/ambient/v1/live/tickets", 201),
    ("get", "/api/ambient/v1/live", 426),
];

/// The id of nothing.
const ABSENT: &str = "2PzyKuGf4Pp1cYCmLvjkxyDiEBD";

struct Route {
    method: Method,
    template: String,
    path: String,
    open: bool,
    /// Of what is not there.
    absent: bool,
}

impl Route {
    fn is_read(&self) -> bool {
        self.method == Method::GET
    }
    fn is_list(&self) -> bool {
        self.is_read() && !self.template.contains('{')
    }
    fn name(&self) -> String {
        format!("{} {}", self.method, self.template)
    }
    /// The same, of something that is not there.
    fn elsewhere(&self, world: &World) -> Self {
        let path = [&world.project, &world.session, &world.operation]
            .into_iter()
            .chain(world.definitions.iter().map(|definition| &definition.id))
            .fold(self.path.clone(), |path, id| path.replace(id, ABSENT));
        Self { method: self.method.clone(), template: self.template.clone(), path, open: self.open, absent: true }
    }
    fn anybody(&self) -> Option<u16> {
        let method = self.method.as_str().to_lowercase();
        ANYBODY.iter().find(|(m, path, _)| *m == method && *path == self.template).map(|(_, _, status)| *status)
    }
}

struct World {
    server: Server,
    project: String,
    session: String,
    operation: String,
    definitions: Vec<Definition>,
    routes: Vec<Route>,
}

/// One of each Kind of definitions.
struct Definition {
    /// Where they are made.
    collection: String,
    /// The parameter that is its id, in braces.
    parameter: String,
    /// A body that makes one.
    example: Value,
    /// Its id.
    id: String,
}

impl Definition {
    /// The Kinds that the document has: what is made by a body that must name a project and have a name, and is found by one id.
    fn of_document(document: &Value) -> Vec<Self> {
        let paths = document["paths"].as_object().unwrap();
        let one_of = |collection: &str| {
            let parameters = paths.keys().filter_map(|path| path.strip_prefix(collection)?.strip_prefix('/'));
            parameters.filter(|rest| rest.starts_with('{') && !rest.contains('/')).map(str::to_owned).next()
        };
        let kinds = paths.iter().filter_map(|(collection, item)| {
            let body = item.pointer("/post/requestBody/content/application~1json/schema/$ref")?.as_str()?;
            let schema = document.pointer(body.trim_start_matches('#'))?;
            let required = schema["required"].as_array()?;
            let is_named = ["project_id", "name"].iter().all(|field| required.contains(&json!(field)));
            let parameter = one_of(collection).filter(|_| is_named)?;
            Some(Self {
                collection: collection.clone(),
                parameter,
                example: schema["example"].clone(),
                id: String::new(),
            })
        });
        kinds.collect()
    }

    fn body(&self, project: &str) -> Value {
        let mut body = self.example.clone();
        body["project_id"] = json!(project);
        body
    }
}

impl World {
    async fn as_token(&self, token: &str, path: &str) -> Answer {
        Answer::of(self.server.request_as(token, Method::GET, path).send().await.unwrap()).await
    }
}

async fn world() -> World {
    let server = Server::start().await;
    let project = server.project("demo").await;
    let session = server.running_session("demo").await;
    let document = ambient_api::openapi();
    let mut definitions = Definition::of_document(&document);
    assert!(definitions.len() > 1);
    for kind in &mut definitions {
        let path = kind.collection.trim_start_matches(BASE);
        let created = server.post(path, kind.body(&project)).await.expect(StatusCode::CREATED);
        created["id"].as_str().unwrap().clone_into(&mut kind.id);
    }
    let operations = server.operations("size=1", 1).await;
    let operation = operations["items"][0]["id"].as_str().unwrap().to_owned();
    let fill = |template: &str| {
        definitions
            .iter()
            .fold(template.to_owned(), |path, one| path.replace(&one.parameter, &one.id))
            .replace("{project_id}", &project)
            .replace("{session_id}", &session)
            .replace("{operation_id}", &operation)
            .replace("{execution_id}", &format!("session-supervise%2F{session}%2F1"))
            .replace("{name}", "demo")
            .replace("{path}", "a.txt")
            .replace("/workspace_file", "/workspace_file?path=a.txt")
            .replace("/upload_file", "/upload_file?path=a.txt")
            .replace("/file", "/file?path=a.txt")
    };
    let mut routes = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            // `security: [{}]` says that no credentials are needed
            let open = operation["security"].as_array().is_some_and(|all| all.iter().all(|one| one == &json!({})));
            routes.push(Route { method, template: template.clone(), path: fill(template), open, absent: false });
        }
    }
    assert!(routes.len() > 40);
    World { server, project, session, operation, definitions, routes }
}

fn body(world: &World, route: &Route) -> Value {
    let project = if route.absent { ABSENT } else { &world.project };
    match route.template.as_str() {
        "/api/ambient/v1/sessions" => json!({"project_id": project}),
        "/api/ambient/v1/projects" => json!({"name": "of-my-own"}),
        path => {
            let kind = world.definitions.iter().find(|kind| kind.collection == path);
            kind.map_or_else(|| json!({}), |kind| kind.body(project))
        }
    }
}

async fn ask(world: &World, token: Option<&str>, route: &Route) -> Answer {
    let url = format!("http://{}{}", world.server.address, route.path);
    let mut request = world.server.http.request(route.method.clone(), url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if !route.is_read() {
        request = request.json(&body(world, route));
    }
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn every_route_but_the_open_ones_needs_credentials() {
    let world = world().await;
    for route in &world.routes {
        let answer = ask(&world, None, route).await;
        assert_eq!(route.open, OPEN.contains(&route.template.as_str()), "{}", route.name());
        assert_eq!(answer.status == StatusCode::UNAUTHORIZED, !route.open, "{}: {}", route.name(), answer.text);
    }
}

#[tokio::test]
async fn who_may_not_look_cannot_tell_what_is_there_from_what_is_not_by_any_method() {
    let world = world().await;
    let stranger = world.server.running_session("demo").await;
    let foreign = world.server.tokens.runner_to_server(&stranger, 1, 1, 0);
    for token in [NOBODY, &foreign] {
        for route in world.routes.iter().filter(|route| !route.open && route.anybody().is_none()) {
            let there = ask(&world, Some(token), route).await;
            if route.is_list() {
                let total = there.expect(StatusCode::OK)["total"].clone();
                assert!(total == 0 || token == foreign, "{}: {}", route.name(), there.text);
                continue;
            }
            // What is about the platform as a whole has nothing to hide.
            let expected = if route.template.contains("/replay/") { 403 } else { 404 };
            there.error(expected);
            let absent = ask(&world, Some(token), &route.elsewhere(&world)).await;
            assert_eq!(told(&world, &there), told(&world, &absent), "{}", route.name());
        }
        for method in ["PUT", "OPTIONS", "TRACE", "BREW"] {
            let method: Method = method.parse().unwrap();
            for session in [&world.session, ABSENT] {
                let request = world.server.request_as(token, method.clone(), &format!("/sessions/{session}"));
                Answer::of(request.send().await.unwrap()).await.error(405);
            }
        }
        for filter in ["sessions?project_id", "operations?project_id", "workflow_executions?project_id"] {
            let [there, absent] = [world.project.as_str(), ABSENT].map(|id| format!("/{filter}={id}"));
            let (there, absent) = (world.as_token(token, &there).await, world.as_token(token, &absent).await);
            there.error(404);
            assert_eq!(told(&world, &there), told(&world, &absent), "{filter}");
        }
        let [there, absent] = [&*world.session, ABSENT].map(|id| format!("/workflow_executions?session_id={id}"));
        let (there, absent) = (world.as_token(token, &there).await, world.as_token(token, &absent).await);
        there.error(404);
        assert_eq!(told(&world, &there), told(&world, &absent));
    }
    for (route, status) in world.routes.iter().filter_map(|route| Some((route, route.anybody()?))) {
        let answer = ask(&world, Some(NOBODY), route).await;
        assert_eq!(answer.status.as_u16(), status, "{}: {}", route.name(), answer.text);
    }
}

/// Everything that an answer tells but what is the request's own: its id, the time, and what was asked for.
fn told(world: &World, answer: &Answer) -> (u16, Value, Vec<String>) {
    let mut body = answer.json();
    body["operation_id"] = Value::Null;
    let mut text = body.to_string();
    let definitions = world.definitions.iter().map(|definition| definition.id.as_str());
    for id in [&*world.project, &*world.session, &*world.operation, ABSENT].into_iter().chain(definitions) {
        text = text.replace(id, "[id]");
    }
    let own = ["date", "x-operation-id", "traceresponse", "content-length"];
    let headers = answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    (answer.status.as_u16(), serde_json::from_str(&text).unwrap(), headers)
}

#[tokio::test]
async fn who_may_look_cannot_change_anything() {
    let world = world().await;
    // A stream has no end.
    let is_stream = |route: &&Route| ["/stream", "/agui/events"].iter().any(|end| route.template.ends_with(end));
    for route in world.routes.iter().filter(|route| !route.open && route.anybody().is_none() && !is_stream(route)) {
        let answer = ask(&world, Some(VERA), route).await;
        if route.is_read() {
            // 426: a WebSocket without an upgrade; 409: no runner behind the session; a session that never ran has no turns
            let seen = matches!(answer.status.as_u16(), 200 | 409 | 426) || answer.text.contains("Turn with id=");
            assert!(seen, "{}: {}", route.name(), answer.text);
        } else {
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}: {}", route.name(), answer.text);
        }
    }
}

#[tokio::test]
async fn who_may_edit_works_with_sessions_but_does_not_own_the_project() {
    let world = world().await;
    let ask_as_alice = |method: Method, path: &str, body: Value| {
        let request = world.server.request_as(ALICE, method, path).json(&body);
        async { Answer::of(request.send().await.unwrap()).await }
    };
    let created =
        ask_as_alice(Method::POST, "/sessions", json!({"project_id": "demo"})).await.expect(StatusCode::CREATED);
    assert_eq!(created["created_by_user_id"], "alice");
    let path = format!("/sessions/{}", created["id"].as_str().unwrap());
    ask_as_alice(Method::POST, &format!("{path}/start"), json!({})).await.expect(StatusCode::ACCEPTED);
    ask_as_alice(Method::POST, &format!("{path}/stop"), json!({"force": true})).await.error(403);
    ask_as_alice(Method::DELETE, &path, json!({})).await.expect(StatusCode::NO_CONTENT);
    ask_as_alice(Method::PATCH, "/projects/demo", json!({"description": "mine"})).await.error(403);
    ask_as_alice(Method::DELETE, "/projects/demo", json!({})).await.error(403);
    let grant = json!({"subject_type": "user", "subject_name": "alice", "role": "admin"});
    ask_as_alice(Method::POST, "/projects/demo/permissions", grant).await.error(403);
    ask_as_alice(Method::POST, "/replay/verify", json!({})).await.error(403);
}

#[tokio::test]
async fn a_sessions_token_is_good_for_that_session_while_its_run_is_underway() {
    let world = world().await;
    let server = &world.server;
    let (own, other) = (server.running_session("demo").await, server.running_session("demo").await);
    let token = server.tokens.runner_to_server(&own, 1, 1, 0);
    let ask = |method: Method, path: String| {
        let request = server.request_as(&token, method, &path).json(&json!({}));
        async { Answer::of(request.send().await.unwrap()).await }
    };
    assert_eq!(ask(Method::GET, format!("/sessions/{own}")).await.expect(StatusCode::OK)["id"], json!(own));
    ask(Method::GET, format!("/sessions/{other}")).await.error(404);
    ask(Method::POST, format!("/sessions/{other}/stop")).await.error(404);
    ask(Method::GET, "/projects/demo".to_owned()).await.error(404);
    ask(Method::POST, "/projects".to_owned()).await.error(403);
    ask(Method::DELETE, format!("/sessions/{own}")).await.error(403);
    ask(Method::POST, format!("/workflow_executions/session-supervise%2F{own}%2F1/terminate")).await.error(403);
    assert_eq!(ask(Method::GET, "/sessions".to_owned()).await.expect(StatusCode::OK)["total"], 0);

    let to_runner = server.tokens.server_to_runner(&own, 1);
    let next_run = server.tokens.runner_to_server(&own, 2, 1, 0);
    let expired = server.tokens.runner_to_server(&own, 1, 1, 1);
    for bad in [&to_runner, &next_run, &expired] {
        let request = server.request_as(bad, Method::GET, &format!("/sessions/{own}"));
        Answer::of(request.send().await.unwrap()).await.error(401);
    }
    server.database.revoke_tokens(&own, 1).await.unwrap();
    ask(Method::GET, format!("/sessions/{own}")).await.error(401);
}
