//! Commits and branches of a repository in the workspace: its own claims.

use ambient_wire::git_history::{GitBranch, GitBranches, GitLog, GitLogEntry, GitLogQuery, GitSignature, MAX_LOG};
use chrono::{DateTime, Utc};

use super::{
    check_object,
    command::Git,
    look::{STEP, commit_named, in_time, named},
    mirror::Mirror,
    repos::{self, Repos},
};
use crate::{
    error::{Error, Result},
    workspace_path,
};

/// Commits of a page, unless its size is given.
const SIZE: usize = 50;
/// Farthest place in a log that a page may begin at.
const MAX_SKIPPED: usize = 999_999;
/// Most bytes of a message that are told.
const MAX_MESSAGE: usize = 16 * 1024;
/// Most branches of the workspace, and of the origin, that are told.
const MAX_BRANCHES: usize = 1_000;
/// Fields of a commit, each ended by NUL.
const COMMIT: &str = "--format=tformat:%H%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B";
const FIELDS: usize = 9;
/// Fields of a branch, on a line.
const BRANCH: &str = "--format=%(refname:lstrip=2)%00%(objectname)%00%(committerdate:iso-strict)%00%(subject)";

/// `GET /git/log`.
///
/// # Errors
/// Bad input; not found; git's.
pub(crate) async fn log(repos: &Repos, query: GitLogQuery) -> Result<GitLog> {
    let GitLogQuery { repo, reference, path, size, after } = query;
    let repo = named("repo", repo.as_deref())?;
    let size = size.unwrap_or(SIZE);
    if !(1..=MAX_LOG).contains(&size) {
        return Err(Error::bad("size", format!("must be 1 to {MAX_LOG}")));
    }
    let path = path.map(|path| workspace_path::parse_beneath("path", &path)).transpose()?;
    let cursor = after.as_deref().map(cursor).transpose()?;
    let (directory, _) = repos.directory(repo)?;
    let attempt = &*repos.attempt;
    in_time(repo, async {
        let (tip, skipped) = match (cursor, reference) {
            (Some((tip, skipped)), _) => (commit_named(attempt, &directory, "after", &tip).await?, skipped),
            (None, Some(name)) => (commit_named(attempt, &directory, "ref", &name).await?, 0),
            (None, None) => match repos::position(attempt, &directory).await? {
                (_, Some(head)) => (head, 0),
                (_, None) => return Ok(GitLog { repo: repo.to_owned(), items: Vec::new(), next: None }),
            },
        };
        let (most, skip) = (format!("--max-count={}", size + 1), format!("--skip={skipped}"));
        let plain =
            ["log", "-z", "--no-show-signature", "--no-mailmap", "--no-notes", "--no-color", "--encoding=UTF-8"];
        let git = Git::repository(attempt, &directory).patience(STEP).variable("GIT_LITERAL_PATHSPECS", "1");
        let (listed, cut) = git.paths(path).cut(&[&plain[..], &[COMMIT, &most, &skip, &tip, "--"]].concat()).await?;
        let mut items = commits(&listed).ok_or_else(|| Error::Git("git log gave malformed output".to_owned()))?;
        if cut && items.is_empty() {
            return Err(Error::TooLarge(format!("the message of the commit after {skipped} others is too long")));
        }
        let is_more = cut || items.len() > size;
        items.truncate(size);
        let told = skipped + items.len();
        let next = (is_more && told <= MAX_SKIPPED).then(|| format!("{tip}.{told}"));
        Ok(GitLog { repo: repo.to_owned(), items, next })
    })
    .await
}

/// The tip of a log, and how many of its commits have been told.
fn cursor(text: &str) -> Result<(String, usize)> {
    let bad = || Error::bad("after", "is not the next of a page");
    let (tip, skipped) = text.split_once('.').ok_or_else(bad)?;
    let skipped = skipped.parse().ok().filter(|skipped| *skipped <= MAX_SKIPPED).ok_or_else(bad)?;
    Ok((check_object(tip).map_err(|_| bad())?.to_owned(), skipped))
}

