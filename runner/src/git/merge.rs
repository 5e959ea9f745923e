//! Two commits brought together in a temporary repository of ours, with the agent's rights. It ignores the agent's configuration, so that no
//! merge driver runs, and neither the working tree nor the agent's repository is touched: what comes out can still be thrown away.

use std::collections::BTreeSet;

use ambient_wire::file_name::escape;

use super::{
    check_object,
    command::{Git, GitError, quoted},
    mirror::Mirror,
    working_tree::WorkingTree,
};
use crate::error::{Error, Result};

/// Most commits that are made again.
const MAX_REBASED: usize = 100;
/// Most files that a refusal names.
const MAX_NAMED: usize = 20;

/// What a merge comes to.
pub(super) enum Merged {
    /// A tree.
    Clean(String),
    /// Files that need a person.
    Conflicts(BTreeSet<Vec<u8>>),
}

/// Where commits are brought together.
pub(super) struct Bench<'a> {
    tree: WorkingTree<'a>,
    /// Objects of the origin, whatever the agent's repository borrows by now.
    origin: &'a Mirror<'a>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(tree: WorkingTree<'a>, origin: &'a Mirror<'a>) -> Self {
        Self { tree, origin }
    }

    fn git(&self) -> Git<'a> {
        self.tree.git_with(self.origin.path())
    }

    /// How many commits theirs lacks of ours, and ours of theirs.
    ///
    /// # Errors
    /// Git's.
    pub(super) async fn apart(&self, ours: Option<&str>, theirs: &str) -> Result<(u64, u64)> {
        let Some(ours) = ours else { return Ok((0, self.count(&[theirs, "--"]).await?)) };
        let (ahead, behind) = ([ours, "--not", theirs, "--"], [theirs, "--not", ours, "--"]);
        Ok((self.count(&ahead).await?, self.count(&behind).await?))
    }

    async fn count(&self, range: &[&str]) -> Result<u64> {
        let counted = self.git().text(&[&["rev-list", "--count"], range].concat()).await?;
        counted.parse().map_err(|_| Error::Git(format!("git rev-list gave '{counted}' for a number of commits")))
    }

    /// What a merge of two commits comes to.
    ///
    /// # Errors
    /// A conflict if they have no commit in common; git's.
    pub(super) async fn merge(&self, ours: &str, theirs: &str) -> Result<Merged> {
        let arguments = ["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs];
        match self.git().run(&arguments).await {
            Ok(tree) => {
                let tree = String::from_utf8_lossy(&tree);
                let tree = tree.trim_end_matches(['\0', '\n']);
                Ok(Merged::Clean(check_object(tree)?.to_owned()))
            }
            Err(GitError::Failed { code: 1, stdout, .. }) => {
                // The tree, then the names.
                let names = stdout.split(|byte| *byte == 0).skip(1).filter(|name| !name.is_empty());
                Ok(Merged::Conflicts(names.map(<[u8]>::to_vec).collect()))
            }
            Err(GitError::Failed { stderr, .. }) if stderr.contains("unrelated histories") => {
                Err(Error::Conflict("the workspace and the branch have no commit in common".to_owned()))
            }
            Err(GitError::Failed { stderr, .. }) => {
                Err(Error::Conflict(format!("the commits cannot be merged: {}", quoted(&stderr))))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A merge commit.
    ///
    /// # Errors
    /// A conflict that names files; git's.
    pub(super) async fn merge_commit(&self, ours: &str, theirs: &str, message: &str) -> Result<String> {
        let tree = clean(self.merge(ours, theirs).await?, "the merge")?;
        self.commit(self.git(), &tree, &[ours, theirs], message).await
    }

    /// The commits that `theirs` lacks of `ours`, made again on top of it: the newest.
    ///
    /// # Errors
    /// A conflict that names the commit and files, or for merges and too many commits; git's.
    pub(super) async fn rebase(&self, ours: &str, theirs: &str) -> Result<String> {
        let list = ["rev-list", "--reverse", "--topo-order", "--parents", ours, "--not", theirs, "--"];
        let listed = self.git().text(&list).await?;
        let commits: Vec<Vec<&str>> = listed.lines().map(|line| line.split(' ').collect()).collect();
        if commits.len() > MAX_REBASED {
            return Err(Error::Conflict(format!("more than {MAX_REBASED} commits would have to be made again: merge")));
        }
        let mut onto = theirs.to_owned();
        for commit in commits {
            onto = match commit.as_slice() {
                [commit, parent] if *parent == onto => (*commit).to_owned(),
                [commit, parent] => self.pick(commit, Some(parent), &onto).await?,
                [commit] => self.pick(commit, None, &onto).await?,
                _ => {
                    return Err(Error::Conflict(
                        "there are merges among the commits to be made again: merge".to_owned(),
                    ));
                }
            };
        }
        Ok(onto)
    }

    /// A commit made again on top of another one; that one itself if it has all of its changes.
    async fn pick(&self, commit: &str, parent: Option<&str>, onto: &str) -> Result<String> {
        let tree = async |of: &str| self.git().text(&["rev-parse", "--verify", &format!("{of}^{{tree}}")]).await;
        let before = match parent {
            Some(parent) => tree(parent).await?,
            None => self.git().text(&["hash-object", "-t", "tree", "-w", "/dev/null"]).await?,
        };
        // Git 2.39 has no option for the base of a merge, so it gets a history in which it is the base.
        let base = self.commit(self.git(), &before, &[], "base").await?;
        let (ours, theirs) = (tree(onto).await?, tree(commit).await?);
        let here = self.commit(self.git(), &ours, &[&base], "ours").await?;
        let there = self.commit(self.git(), &theirs, &[&base], "theirs").await?;
        let short: String = commit.chars().take(7).collect();
        let merged = clean(self.merge(&here, &there).await?, &format!("commit {short}"))?;
        if merged == ours {
            return Ok(onto.to_owned());
        }
        let told = ["show", "--no-patch", "--no-show-signature", "--no-notes", "--encoding=UTF-8", "--date=raw"];
        let about = self.git().text(&[&told[..], &["--format=%an%x00%ae%x00%ad%x00%B", commit]].concat()).await?;
        let mut about = about.splitn(4, '\0');
        let (name, email) = (about.next().unwrap_or_default(), about.next().unwrap_or_default());
        let (date, message) = (about.next().unwrap_or_default(), about.next().unwrap_or_default());
        let git = self.git().variable("GIT_AUTHOR_NAME", name).variable("GIT_AUTHOR_EMAIL", email);
        let git = git.variable("GIT_AUTHOR_DATE", format!("@{date}"));
        self.commit(git, &merged, &[onto], message).await
    }

    async fn commit(&self, git: Git<'_>, tree: &str, parents: &[&str], message: &str) -> Result<String> {
        let parents = parents.iter().flat_map(|parent| ["-p", parent]);
        let arguments: Vec<&str> = ["commit-tree", "--no-gpg-sign", tree].into_iter().chain(parents).collect();
        let commit = git.input(message).text(&arguments).await?;
        Ok(check_object(&commit)?.to_owned())
    }

    /// Puts a commit that was made here, and what it needs, into the agent's repository.
    ///
    /// # Errors
    /// Git's.
    pub(super) async fn keep(&self, commit: &str, ours: &str, theirs: &str) -> Result<()> {
        let revisions = format!("{commit}\n^{ours}\n^{theirs}\n");
        let pack = ["pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset"];
        Ok(self.git().input(revisions).pipe(&pack, self.tree.agents(), &["unpack-objects", "-q"]).await?)
    }
}

/// The tree.
fn clean(merged: Merged, what: &str) -> Result<String> {
    let files = match merged {
        Merged::Clean(tree) => return Ok(tree),
        Merged::Conflicts(files) => files,
    };
    let more = files.len().saturating_sub(MAX_NAMED);
    let named: Vec<_> = files.iter().take(MAX_NAMED).map(|file| escape(file)).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let reason = format!("{what} has conflicts, and nothing was changed: {}{more}", named.join(", "));
    Err(Error::Conflict(reason))
}
