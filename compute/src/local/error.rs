//! Failures of the system.

use crate::ComputeError;

/// `what` was attempted, with the path.
pub(super) fn io_error(what: impl Into<String>, source: std::io::Error) -> ComputeError {
    ComputeError::Io { what: what.into(), source }
}