/// The whole ones; nothing if one is malformed.
fn commits(listed: &[u8]) -> Option<Vec<GitLogEntry>> {
    let fields: Vec<&[u8]> = listed.split(|byte| *byte == 0).collect();
    // The last field is what follows the last NUL.
    fields[..fields.len() - 1].chunks_exact(FIELDS).map(commit).collect()
}

fn commit(fields: &[&[u8]]) -> Option<GitLogEntry> {
    let text = |i: usize| String::from_utf8_lossy(fields[i]).into_owned();
    let (commit, parents) = (text(0), text(1));
    let parents: Vec<String> = parents.split_whitespace().map(str::to_owned).collect();
    if parents.iter().chain([&commit]).any(|name| check_object(name).is_err()) {
        return None;
    }
    let signature = |i: usize| GitSignature { name: text(i), email: text(i + 1), at: time(&text(i + 2)) };
    let mut message = text(8).trim_end().to_owned();
    let message_truncated = message.len() > MAX_MESSAGE;
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    Some(GitLogEntry { commit, parents, author: signature(2), committer: signature(5), message, message_truncated })
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// `GET /git/list-branches`.
///
/// # Errors
/// Not found; git's.
pub(crate) async fn branches(repos: &Repos, repo: &str) -> Result<GitBranches> {
    let (directory, _) = repos.directory(repo)?;
    let attempt = &*repos.attempt;
    in_time(repo, async {
        let (branch, _) = repos::position(attempt, &directory).await?;
        let local = list(Git::repository(attempt, &directory).patience(STEP)).await?;
        // Sessions of earlier versions have no mirror.
        let origin = match Mirror::open(attempt, repo) {
            Ok(mirror) => list(mirror.git(false, Vec::new()).patience(STEP)).await?,
            Err(_) => Vec::new(),
        };
        let truncated = local.len() > MAX_BRANCHES || origin.len() > MAX_BRANCHES;
        let most = |mut branches: Vec<GitBranch>| {
            branches.truncate(MAX_BRANCHES);
            branches
        };
        Ok(GitBranches { repo: repo.to_owned(), branch, local: most(local), origin: most(origin), truncated })
    })
    .await
}

/// Newest first, one more than are told.
async fn list(git: Git<'_>) -> Result<Vec<GitBranch>> {
    let most = format!("--count={}", MAX_BRANCHES + 1);
    let listed = git.run(&["for-each-ref", "--sort=-committerdate", &most, BRANCH, "refs/heads"]).await?;
    let branches = String::from_utf8_lossy(&listed).lines().map(branch).collect::<Option<_>>();
    branches.ok_or_else(|| Error::Git("git for-each-ref gave malformed output".to_owned()))
}

fn branch(line: &str) -> Option<GitBranch> {
    let mut fields = line.splitn(4, '\0').map(str::to_owned);
    let (name, commit) = (fields.next()?, fields.next()?);
    check_object(&commit).ok()?;
    let (committed_at, subject) = (time(&fields.next()?), fields.next()?);
    Some(GitBranch { name, commit, committed_at, subject: subject.chars().take(200).collect() })
}

#[cfg(test)]
mod tests {
    use super::{COMMIT, FIELDS, commits};

    #[test]
    fn only_whole_commits_are_told() {
        assert_eq!(COMMIT.matches('%').count() - COMMIT.matches("%x00").count(), FIELDS);
        let id = "0".repeat(40);
        let one = format!("{id}\0{id} {id}\0A\0a@b\x002026-01-02T03:04:05+01:00\0B\0b@c\0no time\0Subject\n\nbody\n\0");
        let told = commits(one.as_bytes()).unwrap();
        assert_eq!((told[0].parents.len(), told[0].message.as_str()), (2, "Subject\n\nbody"));
        assert_eq!(
            (told[0].author.at.unwrap().to_rfc3339().as_str(), told[0].committer.at),
            ("2026-01-02T02:04:05+00:00", None)
        );
        assert_eq!(commits(&[one.as_bytes(), &one.as_bytes()[..60]].concat()).unwrap().len(), 1);
        assert_eq!(commits(b"").unwrap().len(), 0);
        assert_eq!(commits(one.replace(&id, "x").as_bytes()), None);
    }
}
