//! `ambient openapi`: the contract, as stored in `openapi/openapi.yaml`, or the part of it for client generators.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;

/// Flags of `openapi`.
#[derive(Debug, Args)]
pub struct OpenapiFlags {
    /// Only what clients are generated from: no WebSockets, no routes that are gone, nothing marked x-internal
    #[arg(long)]
    sdk: bool,
}

pub(super) fn run(flags: &OpenapiFlags) -> ExitCode {
    let document = if flags.sdk { ambient_api::client_openapi_yaml() } else { ambient_api::openapi_yaml() };
    let written = io::stdout().lock().write_all(document.as_bytes());
    // A reader that has seen enough (`| head`) is not our failure.
    if written.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
