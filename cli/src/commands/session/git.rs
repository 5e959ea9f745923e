//! `ambient session diff|push`.

use ambient_wire::{
    git::{GitPush, GitPushed, LeftOut, diff_header},
    session::Session,
};
use clap::Args;
use percent_encoding::percent_decode;
use reqwest::header::HeaderMap;

use crate::{
    OutputFormat,
    client::route::Route,
    commands::Connection,
    error::CliError,
    exit::Exit,
    output::{Console, Style, escape},
};

/// Flags of `session diff`.
#[derive(Debug, Clone, Args)]
pub struct Diff {
    /// Id or name
    session: String,
    /// File or folder, relative to the repository [default: all of it]
    path: Option<String>,
    /// Repository; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
    /// Commit to compare with [default: the one that was cloned]
    #[arg(long, value_name = "COMMIT", conflicts_with_all = ["staged", "unstaged"])]
    base: Option<String>,
    /// Only what the agent's git add has taken
    #[arg(long, conflicts_with = "unstaged")]
    staged: bool,
    /// Only what the agent's git add has not taken
    #[arg(long)]
    unstaged: bool,
    /// What this turn has changed, such as 1-2: the second of run 1; works when the workspace is gone
    #[arg(long, value_name = "TURN", conflicts_with_all = ["base", "staged", "unstaged"])]
    turn: Option<String>,
    /// With --turn: compare with the turn before (previous), or with what was cloned (base) [default: previous]
    #[arg(long, value_name = "WHAT", requires = "turn", value_parser = ["previous", "base"])]
    from: Option<String>,
}

/// Flags of `session push`.
#[derive(Debug, Clone, Args)]
pub struct Push {
    /// Id or name
    session: String,
    /// Branch of the origin, or of the fork that its commits go to; never force-pushed
    #[arg(long, value_name = "BRANCH")]
    branch: String,
    /// Repository; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
}

pub(super) async fn print_diff(arguments: Diff, connection: &Connection) -> Result<Exit, CliError> {
    if connection.format != OutputFormat::Table {
        return Err(CliError::Usage("--output: a diff is text; it has no other form".to_owned()));
    }
    let id = connection.session_id(&arguments.session).await?;
    if let Some(turn) = &arguments.turn {
        let route = Route::new(["sessions", &id, "turns", turn, "diff"]).query("repo", arguments.repo);
        return show_diff(&route.query("from", arguments.from).query("path", arguments.path), connection).await;
    }
    let changes = arguments.staged.then_some("staged").or(arguments.unstaged.then_some("unstaged"));
    let route = diff(&id, arguments.repo).query("base", arguments.base).query("path", arguments.path);
    show_diff(&route.query("changes", changes), connection).await
}

/// Where the changes in a repository of a session are.
pub(crate) fn diff(id: &str, repo: Option<String>) -> Route {
    Route::new(["sessions", id, "git", "diff"]).query("repo", repo)
}

/// Prints changes.
pub(crate) async fn show_diff(route: &Route, connection: &Connection) -> Result<Exit, CliError> {
    // Files need not be UTF-8, so the diff need not be either.
    let (head, diff) = connection.client.get_bytes(route).await.map_err(of_flag)?;
    let (console, left_out) = (&connection.console, left_out(&head)?);
    if diff.is_empty() && left_out.is_empty() {
        console.note("no changes");
    }
    write_diff(console, &diff)?;
    for left in &left_out {
        console.warn(&format!("not in the diff: {}", escape::line(&left.words())));
    }
    if head.get(diff_header::TRUNCATED).is_some_and(|value| value == "true") {
        return Err(CliError::refused(Exit::Failure, "the diff is too long: it is truncated here, and will not apply"));
    }
    Ok(Exit::Success)
}

/// The request's field is a flag here.
pub(super) fn of_flag(error: CliError) -> CliError {
    match error {
        CliError::Api { error, .. } if error.details.iter().any(|detail| detail.field == "repo") => {
            CliError::Usage(format!("--{}", error.reason))
        }
        other => other,
    }
}

/// What the diff does not show.
fn left_out(head: &HeaderMap) -> Result<Vec<LeftOut>, CliError> {
    let Some(value) = head.get(diff_header::LEFT_OUT) else { return Ok(Vec::new()) };
    let text = percent_decode(value.as_bytes()).decode_utf8_lossy();
    serde_json::from_str(&text).map_err(|error| CliError::Protocol(format!("{}: {error}", diff_header::LEFT_OUT)))
}

pub(super) async fn push(arguments: Push, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let repo = repository(&connection.session(&id).await?, arguments.repo.as_deref())?;
    let body = GitPush { repo, branch: arguments.branch };
    let answer = connection.client.post_patiently(&Route::new(["sessions", &id, "git", "push"]), &body).await?;
    for remark in answer.decode::<GitPushed>()?.remarks() {
        connection.console.warn(&escape::line(&remark));
    }
    let pushed = |p: &GitPushed| format!("{}\n", escape::line(&p.words()));
    connection.object(&answer, |p: &GitPushed| &p.commit, pushed)
}

/// The requested repository.
pub(super) fn repository(session: &Session, wanted: Option<&str>) -> Result<String, CliError> {
    let names: Vec<_> = session.reconciled_repos.iter().map(|repo| repo.name.as_str()).collect();
    match (wanted, names.as_slice()) {
        (Some(wanted), _) => Ok(wanted.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => Err(CliError::refused(Exit::NotFound, "the session has no repository (yet)")),
        (None, several) => Err(CliError::Usage(format!("--repo: is required; there are {}", several.join(", ")))),
    }
}

/// A diff: exact for programs, escaped and coloured for people.
fn write_diff(console: &Console, diff: &[u8]) -> Result<(), CliError> {
    if !console.out_is_terminal() {
        return Ok(console.bytes(diff)?);
    }
    let text = String::from_utf8_lossy(diff);
    if text.as_bytes() != diff || escape::text(&text) != text {
        console.note("some characters are escaped: to apply the diff, write it to a file");
    }
    for line in String::from_utf8_lossy(diff).split_inclusive('\n') {
        let style = match line.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] | [b'd', b'i', b'f', b'f', ..] => Style::Bold,
            [b'+', ..] => Style::Green,
            [b'-', ..] => Style::Red,
            [b'@', ..] => Style::Cyan,
            _ => Style::Plain,
        };
        // Another system's line ending is a difference here, and must be visible.
        console.styled(style, &line.replace('\r', "\\r"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::capture;

    const DIFF: &[u8] = b"diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n same\n--- was a dash\n+one\n+\x1b[2Jtwo\xff\r\n";

    #[test]
    fn a_diff_is_exact_for_programs_and_harmless_for_people() {
        let (terminal, out, _) = capture::console(true, true);
        write_diff(&terminal, DIFF).unwrap();
        assert!(out.text().contains("\u{1b}[32m+\\u{1b}[2Jtwo\u{fffd}\\r\u{1b}[0m\n"));
        let (file, out, _) = capture::console(false, true);
        write_diff(&file, DIFF).unwrap();
        assert_eq!(out.bytes(), DIFF);
    }
}
