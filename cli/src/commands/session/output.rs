//! Where a session's commits go, from flags; and what has become of them, in words.

use ambient_wire::repo::{PushTo, RepoOutcome, RepoOutput, RepoOutputStatus};
use clap::Args;

/// Flags for where a repository's commits go.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputFlags {
    /// Push the commits to this branch (never forced) at the end of every successful turn
    #[arg(long = "push", value_name = "BRANCH")]
    pub(crate) push_branch: Option<String>,
    /// Push the commits at the end of every successful turn, to branch ambient/{session id} if --push names none
    #[arg(long)]
    pub(crate) auto_push: bool,
    /// Push to this existing fork, an https:// or file:// URL, and not to the origin, by hand too
    #[arg(long, value_name = "URL")]
    pub(crate) fork: Option<String>,
    /// Never push, by hand neither
    #[arg(long, conflicts_with_all = ["push_branch", "auto_push", "fork"])]
    pub(crate) no_push: bool,
}

impl OutputFlags {
    /// The output, and whether it is pushed automatically.
    pub(crate) fn output(&self) -> (RepoOutput, bool) {
        let push_to = match &self.fork {
            _ if self.no_push => PushTo::None,
            Some(_) => PushTo::Fork,
            None => PushTo::Same,
        };
        let output = RepoOutput { push_to, target_repo: self.fork.clone(), target_branch: self.push_branch.clone() };
        (output, self.auto_push || self.push_branch.is_some())
    }
}

/// What has become of a repository, on one line without its name.
pub(crate) fn in_words(status: &RepoOutputStatus) -> String {
    let RepoOutputStatus { url, branch, commit, message, .. } = status;
    let branch = branch.as_deref().unwrap_or("no branch");
    let commit: String = commit.as_deref().unwrap_or_default().chars().take(12).collect();
    let of = url.as_ref().map(|url| format!(" of {url}")).unwrap_or_default();
    match status.status {
        RepoOutcome::Pushed => format!("pushed {commit} to {branch}{of}"),
        RepoOutcome::Failed => {
            format!("not pushed to {branch}{of}: {}", message.as_deref().unwrap_or("the push failed"))
        }
        RepoOutcome::Abandoned if commit.is_empty() => "abandoned: there was nothing to give up".to_owned(),
        RepoOutcome::Abandoned => format!("abandoned, kept as {commit}"),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn flags_say_where_commits_go_and_when() {
        let flags = OutputFlags { push_branch: Some("out".to_owned()), ..OutputFlags::default() };
        assert_eq!(flags.output(), (RepoOutput::same("out".to_owned()), true));
        let flags = OutputFlags { fork: Some("https://h/f/r".to_owned()), auto_push: true, ..OutputFlags::default() };
        let (output, auto_push) = flags.output();
        assert_eq!((output.push_to, output.target_branch, auto_push), (PushTo::Fork, None, true));
        let flags = OutputFlags { no_push: true, ..OutputFlags::default() };
        assert_eq!((flags.output().0.push_to, flags.output().1), (PushTo::None, false));
    }

    #[test]
    fn an_outcome_is_said_in_a_line() {
        let status = |status, commit: Option<&str>| RepoOutputStatus {
            repo: "r".to_owned(),
            status,
            url: Some("file:///r".to_owned()),
            branch: Some("out".to_owned()),
            commit: commit.map(str::to_owned),
            message: Some("refused".to_owned()),
            at: DateTime::UNIX_EPOCH,
        };
        let said = |outcome, commit| in_words(&status(outcome, commit));
        assert_eq!(said(RepoOutcome::Pushed, Some("0123456789abcdef")), "pushed 0123456789ab to out of file:///r");
        assert_eq!(said(RepoOutcome::Failed, None), "not pushed to out of file:///r: refused");
        assert_eq!(said(RepoOutcome::Abandoned, Some("ab")), "abandoned, kept as ab");
        assert_eq!(said(RepoOutcome::Abandoned, None), "abandoned: there was nothing to give up");
    }
}
