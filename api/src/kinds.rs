//! The existing Kinds, for parameters that name one.

use ambient_persistence::{KINDS, Kind, OperationFilter};

use crate::error::{ApiError, ApiResult};

/// Kinds with their own stream of operations.
pub(crate) fn streams() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}

/// Those, and the kinds kept in another one's stream.
pub(crate) fn all() -> Vec<&'static str> {
    KINDS.iter().flat_map(|kind| std::iter::once(kind.name).chain(kind.parts.iter().map(|part| part.kind))).collect()
}

/// A kind with its own stream.
pub(crate) fn known_stream(name: Option<&str>) -> ApiResult<()> {
    match name {
        Some(name) if Kind::named(name).is_none() => Err(unknown(&streams())),
        _ => Ok(()),
    }
}

/// Narrows a filter to a kind; for one kept in another's stream, to the commands that change it.
pub(crate) fn narrow(filter: &mut OperationFilter, name: Option<&str>) -> ApiResult<()> {
    let Some(name) = name else { return Ok(()) };
    for kind in KINDS {
        if let Some(part) = kind.parts.iter().find(|part| part.kind == name) {
            filter.commands = Some(part.commands.iter().map(|&command| command.to_owned()).collect());
        } else if kind.name != name {
            continue;
        }
        filter.entity_kind = Some(kind.name.to_owned());
        return Ok(());
    }
    Err(unknown(&all()))
}

fn unknown(known: &[&str]) -> ApiError {
    ApiError::invalid("entity_kind", format!("must be one of {}", known.join(", ")))
}
