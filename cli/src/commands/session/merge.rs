//! `ambient session pull|sync|merge-status|abandon`.

use ambient_wire::git_merge::{
    GitAbandon, GitAbandoned, GitMergeStatus, GitPull, GitPulled, GitStrategy, GitSynchronize, GitSynchronized,
};
use clap::Args;

use super::git::{of_flag, repository};
use crate::{
    OutputFormat,
    client::route::Route,
    commands::Connection,
    error::CliError,
    exit::Exit,
    output::{escape, fields::Fields},
};

/// How commits of both sides come together.
#[derive(Debug, Clone, Args)]
pub(super) struct Strategy {
    /// If both have commits that the other lacks, make a merge commit
    #[arg(long)]
    merge: bool,
    /// If both have commits that the other lacks, make the workspace's again on top of the origin's
    #[arg(long, conflicts_with = "merge")]
    rebase: bool,
}

impl Strategy {
    fn chosen(&self) -> GitStrategy {
        match (self.merge, self.rebase) {
            (true, _) => GitStrategy::Merge,
            (_, true) => GitStrategy::Rebase,
            _ => GitStrategy::FastForward,
        }
    }
}

/// Flags of `session pull`.
#[derive(Debug, Clone, Args)]
pub struct Pull {
    /// Id or name
    session: String,
    /// Branch of the origin [default: the one that was cloned]
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    #[command(flatten)]
    strategy: Strategy,
    /// Repository; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
}

/// Flags of `session sync`.
#[derive(Debug, Clone, Args)]
pub struct Sync {
    /// Id or name
    session: String,
    /// Branch of the origin; never force-pushed
    #[arg(long, value_name = "BRANCH")]
    branch: String,
    #[command(flatten)]
    strategy: Strategy,
    /// Repository; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
}

/// Flags of `session merge-status`.
#[derive(Debug, Clone, Args)]
pub struct MergeStatus {
    /// Id or name
    session: String,
    /// Branch of the origin [default: the one that was cloned]
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    /// Repository; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
}

/// Flags of `session abandon`.
#[derive(Debug, Clone, Args)]
pub struct Abandon {
    /// Id or name
    session: String,
    /// Repository; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
}

pub(super) async fn pull(arguments: Pull, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let repo = repository(&connection.session(&id).await?, arguments.repo.as_deref())?;
    let body = GitPull { repo, branch: arguments.branch, strategy: arguments.strategy.chosen() };
    let answer = connection.client.post_patiently(&Route::new(["sessions", &id, "git", "pull"]), &body).await?;
    warn(connection, &answer.decode::<GitPulled>()?.notices);
    connection.object(&answer, |p: &GitPulled| &p.commit, |p| format!("{}\n", escape::line(&p.words())))
}

pub(super) async fn synchronize(arguments: Sync, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let repo = repository(&connection.session(&id).await?, arguments.repo.as_deref())?;
    let body = GitSynchronize { repo, branch: arguments.branch, strategy: arguments.strategy.chosen() };
    let route = Route::new(["sessions", &id, "git", "synchronize"]);
    let answer = connection.client.post_most_patiently(&route, &body).await?;
    let done: GitSynchronized = answer.decode()?;
    warn(connection, &done.pulled.iter().flat_map(|pulled| pulled.notices.clone()).collect::<Vec<_>>());
    warn(connection, &done.pushed.remarks().collect::<Vec<_>>());
    connection.object(
        &answer,
        |done: &GitSynchronized| &done.pushed.commit,
        |done| {
            let pulled = done.pulled.iter().map(GitPulled::words);
            pulled.chain([done.pushed.words()]).map(|words| format!("{}\n", escape::line(&words))).collect()
        },
    )
}

pub(super) async fn merge_status(arguments: MergeStatus, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let route = Route::new(["sessions", &id, "git", "merge-status"]).query("repo", arguments.repo);
    let answer = connection.client.get_patiently(&route.query("branch", arguments.branch)).await.map_err(of_flag)?;
    if connection.format == OutputFormat::Name {
        let status: GitMergeStatus = answer.decode()?;
        connection.console.names(status.conflicts.iter().map(String::as_str))?;
        return Ok(Exit::Success);
    }
    connection.object(&answer, |status: &GitMergeStatus| &status.origin, standing)
}

fn standing(status: &GitMergeStatus) -> String {
    let mut fields = Fields::new(11);
    fields.add("Origin", format!("{} {}", status.branch, status.url));
    fields.add("Ahead", status.ahead.to_string());
    fields.add("Behind", status.behind.to_string());
    let only_one = status.ahead == 0 || status.behind == 0;
    let files: Vec<_> = status.conflicts.iter().map(|file| escape::line(file)).collect();
    match files.as_slice() {
        [] if only_one => fields.add("Conflicts", "none: only one side has new commits"),
        [] => fields.add("Conflicts", "none"),
        files => fields.add_text("Conflicts", &files.join("\n")),
    }
    fields.into_text()
}

pub(super) async fn abandon(arguments: Abandon, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let repo = repository(&connection.session(&id).await?, arguments.repo.as_deref())?;
    let route = Route::new(["sessions", &id, "git", "abandon"]);
    let answer = connection.client.post_patiently(&route, &GitAbandon { repo }).await?;
    let left: Vec<_> =
        answer.decode::<GitAbandoned>()?.left_out.iter().map(|left| format!("still there: {}", left.words())).collect();
    warn(connection, &left);
    connection.object(&answer, |done: &GitAbandoned| &done.commit, abandoned)
}

fn abandoned(done: &GitAbandoned) -> String {
    let (commits, files) = (done.commits, done.files);
    let back: String = done.commit.chars().take(7).collect();
    match &done.reference {
        None => format!("nothing to abandon: still at {back}\n"),
        Some(kept) => {
            let kept = escape::line(kept);
            let number = |number, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
            let (commits, files) = (number(commits, "commit"), number(files, "changed file"));
            format!("back at {back}; kept as {kept}: {commits}, {files}\n")
        }
    }
}

fn warn(connection: &Connection, remarks: &[String]) {
    for remark in remarks {
        connection.console.warn(&escape::line(remark));
    }
}
