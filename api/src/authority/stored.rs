//! Snapshots of turns, from the store: no workspace is needed, and no session is woken.

use ambient_domain::session::Session;
use ambient_persistence::TurnRow;
use ambient_runner_protocol::StoredLook;
use ambient_snapshots::{Found, ReadError, StoreError, Stored};
use ambient_wire::turn::{TurnDiffFrom, TurnDiffQuery, TurnFileQuery};

use super::{access::Authorized, retention::on, right::Right};
use crate::{
    error::{ApiError, ApiResult, Number},
    stored::{self, StoredSnapshot},
    turns,
};

/// Longest diff, and largest file, bytes.
const MAX_DIFF: u64 = 24 << 20;
const MAX_FILE: u64 = 64 << 20;

impl<R: Right> Authorized<Session, R> {
    /// What a turn has changed in a repository, or all turns up to it.
    pub(crate) async fn turn_diff(&self, id: &str, query: TurnDiffQuery) -> ApiResult<Found> {
        let (row, repo, snapshot) = self.stored_snapshot(id, query.repo).await?;
        let (to, mut bases, mut packs) = snapshot.packs(&format!("turn {id}"))?;
        let before = match query.from.unwrap_or_default() {
            TurnDiffFrom::Previous => self.before(&row, &repo, &snapshot).await?,
            TurnDiffFrom::Base => None,
        };
        let from = match before {
            Some(before) => {
                let (tree, more_bases, more) = before.packs("the turn before it (from=base works without)")?;
                bases.extend(more_bases);
                packs.extend(more);
                Some(tree)
            }
            None => snapshot.base.clone(),
        };
        let look = StoredLook::Diff { from, to, path: query.path.unwrap_or_default() };
        self.look(bases, packs, look, MAX_DIFF).await
    }

    /// A file as a turn has left it.
    pub(crate) async fn turn_file(&self, id: &str, query: TurnFileQuery) -> ApiResult<Found> {
        let (_, _, snapshot) = self.stored_snapshot(id, query.repo).await?;
        let (tree, bases, packs) = snapshot.packs(&format!("turn {id}"))?;
        self.look(bases, packs, StoredLook::File { tree, path: query.path }, MAX_FILE).await
    }

    async fn stored_snapshot(&self, id: &str, repo: Option<String>) -> ApiResult<(TurnRow, String, StoredSnapshot)> {
        let row = match turns::parse(id) {
            Some((run, number)) => self.access.state.parts().database.turn(&self.target.id, run, number).await?,
            None => None,
        };
        let row = row.ok_or_else(|| ApiError::not_found("Turn", id))?;
        let repo = stored::repo(&row.repos, repo)?;
        let snapshot = stored::snapshot(&row.repos, &repo);
        let none = || ApiError::new(Number::NotFound, format!("turn {id} has no snapshot of a repository '{repo}'"));
        let snapshot = snapshot.ok_or_else(none)?;
        Ok((row, repo, snapshot))
    }

    /// The snapshot before; none for the first turn, or if the repository was cloned again since.
    async fn before(&self, row: &TurnRow, repo: &str, now: &StoredSnapshot) -> ApiResult<Option<StoredSnapshot>> {
        let database = &self.access.state.parts().database;
        let told = database.turn_before(&self.target.id, (row.run, row.number), repo).await?;
        let before = told.and_then(|told| stored::snapshot(&told, repo));
        Ok(before.filter(|before| before.base == now.base))
    }

    async fn look(
        &self,
        mut bases: Vec<String>,
        mut packs: Vec<String>,
        look: StoredLook,
        most: u64,
    ) -> ApiResult<Found> {
        let Some(reader) = &self.access.state.parts().snapshots else {
            return Err(ApiError::new(
                Number::Conflict,
                "this server has no snapshot store (snapshot_store = \"none\")",
            ));
        };
        for names in [&mut bases, &mut packs] {
            names.sort_unstable();
            names.dedup();
        }
        let (project, session) = (self.target.project_id.as_str(), self.target.id.as_str());
        match reader.look(&Stored { project, session, bases, packs }, look, most).await {
            Err(gone @ ReadError::Store(StoreError::NotFound)) => {
                let removed = self.removed().await?.and_then(|removed| removed.snapshots_removed_at);
                Err(removed.map_or_else(
                    || gone.into(),
                    |at| {
                        ApiError::new(Number::Conflict, format!("the snapshots of the Session's turns were {}", on(at)))
                    },
                ))
            }
            found => Ok(found?),
        }
    }
}
