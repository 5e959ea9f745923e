//! Failures of routes, for the document.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses,
    openapi::{Ref, RefOr, Response},
};

use crate::error::Number;

/// Failures that an operation does not list.
pub(crate) const ANY_FAILURE: &str = "Failure";

/// Name of the component that documents a status's failure.
pub(crate) fn response_name(number: Number) -> String {
    let words = number.status().canonical_reason().unwrap_or(ANY_FAILURE);
    words.split(' ').collect()
}

type Documented = BTreeMap<String, RefOr<Response>>;

/// By reference: what they look like is defined once, in the components.
fn document(numbers: &[Number]) -> Documented {
    let response = |number: &Number| {
        let component = format!("#/components/responses/{}", response_name(*number));
        (number.status().as_u16().to_string(), RefOr::Ref(Ref::new(component)))
    };
    numbers.iter().map(response).collect()
}

/// Failures of every route that needs a principal.
const COMMON: [Number; 4] = [Number::Malformed, Number::Unauthenticated, Number::General, Number::Unavailable];

/// Failures of a list.
pub(crate) struct Listing;

impl IntoResponses for Listing {
    fn responses() -> Documented {
        document(&COMMON)
    }
}

/// What a WebSocket route returns for a request without an upgrade.
pub(crate) struct Upgrading;

impl IntoResponses for Upgrading {
    fn responses() -> Documented {
        document(&[Number::UpgradeRequired])
    }
}

/// Failures of a read of one object.
pub(crate) struct Reading;

impl IntoResponses for Reading {
    fn responses() -> Documented {
        let mut all = document(&COMMON);
        all.extend(document(&[Number::NotFound]));
        all
    }
}

/// Failures of actions on things without a version.
pub(crate) struct Acting;

impl IntoResponses for Acting {
    fn responses() -> Documented {
        let mut all = Reading::responses();
        all.extend(document(&[Number::Forbidden, Number::Conflict, Number::TooLarge, Number::MediaType]));
        all
    }
}

/// Failures of a creation.
pub(crate) struct Creating;

impl IntoResponses for Creating {
    fn responses() -> Documented {
        let mut all = Acting::responses();
        all.extend(document(&[Number::KeyReused]));
        all
    }
}

/// Failures of a change to something with a version.
pub(crate) struct Changing;

impl IntoResponses for Changing {
    fn responses() -> Documented {
        let mut all = Creating::responses();
        all.extend(document(&[Number::Stale]));
        all
    }
}

/// Failures of a change to a file; `If-Match` names its content.
pub(crate) struct Writing;

impl IntoResponses for Writing {
    fn responses() -> Documented {
        document(&[Number::Forbidden, Number::Stale])
    }
}

/// Failures of looks into stored snapshots.
pub(crate) struct Stored;

impl IntoResponses for Stored {
    fn responses() -> Documented {
        let mut all = Reading::responses();
        all.extend(document(&[Number::Conflict, Number::TooLarge]));
        all
    }
}

/// Failures of requests to the session's runner.
pub(crate) struct Proxied;

impl IntoResponses for Proxied {
    fn responses() -> Documented {
        let mut all = Reading::responses();
        all.extend(document(&[Number::Conflict, Number::TooLarge, Number::Range, Number::BadGateway]));
        all
    }
}
