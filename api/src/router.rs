//! The server as a whole: every route, and what wraps all of them.

use axum::{Extension, Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    authority::AppState,
    error::{ApiError, Number},
    extract::TakesQuery,
    observe::observe,
    openapi,
};

/// Everything the server serves.
pub fn router(state: AppState) -> Router {
    let traces = state.traces();
    let (router, _) = openapi::documented().split_for_parts();
    router
        .fallback(|| async { ApiError::new(Number::UnknownRoute, Number::UnknownRoute.meaning()) })
        .layer(Extension(TakesQuery(openapi::takes_a_query)))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(traces, observe))
        .with_state(state)
}

#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    axum::response::IntoResponse::into_response(ApiError::internal(&format!("a handler panicked: {text}")))
}
