//! The cases' activities: they do little, and always the same.

use std::time::Duration;

use serde_json::{Value, json};
use temporalio_macros::activities;
use temporalio_sdk::{
    ApplicationFailure,
    activities::{ActivityContext, ActivityError},
};

pub struct Activities;

fn failure(message: &str, kind: &str, non_retryable: bool, delay: Option<u64>) -> ActivityError {
    ApplicationFailure::builder(std::io::Error::other(message.to_owned()))
        .type_name(kind.to_owned())
        .non_retryable(non_retryable)
        .maybe_next_retry_delay(delay.map(Duration::from_millis))
        .build()
        .into()
}

#[activities]
impl Activities {
    /// Its input.
    #[activity(name = "echo")]
    pub async fn echo(_ctx: ActivityContext, input: Value) -> Result<Value, ActivityError> {
        Ok(input)
    }

    /// Fails until attempt `input`.
    #[activity(name = "flaky")]
    pub async fn flaky(ctx: ActivityContext, input: Value) -> Result<Value, ActivityError> {
        let attempt = ctx.info().attempt;
        if u64::from(attempt) < input.as_u64().unwrap_or(1) {
            return Err(failure(&format!("attempt {attempt}"), "Flaky", false, None));
        }
        Ok(json!({ "attempt": attempt }))
    }

    /// Fails always, with type `input`.
    #[activity(name = "fail")]
    pub async fn fail(_ctx: ActivityContext, input: Value) -> Result<Value, ActivityError> {
        Err(failure("always", input.as_str().unwrap_or("Always"), false, None))
    }

    /// Fails at once and for good.
    #[activity(name = "refuse")]
    pub async fn refuse(_ctx: ActivityContext, _input: Value) -> Result<Value, ActivityError> {
        Err(failure("refused", "Refused", true, None))
    }

    /// Asks for the next attempt after `input` milliseconds; the second one succeeds.
    #[activity(name = "later")]
    pub async fn later(ctx: ActivityContext, input: Value) -> Result<Value, ActivityError> {
        if ctx.info().attempt == 1 {
            return Err(failure("later", "Later", false, input.as_u64()));
        }
        Ok(json!(ctx.info().attempt))
    }

    /// Takes `input` milliseconds and heeds nothing.
    #[activity(name = "slow")]
    pub async fn slow(_ctx: ActivityContext, input: Value) -> Result<Value, ActivityError> {
        tokio::time::sleep(Duration::from_millis(input.as_u64().unwrap_or(100))).await;
        Ok(input)
    }

    /// Heartbeats until it is cancelled (or for 20 s).
    #[activity(name = "beat")]
    pub async fn beat(ctx: ActivityContext, _input: Value) -> Result<Value, ActivityError> {
        for beat in 0..400_u32 {
            let _ = ctx.record_heartbeat(beat).await;
            tokio::select! {
                () = ctx.cancelled() => return Err(ActivityError::cancelled()),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
        Ok(json!("not cancelled"))
    }

    /// Heartbeats once with a detail and fails; the next attempt returns that detail.
    #[activity(name = "carry")]
    pub async fn carry(ctx: ActivityContext, input: Value) -> Result<Value, ActivityError> {
        if ctx.info().attempt == 1 {
            let _ = ctx.record_heartbeat(input).await;
            return Err(failure("after a heartbeat", "Carry", false, None));
        }
        let details = ctx.heartbeat_details().raw().first().map(|payload| payload.data.clone()).unwrap_or_default();
        Ok(serde_json::from_slice(&details).unwrap_or_default())
    }

    /// A large result: `input` bytes.
    #[activity(name = "large")]
    pub async fn large(_ctx: ActivityContext, input: Value) -> Result<Value, ActivityError> {
        let size = usize::try_from(input.as_u64().unwrap_or(0)).unwrap_or(0);
        Ok(json!("x".repeat(size)))
    }

    /// Never comes back by itself on the first attempt.
    #[activity(name = "hang")]
    pub async fn hang(ctx: ActivityContext, _input: Value) -> Result<Value, ActivityError> {
        if ctx.info().attempt == 1 {
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        Ok(json!(ctx.info().attempt))
    }
}
