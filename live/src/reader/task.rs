//! The task of one run: waits for the lease, reads, releases it.

use std::sync::Arc;

use ambient_persistence::retry::{Backoff, jittered};
use ambient_persistence::{RulerVersions, StoreError};
use tokio::{
    sync::{Notify, watch},
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, EndpointError, RunRef,
    connection::{Ended, Reading},
    facts,
    lease::HeldLease,
    silence::Silence,
};
use crate::runner_client::RunnerClient;

/// How long the lease of a runner that is gone is kept for facts that nobody accepts.
const FLUSH: Duration = Duration::from_secs(5);

/// The outcome of a round.
enum Round {
    /// Something was read.
    Read,
    /// Nothing to read and nothing to report.
    Nothing,
    /// The runner is there, but says nothing.
    Silent,
    /// Another process reads.
    Elsewhere,
}

/// Why a round failed, as opposed to having nothing to do.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the registry tells the task.
#[derive(Debug)]
pub(super) struct Orders {
    /// There may be a runner, or messages for it.
    pub(super) wake: Notify,
    /// Those whose rules hold for the run, as they were last seen.
    pub(super) rulers: watch::Sender<Option<RulerVersions>>,
    /// Nobody wants it any more.
    pub(super) cancel: CancellationToken,
}

/// Reads as long as it is wanted.
pub(super) async fn run(context: Arc<Context>, run: RunRef, orders: Arc<Orders>) {
    let Orders { wake, cancel, .. } = &*orders;
    let mut backoff = Backoff::new(Duration::from_millis(100), context.options.longest_pause);
    let silence = Silence::default();
    while !cancel.is_cancelled() {
        let round = Box::pin(one_round(&context, &run, &orders, &silence)).await;
        match round {
            Ok(Round::Silent) => {
                tokio::select! {
                    () = silence.unheard(&context, &run) => {}
                    () = cancel.cancelled() => return,
                }
            }
            Ok(_) => silence.broken(),
            Err(_) => {}
        }
        let pause = match round {
            Ok(Round::Read) => {
                backoff.reset();
                backoff.pause()
            }
            Ok(Round::Nothing | Round::Silent) => backoff.pause(),
            Ok(Round::Elsewhere) => jittered(context.options.lease_poll),
            Err(error) => {
                tracing::warn!(session = run.session_id, %error, "a runner's log cannot be read; trying again");
                backoff.pause()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wake.notified() => {}
            () = cancel.cancelled() => return,
        }
    }
}

async fn one_round(context: &Context, run: &RunRef, orders: &Orders, silence: &Silence) -> Result<Round, RoundError> {
    let cancel = &orders.cancel;
    let client = tokio::select! {
        client = context.client(run) => client?,
        () = cancel.cancelled() => return Ok(Round::Nothing),
    };
    // Without a runner the lease is only useful for what an earlier reader stored and did not report.
    if client.is_none() && !facts::are_due(context, run).await? {
        return Ok(Round::Nothing);
    }
    let Some(lease) = context.leases.acquire(&run.session_id, run.run).await? else { return Ok(Round::Elsewhere) };
    let round = tokio::select! {
        round = with_lease(context, run, client.as_ref(), &lease, orders, silence) => round,
        () = lease.lost() => Round::Elsewhere,
        () = cancel.cancelled() => Round::Nothing,
    };
    lease.release().await;
    Ok(round)
}

async fn with_lease(
    context: &Context,
    run: &RunRef,
    client: Option<&RunnerClient>,
    lease: &HeldLease,
    orders: &Orders,
    silence: &Silence,
) -> Round {
    let facts_due = Notify::new();
    let mut ended = Ended::Unreachable { had_read: false, silent: false };
    if let Some(client) = client {
        let reading = Reading { context, run, client, lease, orders, facts_due: &facts_due, silence };
        ended = tokio::select! {
            ended = reading.until_unreachable() => ended,
            () = facts::report_whenever(context, run, &facts_due) => Ended::Unreachable { had_read: false, silent: false },
        };
    }
    if matches!(ended, Ended::LeaseLost) {
        return Round::Elsewhere;
    }
    // A runner's last record may be its exit. What is not accepted in time is reported with the next lease.
    match timeout(FLUSH, facts::report_all(context, run)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(session = run.session_id, %error, "facts are left to report"),
        Err(_) => tracing::warn!(session = run.session_id, "facts are left to report: nobody accepts them"),
    }
    match ended {
        Ended::Unreachable { silent: true, .. } => Round::Silent,
        Ended::Unreachable { had_read: true, .. } => Round::Read,
        _ => Round::Nothing,
    }
}
