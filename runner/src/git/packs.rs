//! Snapshots as packs: the agent's git writes what is new since the last stored snapshot, ours checks it in a [`vault`](super::vault),
//! and a server fetches it from there before it records the snapshot.

use std::{path::Path, sync::PoisonError, time::Duration};

use ambient_runner_protocol::PackEnd;
use ambient_wire::runner_event::RepoPack;
use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use tokio_util::io::ReaderStream;

use super::{
    command::Git,
    repos::Repos,
    vault::{self, Stored, Vault},
};
use crate::error::{Error, Result};

/// Timeout for each way of making a pack.
const STEP: Duration = Duration::from_secs(100);
/// Most packs that a snapshot is spread over; the next one builds on the base alone.
const MAX_CHAIN: usize = 16;
/// Most packs that are remembered until a server has stored them.
const MAX_SENT: usize = 256;

/// What a pack is to hold.
enum Way<'a> {
    /// The commits since the base with all their files, without what an earlier snapshot has.
    History(Option<&'a Stored>),
    /// The files alone: for a history that does not build on the base, or is not whole.
    Files,
}

/// Makes the vaults that are missing, so that the end of a turn need not wait for them.
pub(crate) async fn prepare(repos: &Repos) {
    for name in repos.names() {
        let Some(known) = repos.get(&name) else { continue };
        let Some(base) = known.base.as_deref() else { continue };
        let _one = repos.packing.one.lock().await;
        if let Err(error) = Vault::ensure(&repos.attempt, &name, Some(base), base).await {
            tracing::info!(%error, repo = name, "the pack that its snapshots build on cannot be made");
        }
    }
}

/// Packs that together hold a snapshot, of which the last is new.
///
/// # Errors
/// A conflict, if the repository cannot be packed as it is; too large; git's.
pub(super) async fn pack(
    repos: &Repos,
    name: &str,
    workspace: &Path,
    (tree, commit): (&str, &str),
) -> Result<Vec<RepoPack>> {
    let known = repos.get(name).ok_or_else(|| Error::NotFound(format!("no repository '{name}'")))?;
    let base = known.base.as_deref();
    let _one = repos.packing.one.lock().await;
    let vault = Vault::ensure(&repos.attempt, name, base, commit).await?;
    let stored = vault::stored(&repos.attempt, name).filter(|stored| stored.packs.len() < MAX_CHAIN);
    let mut failed = None;
    let ways = [Some(Way::History(stored.as_ref())), stored.as_ref().map(|_| Way::History(None)), Some(Way::Files)];
    for way in ways.into_iter().flatten() {
        let known = match way {
            Way::History(Some(stored)) => stored.packs.clone(),
            _ => vault.base.clone().into_iter().collect(),
        };
        let agents = Git::repository(&repos.attempt, workspace).patience(STEP).input(wanted(&way, commit, tree, base));
        match one(&vault, agents, &way, (tree, commit)).await {
            Ok(pack) => {
                let packs: Vec<_> = known.into_iter().chain([pack]).collect();
                remember(repos, name, commit, &packs);
                return Ok(packs);
            }
            // Another way would not make it smaller.
            Err(error @ Error::TooLarge(_)) => return Err(error),
            // The first reason is the best one.
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::Internal("no way to make a pack".to_owned())))
}

/// What `pack-objects --revs` reads.
fn wanted(way: &Way<'_>, commit: &str, tree: &str, base: Option<&str>) -> String {
    let without = |what: &str| base.map(|base| format!("^{base}{what}\n")).unwrap_or_default();
    // Trees too: of commits that the wanted one does not descend from, git leaves out nothing but themselves.
    match way {
        Way::History(Some(Stored { commit: last, .. })) => {
            format!("{commit}\n{}{}^{last}\n^{last}^{{tree}}\n", without(""), without("^{tree}"))
        }
        Way::History(None) => format!("{commit}\n{}{}", without(""), without("^{tree}")),
        Way::Files => format!("{tree}\n{}", without("^{tree}")),
    }
}

async fn one(vault: &Vault<'_>, agents: Git<'_>, way: &Way<'_>, (tree, commit): (&str, &str)) -> Result<RepoPack> {
    let incoming = vault.incoming().await?;
    let made = async {
        vault.take_in(agents, &incoming, STEP).await?;
        let name = if matches!(way, Way::Files) { tree } else { commit };
        if vault.tree(&incoming, name).await? != tree {
            return Err(Error::Conflict("its pack does not hold the snapshot".to_owned()));
        }
        vault.keep(&incoming).await
    };
    let made = made.await;
    incoming.remove().await;
    made
}

fn remember(repos: &Repos, name: &str, commit: &str, packs: &[RepoPack]) {
    let Some(last) = packs.last() else { return };
    let mut sent = repos.packing.sent.lock().unwrap_or_else(PoisonError::into_inner);
    if sent.len() >= MAX_SENT {
        sent.clear();
    }
    sent.insert(last.id.clone(), (name.to_owned(), Stored { commit: commit.to_owned(), packs: packs.to_vec() }));
}

/// `GET /packs/{id}`: a pack that waits to be stored.
///
/// # Errors
/// Not found.
pub(crate) async fn read(repos: &Repos, id: &str) -> Result<Response> {
    let path = repos.attempt.paths.outgoing_pack(check_id(id)?);
    let missing = |_| Error::NotFound(format!("no pack {id}"));
    let file = tokio::fs::File::open(path).await.map_err(missing)?;
    let length = file.metadata().await.map_err(missing)?.len();
    let headers = [(header::CONTENT_LENGTH, length.to_string())];
    Ok((headers, Body::from_stream(ReaderStream::with_capacity(file, 64 * 1024))).into_response())
}

/// `DELETE /packs/{id}`: a server needs it no longer.
///
/// # Errors
/// Bad input; a system error.
pub(crate) fn settle(repos: &Repos, id: &str, end: PackEnd) -> Result<()> {
    let path = repos.attempt.paths.outgoing_pack(check_id(id)?);
    let sent = repos.packing.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    if let Some((name, stored)) = sent {
        let noted = match end {
            PackEnd::Stored => vault::note_stored(&repos.attempt, &name, Some(&stored)),
            PackEnd::Anew => vault::note_stored(&repos.attempt, &name, None),
            PackEnd::NotStored => Ok(()),
        };
        noted.map_err(|e| Error::io("cannot note the pack", &e))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("cannot remove the pack", &error)),
        _ => Ok(()),
    }
}

fn check_id(id: &str) -> Result<&str> {
    if id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(id);
    }
    Err(Error::bad("id", "must be a SHA-256 in hex"))
}
