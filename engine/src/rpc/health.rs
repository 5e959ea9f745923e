//! `grpc.health.v1.Health`: whether this process can work.

use tonic::Status;

use crate::engine::Engine;

pub(super) const SERVICE: &str = "grpc.health.v1.Health";

/// Which service is asked about; empty means the whole server.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
}

#[allow(clippy::needless_pass_by_value, reason = "a handler")]
pub(super) fn check(engine: &Engine, request: HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
    let known = ["", super::WORKFLOW_SERVICE, super::operator::SERVICE, SERVICE];
    if !known.contains(&request.service.as_str()) {
        return Err(Status::not_found(format!("service {:?} is not known", request.service)));
    }
    let status = if engine.readiness().is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing };
    Ok(HealthCheckResponse { status: status as i32 })
}
