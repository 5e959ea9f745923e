//! Probes, metrics and version. Open to everyone: the listener is on loopback or behind a proxy.

use ambient_wire::api::{Health, Version};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    authority::AppState,
    error::{ApiError, ApiResult, Number},
};

/// Routes outside the API's base.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).routes(routes!(metrics)).routes(routes!(version))
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/livez", operation_id = "getLiveness", tag = "health", security(()),
    responses((status = 200, description = "It is", body = Health)))]
async fn live() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), checks: Vec::new() })
}

/// Whether every part works, with reasons.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "health", security(()),
    responses((status = 200, description = "All do", body = Health), (status = 503, description = "At least one does not", body = Health)))]
async fn ready(State(state): State<AppState>) -> (StatusCode, Json<Health>) {
    let health = state.readiness().await;
    let status = if health.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "health", security(()),
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain; version=0.0.4"),
        (status = 404, description = "This server collects none", body = ambient_wire::error::Error)))]
async fn metrics(State(state): State<AppState>) -> ApiResult<impl IntoResponse> {
    let text = state.metrics().ok_or_else(|| ApiError::new(Number::NotFound, "this server collects no metrics"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

/// Release and agent types of this build.
#[utoipa::path(get, path = "/version", operation_id = "getVersion", tag = "health", security(()),
    responses((status = 200, description = "Release", body = Version)))]
async fn version(State(state): State<AppState>) -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").to_owned(), agent_types: state.agent_types().to_vec() })
}
