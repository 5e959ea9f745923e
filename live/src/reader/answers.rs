//! Answers to permission requests, changed permissions, and changed settings of the agent, to the runner.

use std::{collections::HashSet, time::Duration};

use ambient_domain::session::{Fact, Interrupt, InterruptOutcome, Session};
use ambient_wire::permission::InterruptAnswer;
use tokio::time::timeout;

use super::{Context, RunRef};
use crate::{
    agent, permissions,
    runner_client::{RunnerClient, RunnerClientError},
};

/// Timeout of one attempt to deliver a fact.
const REPORT: Duration = Duration::from_secs(10);

/// What the runner at the other end of one connection has been told.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Requests whose answer it has; its log will say that they are closed.
    handed_over: HashSet<String>,
}

impl Answers {
    /// Tells what there is to tell; returns whether that was anything.
    pub(super) async fn tell(
        &mut self,
        context: &Context,
        run: &RunRef,
        client: &RunnerClient,
    ) -> Result<bool, String> {
        let due = context.db.session_due(&run.session_id, run.run).await.map_err(|e| e.to_string())?;
        let Some(session) = due else {
            self.handed_over.clear();
            return Ok(false);
        };
        // Permissions first: with the answer `always` the agent goes on at once, and must not be asked again.
        let mut any = tell_permissions(context, run, client, &session).await?;
        any |= tell_settings(context, run, client, &session).await?;
        self.handed_over.retain(|id| session.answered_interrupts().any(|open| open.request.interrupt_id == *id));
        for open in session.answered_interrupts() {
            any |= self.hand_over(context, run, client, open).await?;
        }
        Ok(any)
    }

    async fn hand_over(
        &mut self,
        context: &Context,
        run: &RunRef,
        client: &RunnerClient,
        open: &Interrupt,
    ) -> Result<bool, String> {
        let id = &open.request.interrupt_id;
        let Some(given) = open.answer.as_ref().filter(|_| !self.handed_over.contains(id)) else { return Ok(false) };
        // The message has its own way: it is one of the session's.
        let answer = InterruptAnswer { answer: permissions::answer(given.answer), message: None };
        match client.answer_request(id, &answer).await {
            Ok(taken) if taken.interrupt_id == *id => {
                self.handed_over.insert(id.clone());
            }
            Ok(taken) => return Err(format!("the runner took the answer to {} for {id}", taken.interrupt_id)),
            // It never asked that, as far as it knows: whoever did is gone.
            Err(RunnerClientError::Refused { status: 404, .. }) => {
                let (interrupt_id, outcome) = (id.clone(), InterruptOutcome::Lost);
                let lost = Fact::InterruptClosed { interrupt_id, outcome, answer: None };
                report(context, run, open.attempt, lost).await?;
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(true)
    }
}

async fn tell_permissions(
    context: &Context,
    run: &RunRef,
    client: &RunnerClient,
    session: &Session,
) -> Result<bool, String> {
    let changes = session.permission_changes;
    if changes <= session.permissions_in_force {
        return Ok(false);
    }
    match client.set_policy(&permissions::policy(&session.permissions())).await {
        // A runner of an earlier release has no agent that asks.
        Ok(()) | Err(RunnerClientError::Refused { status: 404, .. }) => {}
        Err(error) => return Err(error.to_string()),
    }
    let attempt = session.run().map_or(0, |run| run.attempt);
    report(context, run, attempt, Fact::PermissionsInForce { changes }).await?;
    Ok(true)
}

async fn tell_settings(
    context: &Context,
    run: &RunRef,
    client: &RunnerClient,
    session: &Session,
) -> Result<bool, String> {
    let changes = session.setting_changes;
    if changes <= session.settings_told {
        return Ok(false);
    }
    match client.set_settings(&agent::settings(session)).await {
        // A runner of an earlier release has no agent with settings.
        Ok(()) | Err(RunnerClientError::Refused { status: 404, .. }) => {}
        Err(error) => return Err(error.to_string()),
    }
    let attempt = session.run().map_or(0, |run| run.attempt);
    report(context, run, attempt, Fact::SettingsTold { changes }).await?;
    Ok(true)
}

/// One attempt; the next round is another.
async fn report(context: &Context, run: &RunRef, attempt: i32, fact: Fact) -> Result<(), String> {
    match timeout(REPORT, context.facts.report(&run.session_id, run.run, attempt, fact)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {REPORT:?}")),
    }
}
