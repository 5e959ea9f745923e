//! Failure numbers: stable, documented, served at `/errors`.

use axum::http::StatusCode;

macro_rules! numbers {
    ($($name:ident = $number:literal, $status:ident, $meaning:literal;)+) => {
        /// The kind of failure. The number is stable; the first ones are those of the upstream API server, the others equal the status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Number {
            $(#[doc = $meaning] $name,)+
        }

        /// All numbers.
        pub const CATALOGUE: &[Number] = &[$(Number::$name),+];

        impl Number {
            /// The number.
            #[must_use]
            pub const fn value(self) -> u16 {
                match self { $(Self::$name => $number,)+ }
            }
            /// Status of its response.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }
            /// For people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

numbers! {
    Forbidden = 4, FORBIDDEN, "the caller may not do this";
    Conflict = 6, CONFLICT, "the state of the object, or another object, does not allow it";
    NotFound = 7, NOT_FOUND, "the object does not exist, or the caller may not see it";
    Validation = 8, BAD_REQUEST, "a field has a value that is not allowed";
    General = 9, INTERNAL_SERVER_ERROR, "internal error";
    NotImplemented = 10, METHOD_NOT_ALLOWED, "this route has no such method";
    Unauthenticated = 15, UNAUTHORIZED, "no valid credentials; send `Authorization: Bearer <token>`";
    Malformed = 17, BAD_REQUEST, "the request cannot be read";
    BadRequest = 21, BAD_REQUEST, "the request is not allowed as it is";
    UnknownRoute = 404, NOT_FOUND, "there is no such route";
    Gone = 410, GONE, "this is gone for good";
    Stale = 412, PRECONDITION_FAILED, "If-Match does not name the current version, or a file is not as If-Match or If-None-Match says";
    TooLarge = 413, PAYLOAD_TOO_LARGE, "the body is too large";
    UriTooLong = 414, URI_TOO_LONG, "the address is too long";
    MediaType = 415, UNSUPPORTED_MEDIA_TYPE, "the body must be JSON";
    Range = 416, RANGE_NOT_SATISFIABLE, "the range is outside the file";
    KeyReused = 422, UNPROCESSABLE_ENTITY, "the Idempotency-Key was used for another request";
    UpgradeRequired = 426, UPGRADE_REQUIRED, "this is a WebSocket: the request must ask for the upgrade";
    TooMany = 429, TOO_MANY_REQUESTS, "too many requests";
    HeadersTooLarge = 431, REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large, or too many";
    BadGateway = 502, BAD_GATEWAY, "the session's runner failed";
    Unavailable = 503, SERVICE_UNAVAILABLE, "temporarily unavailable; the same request may succeed later";
}

impl Number {
    /// The number as text.
    #[must_use]
    pub fn id(self) -> String {
        self.value().to_string()
    }

    /// The number for a failure of which only the status is known.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::UnknownRoute,
            StatusCode::BAD_REQUEST => Self::Malformed,
            _ => CATALOGUE
                .iter()
                .copied()
                .find(|number| number.status() == status)
                .unwrap_or_else(|| if status.is_client_error() { Self::BadRequest } else { Self::General }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_used_once() {
        let mut values: Vec<_> = CATALOGUE.iter().map(|number| number.value()).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), CATALOGUE.len());
    }
}
