//! `ambient openapi`: the contract, as stored in `openapi/openapi.yaml`, or the part of it for client generators.

use std::process::ExitCode;

use clap::Args;

use super::say;

/// Flags of `openapi`.
#[derive(Debug, Args)]
pub struct OpenapiFlags {
    /// Only what clients are generated from: no WebSockets, no routes that are gone, nothing marked x-internal
    #[arg(long)]
    sdk: bool,
}

pub(super) fn run(flags: &OpenapiFlags) -> ExitCode {
    let document = if flags.sdk { ambient_api::client_openapi_yaml() } else { ambient_api::openapi_yaml() };
    say::print(&document);
    ExitCode::SUCCESS
}
