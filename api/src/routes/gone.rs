//! Routes of earlier platforms that were removed on purpose. They answer 410 and say what to use.

use ambient_wire::error::Error;

use crate::error::{ApiError, Number};

/// Gone: the status follows from commands and from observation.
#[utoipa::path(put, path = "/sessions/{session_id}/status", operation_id = "setSessionStatus", tag = "gone", security(()),
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 410, description = "Use POST start or stop", body = Error)))]
pub(super) async fn set_status() -> ApiError {
    gone("the status of a session cannot be set: use POST /sessions/{id}/start or /stop, and read GET /sessions/{id}")
}

/// Gone: read the workspace directly.
#[utoipa::path(post, path = "/sessions/{session_id}/spawn-content-pod", operation_id = "spawnContentPod", tag = "gone", security(()),
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 410, description = "Use GET workspace", body = Error)))]
pub(super) async fn create_content_pod() -> ApiError {
    content_pod()
}

/// Gone: read the workspace directly.
#[utoipa::path(get, path = "/sessions/{session_id}/content-pod-status", operation_id = "getContentPodStatus", tag = "gone", security(()),
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 410, description = "Use GET workspace", body = Error)))]
pub(super) async fn content_pod_status() -> ApiError {
    content_pod()
}

/// Gone: read the workspace directly.
#[utoipa::path(delete, path = "/sessions/{session_id}/content-pod", operation_id = "deleteContentPod", tag = "gone", security(()),
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 410, description = "Use GET workspace", body = Error)))]
pub(super) async fn delete_content_pod() -> ApiError {
    content_pod()
}

fn content_pod() -> ApiError {
    gone("there are no content pods: GET /sessions/{id}/workspace reads the running session's workspace itself")
}

fn gone(instead: &str) -> ApiError {
    ApiError::new(Number::Gone, instead)
}
