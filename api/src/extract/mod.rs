//! What a handler gets from a request: path, query, body and conditions, each checked, and each failure names its field.

mod body;
mod conditions;
mod json;
mod query;
mod upload;
mod words;

pub(crate) use self::{
    body::{
        Act, ConversationJson, Fingerprint, Json, MaxBodyBytes, NoBody, OpaqueJson, OrDefault, Write, WriteOptions,
    },
    conditions::{Conditions, accepts_event_stream, last_event_id},
    query::{BETWEEN, Query, TakesQuery, VersionParams, date_time, no_query},
    upload::Upload,
    words::{in_words, of_json},
};

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};

use crate::error::{ApiError, ApiResult, Number};

/// A path parameter, decoded.
pub(crate) async fn path_param(parts: &mut Parts, name: &str) -> ApiResult<String> {
    let params = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| {
        ApiError::new(Number::Malformed, "the path is not valid UTF-8").at("path", "must be percent-encoded UTF-8")
    })?;
    let value = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    let value = value.ok_or_else(|| ApiError::internal(&format!("route without parameter {name}")))?;
    if value.contains('\0') {
        return Err(ApiError::invalid(name, "must not contain NUL"));
    }
    Ok(value)
}

/// Declares an extractor for one path parameter.
macro_rules! path_parameter {
    ($(#[$doc:meta])* $name:ident, $param:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(pub(crate) String);

        impl<S: Sync> axum::extract::FromRequestParts<S> for $name {
            type Rejection = crate::error::ApiError;
            async fn from_request_parts(
                parts: &mut axum::http::request::Parts,
                _: &S,
            ) -> Result<Self, Self::Rejection> {
                crate::extract::path_param(parts, $param).await.map(Self)
            }
        }
    };
}
pub(crate) use path_parameter;
