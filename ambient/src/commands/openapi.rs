//! `ambient openapi`: the contract, as `openapi/openapi.yaml` holds it.

use std::process::ExitCode;

pub(super) fn run() -> ExitCode {
    print!("{}", ambient_api::openapi_yaml());
    ExitCode::SUCCESS
}
