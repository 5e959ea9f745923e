//! The contract.

use std::path::Path;

use crate::support::Server;

#[test]
fn the_committed_document_is_what_the_handlers_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/openapi.yaml");
    let generated = ambient_api::openapi_yaml();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "openapi/openapi.yaml has drifted; UPDATE_OPENAPI=1 cargo test -p ambient-api rewrites it"
    );
}

#[test]
fn every_operation_is_documented_alike() {
    let document = ambient_api::openapi();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(!path.contains('*'), "{path}");
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is used twice");
            assert!(!operation["tags"].as_array().unwrap().is_empty(), "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["headers"]["X-Operation-ID"].is_object(), "{method} {path} {status}");
                let failure = status.as_str() >= "400" && path != "/readyz";
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                assert!(!failure || schema == "#/components/schemas/Error", "{method} {path} {status}: {schema}");
            }
        }
    }
    let text = document.to_string();
    assert!(!text.contains("List_"), "lists are named");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is referred to but not there");
    }
}

#[tokio::test]
async fn the_document_and_the_probes_are_served_to_everybody() {
    let server = Server::start().await;
    let at = |path: &str| server.http.get(format!("http://{}{path}", server.address));
    let yaml = at("/openapi.yaml").send().await.unwrap().text().await.unwrap();
    assert_eq!(yaml, ambient_api::openapi_yaml());
    let json: serde_json::Value = at("/openapi.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(json, ambient_api::openapi());
    for path in ["/livez", "/readyz", "/version", "/metrics", "/api/ambient/v1/errors", "/api/ambient/v1/errors/412"] {
        let response = at(path).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        assert_eq!(response.headers()["x-operation-id"].len(), 27, "{path}");
    }
    let ready: serde_json::Value = at("/readyz").send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["checks"].as_array().unwrap().len(), 3);
}
