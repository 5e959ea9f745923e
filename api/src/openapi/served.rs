//! The routes of the document itself. Open to everyone, as the probes are.

use axum::{http::header, response::IntoResponse};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{json_text, yaml_text};
use crate::authority::AppState;

/// Routes outside the API's base.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(openapi_json)).routes(routes!(openapi_yaml))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenapiJson", tag = "health", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn openapi_json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], json_text())
}

/// This document.
#[utoipa::path(get, path = "/openapi.yaml", operation_id = "getOpenapiYaml", tag = "health", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/yaml")))]
async fn openapi_yaml() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], yaml_text())
}
