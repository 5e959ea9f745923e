//! Query strings into types. Every parameter is either known to its list or refused by name.

use std::borrow::Cow;

use axum::{
    extract::{FromRequestParts, MatchedPath},
    http::request::Parts,
};
use chrono::{DateTime, Timelike, Utc};
use percent_encoding::percent_decode_str;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use utoipa::IntoParams;

use super::json::field_error;
use crate::error::{ApiError, ApiResult, Number};

/// The query string as `T` (which denies unknown fields).
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Which version.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionParams {
    /// The object as it was at this version, replayed from its operations.
    #[param(minimum = 1)]
    pub(crate) version: Option<i64>,
}

/// Whether a route, by method and path, has query parameters: the router tells every request, because only all routes
/// together know.
#[derive(Clone, Copy)]
pub(crate) struct TakesQuery(pub(crate) fn(&str, &str) -> bool);

/// Refuses a query on a route without query parameters; where there are some, [`Query`] knows them.
pub(crate) fn no_query(parts: &Parts) -> ApiResult<()> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoParameters {}
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let takes = |TakesQuery(takes): &TakesQuery| takes(parts.method.as_str(), route);
    match parts.uri.query() {
        None | Some("") => Ok(()),
        Some(_) if parts.extensions.get::<TakesQuery>().is_some_and(takes) => Ok(()),
        Some(query) => parse::<NoParameters>(query).map(|NoParameters {}| ()),
    }
}

/// A time as in RFC 3339 and JSON Schema's `date-time`: chrono also accepts a space for the `T`, and a leap second at any time.
pub(crate) fn date_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let read = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.to_utc());
    let well_formed = |time: &DateTime<Utc>| {
        let leap = time.nanosecond() >= 1_000_000_000;
        matches!(text.as_bytes().get(10), Some(b'T' | b't')) && (!leap || (time.hour(), time.minute()) == (23, 59))
    };
    read.filter(well_formed).map(Some).ok_or_else(|| D::Error::custom("must be a time such as 2026-01-31T12:00:00Z"))
}

fn parse<T: DeserializeOwned>(query: &str) -> ApiResult<T> {
    query.split('&').try_for_each(check_text)?;
    let query = folded(form_urlencoded::parse(query.as_bytes()));
    let pairs = form_urlencoded::parse(query.as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs)).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner().to_string();
        field_error(if path == "." { "body" } else { &path }, &problem)
    })
}

/// Separates the values of a repeatable parameter; no value contains it (see [`check_text`]).
pub(crate) const BETWEEN: char = '\0';
/// Repeatable parameters: all values must match.
const REPEATED: [&str; 1] = ["label"];

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The query with a repeated parameter's values joined into one.
fn folded<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> String {
    let mut all: Vec<Pair<'a>> = Vec::new();
    for (name, value) in pairs {
        match all.iter_mut().find(|(known, _)| *known == name && REPEATED.contains(&name.as_ref())) {
            Some((_, values)) => *values = format!("{values}{BETWEEN}{value}").into(),
            None => all.push((name, value)),
        }
    }
    form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish()
}

/// The decoder replaces what is not UTF-8; Postgres cannot store NUL.
fn check_text(pair: &str) -> ApiResult<()> {
    let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
    let shown = percent_decode_str(name).decode_utf8_lossy().escape_debug().to_string();
    match percent_decode_str(pair).decode_utf8() {
        Err(_) => Err(ApiError::new(Number::Malformed, format!("query parameter '{shown}' is not valid UTF-8"))
            .at(shown, "must be percent-encoded UTF-8")),
        Ok(text) if text.contains('\0') => Err(ApiError::invalid(shown, "must not contain NUL")),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        #[allow(dead_code, reason = "only parsed")]
        page: Option<i64>,
        #[serde(alias = "orderBy")]
        order_by: Option<String>,
        label: Option<String>,
        #[serde(default, deserialize_with = "date_time")]
        since: Option<DateTime<Utc>>,
    }

    #[test]
    fn all_labels_count() {
        let label = |query| parse::<Params>(query).unwrap().label.unwrap();
        assert_eq!(label("label=a%3D1&page=1&label=b%3D2&label=c%3D"), "a=1\0b=2\0c=");
    }

    #[test]
    fn a_time_is_of_rfc_3339() {
        for time in
            ["2026-01-31T12:00:00Z", "2026-01-31t12:00:00.5z", "2026-01-31T12:00:00-23:59", "2016-12-31T23:59:60Z"]
        {
            assert!(parse::<Params>(&format!("since={time}")).unwrap().since.is_some(), "{time}");
        }
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        assert_eq!(parse::<Params>("page=2&orderBy=name+desc").unwrap().order_by.unwrap(), "name desc");
        for (query, said) in [
            ("page=x", "page: must be an integer"),
            ("page=", "page: must be an integer"),
            ("page=99999999999999999999", "page: is too large a number"),
            ("bogus=1", "bogus: unknown field; expected"),
            ("page=1&page=2", "page: is given twice"),
            ("order_by=%00", "order_by: must not contain NUL"),
            ("order_by=%ff", "query parameter 'order_by' is not valid UTF-8"),
            ("since=2026-01-31", "since: must be a time such as"),
            ("since=2026-01-31%2012:00:00Z", "since: must be a time such as"),
            ("since=2026-01-31T12:00:00", "since: must be a time such as"),
            ("since=2026-01-31T12:00:00%2B0100", "since: must be a time such as"),
            ("since=2026-01-31T12:00:60Z", "since: must be a time such as"),
        ] {
            let reason = parse::<Params>(query).unwrap_err().to_string();
            assert!(reason.starts_with(said), "{query}: {reason}");
        }
    }
}
