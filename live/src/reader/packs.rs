//! Packs of snapshots: stored before the event that names them is, so that an event that says so implies a stored pack. A store that
//! cannot be used delays a log by a bounded time; then the event says that its snapshot is not stored, and why.

use std::{fs::File, os::fd::OwnedFd, path::Path, time::Duration};

use ambient_persistence::RunnerRecord;
use ambient_snapshots::{Incoming, Key, SnapshotStore, StoreError, is_commit, is_pack};
use ambient_wire::runner_event::RepoPack;
use chrono::Utc;
use futures::StreamExt;
use rustix::{
    fs::{AtFlags, Mode, OFlags, openat},
    io::Errno,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, time::timeout};

use super::{Context, RunRef};
use crate::runner_client::{PackEnd, RunnerClient, RunnerClientError};

const SNAPSHOT: &str = "repo.snapshot";
/// Timeout for the packs of one snapshot.
const PATIENCE: Duration = Duration::from_secs(60);
/// A base that was written longer ago is written again: the sweep removes only what nobody uses and is much older.
const FRESH_DAYS: i64 = 2;
/// Most packs that a snapshot needs: a base, and a chain of at most 16.
const MOST_PACKS: usize = 17;
/// Longest reason, characters.
const MAX_REASON: usize = 500;
const PIECE: usize = 256 * 1024;

