//! Maps failures of the crates below to responses.

use ambient_actors::CallError;
use ambient_compute::ComputeError;
use ambient_domain::{Refusal, RefusalCode};
use ambient_live::{RunnerClientError, SubscribeError};
use ambient_persistence::{StoreError, VaultError};
use ambient_runner_protocol::RunnerError;
use ambient_snapshots::{ReadError, StoreError as SnapshotError};
use ambient_workflows::executions::ExecutionError;

use super::{ApiError, Number};

/// A short wait: the same request may well succeed afterwards.
const SOON: u32 = 1;

impl From<VaultError> for ApiError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(error) => error.into(),
            broken => Self::internal(&broken),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                tracing::warn!(%reason, "the database is not available");
                Self::unavailable("the database is temporarily unavailable", SOON)
            }
            StoreError::UnknownSchemaVersion { .. } => Self::unavailable(error.to_string(), 60),
            StoreError::BadQuery { field, reason } => Self::invalid(field, reason),
            StoreError::Nul { field } => Self::invalid(field, "must not contain NUL"),
            StoreError::Unfaithful { field } => Self::invalid(field, "contains a number that cannot be stored exactly"),
            StoreError::Database(_) | StoreError::Migration(_) | StoreError::Corrupt { .. } => Self::internal(&error),
        }
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let reason = error.to_string();
        match error {
            CallError::Refused(refusal) => refusal.into(),
            CallError::Stale { .. } => Self::new(Number::Stale, reason.clone()).at("If-Match", reason),
            CallError::KeyReused => Self::new(Number::KeyReused, reason.clone()).at("Idempotency-Key", reason),
            CallError::NameTaken { .. } => Self::new(Number::Conflict, reason.clone()).at("name", reason),
            CallError::Timeout { operation_id } => Self::unavailable(reason, SOON).of_operation(operation_id),
            CallError::Busy | CallError::ShuttingDown => Self::unavailable(reason, SOON),
            CallError::Unavailable { .. } => Self::unavailable(reason, SOON),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, field, reason } = refusal;
        let error = match (code, &field) {
            (RefusalCode::Invalid, Some(field)) => return Self::invalid(field, reason),
            (RefusalCode::Invalid, None) => Self::new(Number::Validation, reason.clone()),
            (RefusalCode::NotFound, _) => Self::new(Number::NotFound, reason.clone()),
            (RefusalCode::TryLater, _) => Self::new(Number::Conflict, reason.clone()).retry(SOON),
            (RefusalCode::Phase | RefusalCode::Conflict, _) => Self::new(Number::Conflict, reason.clone()),
        };
        match field {
            Some(field) => error.at(field, reason),
            None => error,
        }
    }
}

impl From<ComputeError> for ApiError {
    fn from(error: ComputeError) -> Self {
        match error {
            ComputeError::Io { .. } => Self::internal(&error),
            error => Self::new(Number::Conflict, error.to_string()),
        }
    }
}

impl From<ExecutionError> for ApiError {
    fn from(error: ExecutionError) -> Self {
        match error {
            ExecutionError::NotFound(id) => Self::not_found("WorkflowExecution", &id),
            ExecutionError::Closed(_) => Self::new(Number::Conflict, error.to_string()),
            ExecutionError::Invalid { field, problem } => Self::invalid(field, problem),
            ExecutionError::Unavailable(reason) => {
                tracing::warn!(%reason, "the workflow engine cannot be reached");
                Self::unavailable("the workflow engine is temporarily unreachable", SOON)
            }
        }
    }
}

impl From<RunnerClientError> for ApiError {
    fn from(error: RunnerClientError) -> Self {
        let told = error.to_string();
        match error {
            RunnerClientError::Refused { error, status } => of_runner(error, status),
            RunnerClientError::Unreachable(_) | RunnerClientError::Timeout(_) => Self::unavailable(told, SOON),
            RunnerClientError::Unauthorized | RunnerClientError::Protocol(_) => Self::new(Number::BadGateway, told),
        }
    }
}

/// A runner's own refusal.
fn of_runner(error: RunnerError, status: u16) -> ApiError {
    let RunnerError { reason, field, .. } = error;
    let number = match status {
        400 => return ApiError::invalid(field.unwrap_or_else(|| "path".to_owned()), reason),
        404 => Number::NotFound,
        409 => Number::Conflict,
        412 => Number::Stale,
        413 => Number::TooLarge,
        416 => Number::Range,
        503 => return ApiError::unavailable(reason, SOON),
        _ => Number::BadGateway,
    };
    match field {
        Some(field) => ApiError::new(number, reason.clone()).at(field, reason),
        None => ApiError::new(number, reason),
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let told = error.to_string();
        match error {
            ReadError::Refused(error) => match error.code.as_str() {
                "bad_input" => Self::invalid(error.field.unwrap_or_else(|| "path".to_owned()), error.reason),
                "not_found" => Self::new(Number::NotFound, error.reason),
                "too_large" => Self::new(Number::TooLarge, error.reason),
                _ => Self::new(Number::Conflict, error.reason),
            },
            ReadError::Store(SnapshotError::NotFound) => Self::new(
                Number::Conflict,
                "the snapshot is no longer in the store: it was kept for as long as configured, or another server has it in its folder",
            ),
            ReadError::Store(SnapshotError::TooLarge(reason)) => Self::new(Number::TooLarge, reason),
            ReadError::Store(SnapshotError::Unavailable(_)) | ReadError::Busy => Self::unavailable(told, SOON),
            ReadError::Store(SnapshotError::Local(_)) | ReadError::Failed(_) => Self::internal(&told),
        }
    }
}

impl From<SubscribeError> for ApiError {
    fn from(error: SubscribeError) -> Self {
        let told = error.to_string();
        match error {
            SubscribeError::TooOld { oldest, covers_seq } => Self::too_old(oldest, covers_seq),
            SubscribeError::Ahead { .. } => Self::new(Number::Conflict, told.clone()).at("after_seq", told),
            SubscribeError::Closed => Self::unavailable(told, SOON),
            SubscribeError::Store(error) => error.into(),
        }
    }
}
