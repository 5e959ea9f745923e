//! What a turn has changed in a repository: its commits, and files with their lines.

use ambient_wire::{
    file_name,
    runner_event::{RepoChanges, RepoCommit, RepoFile},
};

use super::{command::GitError, known::Known, working_tree::WorkingTree};

/// Most commits and files that are told.
const MAX_COMMITS: usize = 50;
const MAX_FILES: usize = 200;
/// Longest subject of a commit and name of an author, characters.
const MAX_WORDS: usize = 200;
/// Most bytes of either list that are read.
const MAX_LIST: usize = 512 * 1024;
/// Between the fields of a commit.
const FIELD: char = '\u{1f}';

/// Against the turn before, or where it was cloned at. None if the agent has removed what it would be compared with: that is its own to do,
/// and fails nothing.
pub(super) async fn of_turn(tree: &WorkingTree<'_>, known: &Known, turn: &str, snapshot: &str) -> Option<RepoChanges> {
    let (since, head) = match known.before(turn) {
        Some(before) => (Some(before.commit.clone()), before.head.as_deref()),
        None => (known.base.clone(), known.base.as_deref()),
    };
    let told = async {
        let (commits, more_commits) = commits(tree, head).await?;
        let (files, more_files) = files(tree, since.as_deref(), snapshot).await?;
        Ok::<_, GitError>(RepoChanges { since: since.clone(), commits, more_commits, files, more_files })
    };
    told.await.inspect_err(|error| tracing::debug!(%error, "what a turn has changed cannot be told")).ok()
}

async fn commits(tree: &WorkingTree<'_>, before: Option<&str>) -> Result<(Vec<RepoCommit>, bool), GitError> {
    let Some(head) = tree.head.as_deref() else { return Ok((Vec::new(), false)) };
    let most = format!("--max-count={}", MAX_COMMITS + 1);
    let format = format!("--format=%H{FIELD}%an{FIELD}%s");
    let not = before.map(|before| format!("^{before}"));
    let mut arguments = vec!["rev-list", &most, &format, head];
    arguments.extend(not.as_deref());
    arguments.push("--");
    let (listed, cut) = tree.git().most(MAX_LIST).cut(&arguments).await?;
    let listed = String::from_utf8_lossy(&listed).replace('\0', "\u{fffd}");
    let mut commits: Vec<RepoCommit> = listed.lines().filter_map(commit).collect();
    let more = cut || commits.len() > MAX_COMMITS;
    commits.truncate(MAX_COMMITS);
    Ok((commits, more))
}

/// Each is preceded by a line of git's, which has no fields.
fn commit(line: &str) -> Option<RepoCommit> {
    let (commit, rest) = line.split_once(FIELD)?;
    let (author, subject) = rest.split_once(FIELD)?;
    let short = |words: &str| words.chars().take(MAX_WORDS).collect();
    Some(RepoCommit { commit: commit.to_owned(), author: short(author), subject: short(subject) })
}

async fn files(tree: &WorkingTree<'_>, since: Option<&str>, snapshot: &str) -> Result<(Vec<RepoFile>, bool), GitError> {
    let nothing = match since {
        Some(_) => String::new(),
        None => tree.git().text(&["hash-object", "-t", "tree", "/dev/null"]).await?,
    };
    let since = since.unwrap_or(&nothing);
    let arguments =
        ["diff-tree", "-r", "-z", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv", since, snapshot, "--"];
    let (listed, cut) = tree.git().most(MAX_LIST).cut(&arguments).await?;
    // What follows the last NUL was cut.
    let end = listed.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
    let mut files: Vec<RepoFile> = listed[..end].split(|byte| *byte == 0).filter_map(file).collect();
    let more = cut || files.len() > MAX_FILES;
    files.truncate(MAX_FILES);
    Ok((files, more))
}

/// `added TAB removed TAB path`, with `-` for what is not text.
fn file(entry: &[u8]) -> Option<RepoFile> {
    let mut fields = entry.splitn(3, |byte| *byte == b'\t');
    let mut count = || Some(std::str::from_utf8(fields.next()?).ok()?.parse().ok());
    let (added, removed) = (count()?, count()?);
    Some(RepoFile { path: file_name::escape(fields.next()?), added, removed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_commits_are_read_whatever_their_names_are() {
        let told = file(b"3\t1\ta\tb \xff").unwrap();
        assert_eq!((told.path.as_str(), told.added, told.removed), ("a\tb \\xff", Some(3), Some(1)));
        assert_eq!(file(b"-\t-\tbin").unwrap(), RepoFile { path: "bin".to_owned(), added: None, removed: None });
        assert_eq!(file(b""), None);
        assert_eq!(commit("commit 12"), None);
        let line = format!("12{FIELD}A B{FIELD}Say {FIELD} it");
        let told = commit(&line).unwrap();
        assert_eq!((told.author.as_str(), told.subject), ("A B", format!("Say {FIELD} it")));
    }
}