/// Where packs come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// A runner that is alive.
    Runner(&'a RunnerClient),
    /// What one that is gone has left on this host.
    Folder(&'a Path),
}

/// A pack that the runner need not keep any longer.
pub(super) struct Settled {
    id: String,
    end: PackEnd,
}

/// Why a snapshot is not stored.
#[derive(Debug, thiserror::Error)]
enum NotStored {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("its pack cannot be had from the runner: {0}")]
    Runner(#[from] RunnerClientError),
    #[error("its pack cannot be had: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("an earlier pack that it builds on is no longer in the store")]
    Gone,
}

/// Stores the packs that the records name; where that fails, the record says so from then on.
pub(super) async fn keep(
    context: &Context,
    run: &RunRef,
    source: Source<'_>,
    records: &mut [RunnerRecord],
) -> Vec<Settled> {
    let mut settled = Vec::new();
    for record in records.iter_mut().filter(|record| record.event_type == SNAPSHOT) {
        let packs = Vec::<RepoPack>::deserialize(&record.data["packs"]).unwrap_or_default();
        if packs.is_empty() {
            continue;
        }
        let stored = match &context.options.snapshots {
            Some(store) => {
                let storing = Storing { store, run, source };
                timeout(PATIENCE, storing.all(&packs)).await.unwrap_or_else(|_| Err(late()))
            }
            None => Err(NotStored::Refused("snapshots are not stored here".to_owned())),
        };
        // The base is kept for the snapshots to come.
        let ids = packs.iter().filter(|pack| pack.base.is_none() && is_pack(&pack.id)).map(|pack| pack.id.clone());
        let end = match &stored {
            Ok(()) => PackEnd::Stored,
            Err(NotStored::Gone) => PackEnd::Anew,
            Err(_) => PackEnd::NotStored,
        };
        settled.extend(ids.map(|id| Settled { id, end }));
        if let Err(error) = stored {
            tracing::warn!(session = run.session_id, %error, "a snapshot is not stored");
            metrics::counter!("ambient_snapshots_not_stored_total").increment(1);
            let reason: String = error.to_string().chars().take(MAX_REASON).collect();
            if let Value::Object(data) = &mut record.data {
                data.insert("packs".to_owned(), json!([]));
                data.insert("not_stored".to_owned(), reason.into());
            }
        } else {
            metrics::counter!("ambient_snapshots_stored_total").increment(1);
        }
    }
    settled
}

fn late() -> NotStored {
    NotStored::Refused(format!("it took longer than {} s to store", PATIENCE.as_secs()))
}

/// After the records are stored: the runner may remove the packs. One that is not told keeps them a little longer.
pub(super) async fn settle(source: Source<'_>, settled: Vec<Settled>) {
    for Settled { id, end } in settled {
        let told = match source {
            Source::Runner(client) => client.settle_pack(&id, end).await.map_err(|error| error.to_string()),
            Source::Folder(folder) => match remove(folder, &id) {
                Err(error) if error != Errno::NOENT => Err(error.to_string()),
                _ => Ok(()),
            },
        };
        if let Err(reason) = told {
            tracing::debug!(reason, "a pack that is settled stays with its runner");
        }
    }
}

fn file(id: &str) -> String {
    format!("{id}.pack")
}

/// The session's users own the folder, and may have put a link in its place.
fn opened(folder: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn remove(folder: &Path, id: &str) -> rustix::io::Result<()> {
    rustix::fs::unlinkat(opened(folder)?, file(id), AtFlags::empty())
}

struct Storing<'a> {
    store: &'a SnapshotStore,
    run: &'a RunRef,
    source: Source<'a>,
}

impl Storing<'_> {
    /// The base if it is missing, and the last one; those between are there, unless they were removed since.
    async fn all(&self, packs: &[RepoPack]) -> Result<(), NotStored> {
        let odd = |pack: &RepoPack| !is_pack(&pack.id) || pack.base.as_deref().is_some_and(|base| !is_commit(base));
        if packs.iter().any(odd) {
            return Err(NotStored::Refused("the runner gave an odd name for its pack".to_owned()));
        }
        if packs.len() > MOST_PACKS || packs.iter().filter(|pack| pack.base.is_some()).count() > 1 {
            return Err(NotStored::Refused("the runner gave more packs than a snapshot needs".to_owned()));
        }
        let limits = self.store.limits();
        if let Some(large) = packs.iter().find(|pack| pack.bytes > limits.pack) {
            let (bytes, most) = (large.bytes, limits.pack);
            let reason = format!("its pack has {bytes} bytes; at most {most} are stored (snapshot_pack_limit)");
            return Err(NotStored::Refused(reason));
        }
        let RunRef { project_id: project, session_id: session, .. } = self.run;
        for (index, pack) in packs.iter().enumerate() {
            let key = match &pack.base {
                Some(commit) => Key::Base { project, commit },
                None => Key::Turn { project, session, pack: &pack.id },
            };
            let is_last = index + 1 == packs.len();
            let written = if is_last && pack.base.is_none() { None } else { self.store.written(key).await? };
            let is_there = match &pack.base {
                Some(_) => written.is_some_and(|written| (Utc::now() - written).num_days() < FRESH_DAYS),
                None => written.is_some(),
            };
            if is_there {
                continue;
            }
            if pack.base.is_none() && !is_last {
                return Err(NotStored::Gone);
            }
            if pack.base.is_none() {
                self.check_room(pack).await?;
            }
            let incoming = self.fetch(pack).await?;
            self.store.put(key, incoming).await?;
        }
        Ok(())
    }

    async fn check_room(&self, pack: &RepoPack) -> Result<(), NotStored> {
        let most = self.store.limits().session;
        let there = self.store.session_bytes(&self.run.project_id, &self.run.session_id).await?;
        if there.saturating_add(pack.bytes) > most {
            let reason = format!("the session has stored {there} bytes of at most {most} (snapshot_session_limit)");
            return Err(NotStored::Refused(reason));
        }
        Ok(())
    }

    /// The pack, if it is what it was announced as.
    async fn fetch(&self, pack: &RepoPack) -> Result<Incoming, NotStored> {
        let mut incoming = self.store.incoming()?;
        let too_long = || NotStored::Refused("the runner gave more of its pack than it has".to_owned());
        match self.source {
            Source::Runner(client) => {
                let mut content = client.pack(&pack.id).await?.body;
                while let Some(piece) = content.next().await {
                    incoming.write(&piece?).await?;
                    if incoming.bytes() > pack.bytes {
                        return Err(too_long());
                    }
                }
            }
            Source::Folder(folder) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let found = opened(folder).and_then(|folder| openat(folder, file(&pack.id), flags, Mode::empty()));
                let found = File::from(found.map_err(std::io::Error::from)?);
                let mut file = tokio::fs::File::from_std(found).take(pack.bytes + 1);
                let mut buffer = vec![0; PIECE];
                loop {
                    let read = file.read(&mut buffer).await?;
                    if read == 0 {
                        break;
                    }
                    incoming.write(&buffer[..read]).await?;
                }
            }
        }
        if incoming.bytes() != pack.bytes || incoming.sha256() != pack.id {
            return Err(NotStored::Refused("the runner's pack is not what it was said to be".to_owned()));
        }
        Ok(incoming)
    }
}
