//! Answers to interrupts.

use ambient_domain::session::Session;
use ambient_wire::{BASE, permission::InterruptAnswer};
use axum::http::Method;

use crate::{
    authority::{Authorized, Edit},
    error::{ApiError, ApiResult, Number},
    extract::{Conditions, Fingerprint, WriteOptions},
};

/// Gives answers, except where somebody else has; returns the seq of the first request.
pub(crate) async fn give(
    session: &Authorized<Session, Edit>,
    answers: Vec<(String, InterruptAnswer)>,
) -> ApiResult<i64> {
    let mut first = i64::MAX;
    let mut open = Vec::new();
    for (n, (id, answer)) in answers.into_iter().enumerate() {
        let Some((requested, closed)) = session.interrupt_seqs(&id).await? else {
            // It may be one of those that are no longer kept; none of these is open.
            if let Some(gone) = session.gone().await? {
                return Err(gone);
            }
            return Err(ApiError::invalid(format!("resume[{n}].interruptId"), "is no interrupt of this session"));
        };
        first = first.min(requested);
        if closed.is_none() {
            open.push((id, answer));
        }
    }
    for (id, answer) in open {
        deliver(session, &id, answer).await?;
    }
    Ok(first)
}

/// A request that somebody has answered meanwhile, or that is closed, needs no other answer.
async fn deliver(session: &Authorized<Session, Edit>, id: &str, answer: InterruptAnswer) -> ApiResult<()> {
    let path = format!("{BASE}/sessions/{}/agui", session.get().id);
    let body = serde_json::to_vec(&(id, &answer)).map_err(|error| ApiError::internal(&error))?;
    let fingerprint = Fingerprint::of(&Method::POST, &path, None, &body);
    let conditions = Conditions { if_match: None, idempotency_key: None };
    let options = WriteOptions { conditions: &conditions, fingerprint: &fingerprint };
    match session.answer(id, answer, options).await {
        Err(error) if [Number::Conflict, Number::NotFound].contains(&error.number()) => Ok(()),
        other => other.map(drop),
    }
}
