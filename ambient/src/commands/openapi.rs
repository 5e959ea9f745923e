//! `ambient openapi`: the contract, as `openapi/openapi.yaml` holds it.

use std::{
    io::{self, Write},
    process::ExitCode,
};

pub(super) fn run() -> ExitCode {
    let written = io::stdout().lock().write_all(ambient_api::openapi_yaml().as_bytes());
    // A reader that has seen enough (`| head`) is no failure of ours.
    if written.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
