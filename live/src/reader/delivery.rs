//! Messages to the runner, in order; and beside them answers and permissions.

use std::time::Duration;

use ambient_persistence::StoredEvent;
use ambient_persistence::retry::Backoff;
use ambient_runner_protocol::DeliverMessage;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use super::{Context, RunRef, answers::Answers, budget::Told};
use crate::runner_client::RunnerClient;

/// Minimum time between two looks: several facts and commands come together.
const LEAST_INTERVAL: Duration = Duration::from_millis(5);

/// Delivers what there is, then again whenever `wake` says so, forever.
pub(super) async fn deliver(context: &Context, run: &RunRef, client: &RunnerClient, wake: &Notify, budget: &Told) {
    let mut backoff = Backoff::new(Duration::from_millis(50), context.options.longest_pause);
    let mut answers = Answers::default();
    loop {
        let looked = Instant::now();
        // In this order, so that permissions are told before a message that was sent after they had changed. One does not keep the other
        // from being told.
        let messages = context.db.deliverable_messages(&run.session_id, run.run).await;
        let told = answers.tell(context, run, client).await;
        let delivered = match messages {
            Ok(messages) => deliver_all(context, run, client, (messages, budget)).await,
            Err(error) => Err(error.to_string()),
        };
        match delivered.and_then(|any| Ok(told? || any)) {
            Ok(true) => backoff.reset(),
            Ok(false) => {
                backoff.reset();
                wake.notified().await;
                tokio::time::sleep_until(looked + LEAST_INTERVAL).await;
            }
            Err(reason) => {
                metrics::counter!("ambient_message_delivery_retries_total").increment(1);
                tracing::warn!(session = run.session_id, reason, "the runner cannot be told everything; trying again");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// The next few messages, which are looked up again each time, as the phase may have changed; returns whether there were any.
async fn deliver_all(
    context: &Context,
    run: &RunRef,
    client: &RunnerClient,
    (messages, budget): (Vec<StoredEvent>, &Told),
) -> Result<bool, String> {
    let any = !messages.is_empty();
    // Whoever has raised a limit and sends a message then finds it raised. A message does not wait for it.
    if any && let Err(reason) = budget.tell(context, run, client).await {
        tracing::warn!(session = run.session_id, reason, "the runner cannot be told its budget before a message");
    }
    for message in messages {
        let (seq, message) = (message.seq, to_deliver(message)?);
        let accepted = client.deliver(&message).await.map_err(|e| e.to_string())?;
        if accepted.id != message.id {
            return Err(format!("the runner accepted {} for {}", accepted.id, message.id));
        }
        // Moves only once the runner has it in its log; until then the message is delivered again.
        context.db.mark_delivered(&run.session_id, seq).await.map_err(|e| e.to_string())?;
    }
    Ok(any)
}

fn to_deliver(message: StoredEvent) -> Result<DeliverMessage, String> {
    let seq = message.seq;
    let id = message.message_id.ok_or_else(|| format!("message at {seq} has no id"))?;
    let text = message.data["text"].as_str().ok_or_else(|| format!("message {id} has no text"))?.to_owned();
    let attachments = match &message.data["attachments"] {
        Value::Null => Vec::new(),
        given => Vec::deserialize(given).map_err(|error| format!("attachments of message {id}: {error}"))?,
    };
    Ok(DeliverMessage { id, seq, text, attachments })
}
