//! What is removed from the snapshot store: after the session or project is deleted, and when it has been kept long enough. Nothing waits
//! for the store: what it does not let go now, a later sweep removes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ambient_domain::retention::RetentionRules;
use ambient_persistence::PackOwner;
use ambient_snapshots::SnapshotStore;
use chrono::{DateTime, Utc};

use super::retention;
use crate::services::{Services, StepError};

/// Between two sweeps of a process.
const EVERY: Duration = Duration::from_secs(3600);
/// A base is removed when it was last written so long ago and nobody builds on it. Readers write what is 2 days old again before they
/// build on it.
const BASE_DAYS: i64 = 7;
/// Why packs are removed that nobody has deleted.
const OLD: &str = "they were kept for as long as configured";
/// Sessions asked about at once.
const AT_ONCE: usize = 500;

/// Removes what a deleted session has.
pub(super) async fn forget_session(s: &Services, project: &str, session: &str) {
    let Some(store) = &s.snapshots else { return };
    if let Err(error) = store.remove_session(project, session).await {
        tracing::warn!(session, %error, "snapshots of a deleted session stay; a sweep removes them");
    }
}

/// Removes what a deleted project has.
pub(super) async fn forget_project(s: &Services, project: &str) {
    let Some(store) = &s.snapshots else { return };
    if let Err(error) = store.remove_project(project).await {
        tracing::warn!(project, %error, "snapshots of a deleted project stay; a sweep removes them");
    }
}

/// Removes what is provably over: packs of deleted sessions, packs kept for as long as their project says, bases that nothing builds on.
/// Of one project whenever it is asked for, of all from time to time.
pub(super) async fn sweep(s: &Services, only: Option<&str>) -> Result<(), StepError> {
    let is_due = |store: &&SnapshotStore| only.is_some() || store.sweep_is_due(EVERY);
    let Some(store) = s.snapshots.as_ref().filter(is_due) else { return Ok(()) };
    let contents = match store.contents().await {
        Ok(contents) => contents,
        Err(error) => {
            tracing::warn!(%error, "the snapshot store cannot be swept; the next sweep tries again");
            return Ok(());
        }
    };
    let (mut sessions, mut bases) = contents;
    if let Some(only) = only {
        sessions.retain(|packs| packs.project == only);
        bases.retain(|(project, _, _)| project == only);
    }
    let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // A store may be shared with another database, of which nothing is known here.
    let mut strange = BTreeSet::new();
    for some in sessions.chunks(AT_ONCE) {
        let ids: Vec<String> = some.iter().map(|packs| packs.session.clone()).collect();
        let owners = s.db.pack_owners(&ids).await?;
        for packs in some {
            let owner = owners.iter().find(|owner| owner.id == packs.session && owner.project_id == packs.project);
            if owner.is_none() {
                strange.insert(packs.project.clone());
            }
            match owner.and_then(|owner| why_over(owner, packs.newest, &s.retention.rules)) {
                Some(why) => {
                    if why == OLD {
                        s.db.note_snapshots_removed(&packs.session).await?;
                        retention::count("ambient_retention_snapshots_removed_total", 1);
                    }
                    tracing::info!(session = packs.session, why, bytes = packs.bytes, "removing snapshots");
                    forget_session(s, &packs.project, &packs.session).await;
                }
                None => kept.entry(packs.project.clone()).or_default().push(packs.session.clone()),
            }
        }
    }
    let bases = bases.into_iter().filter(|(project, _, _)| !strange.contains(project)).collect();
    remove_bases(s, store, bases, &kept).await
}

/// Why a session's packs are to be removed. Of a session that is not in this database nothing is known.
fn why_over(owner: &PackOwner, newest: DateTime<Utc>, rules: &RetentionRules) -> Option<&'static str> {
    let keep_days = rules.in_force(owner.retention.unwrap_or_default()).snapshots;
    let is_old = keep_days > 0 && (Utc::now() - newest).num_days() >= i64::from(keep_days);
    match owner {
        PackOwner { is_deleted: true, .. } => Some("the session is deleted"),
        PackOwner { is_active: false, is_kept: false, .. } if is_old => Some(OLD),
        _ => None,
    }
}

async fn remove_bases(
    s: &Services,
    store: &SnapshotStore,
    bases: Vec<(String, String, DateTime<Utc>)>,
    kept: &BTreeMap<String, Vec<String>>,
) -> Result<(), StepError> {
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (project, commit, written) in &bases {
        if (Utc::now() - *written).num_days() < BASE_DAYS {
            continue;
        }
        if !used.contains_key(project.as_str()) {
            let mut commits = BTreeSet::new();
            for some in kept.get(project).into_iter().flat_map(|sessions| sessions.chunks(AT_ONCE)) {
                commits.extend(s.db.pack_bases(some).await?);
            }
            used.insert(project, commits);
        }
        if used.get(project.as_str()).is_some_and(|commits| !commits.contains(commit))
            && let Err(error) = store.remove_base(project, commit).await
        {
            tracing::warn!(project, commit, %error, "a pack that nothing builds on stays; the next sweep tries again");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ambient_domain::retention::{KeptDays, Retention};

    use super::*;

    fn rules(snapshots: u32) -> RetentionRules {
        RetentionRules { defaults: KeptDays { snapshots, ..KeptDays::default() }, min_days: 1, max_days: 0 }
    }

    #[test]
    fn only_what_is_provably_over_is_removed() {
        let (id, project_id) = ("s".to_owned(), "p".to_owned());
        let stopped =
            PackOwner { id, project_id, is_deleted: false, is_active: false, is_kept: false, retention: None };
        let (now, old) = (Utc::now(), Utc::now() - chrono::Duration::days(90));
        let why = |owner: &PackOwner, newest, days| why_over(owner, newest, &rules(days));
        let deleted = PackOwner { is_deleted: true, is_kept: true, ..stopped.clone() };
        assert!(why(&deleted, now, 0).is_some());
        assert_eq!(why(&stopped, old, 90), Some(OLD));
        assert_eq!(why(&stopped, old, 91), None);
        assert_eq!(why(&stopped, old, 0), None);
        assert_eq!(why(&PackOwner { is_active: true, ..stopped.clone() }, old, 90), None);
        assert_eq!(why(&PackOwner { is_kept: true, ..stopped.clone() }, old, 90), None);
        let shorter = Retention { snapshot_days: Some(7), ..Retention::default() };
        assert_eq!(why(&PackOwner { retention: Some(shorter), ..stopped }, old, 365), Some(OLD));
    }
}
