//! `ambient session turns`: what came of each message.

use ambient_wire::turn::{Turn, TurnRepo, TurnStatus};
use chrono::Utc;
use clap::Args;

use crate::{
    client::route::Route,
    commands::{Connection, input::Paging, usage},
    error::CliError,
    exit::Exit,
    output::{
        duration, escape,
        fields::Fields,
        figures::grouped,
        table::{Table, cut},
    },
};

/// Flags of `session turns`.
#[derive(Debug, Clone, Args)]
pub struct Turns {
    /// Id or name
    session: String,
    /// Turn to show, such as 1-2: the second of run 1 [default: all of them, in short]
    turn: Option<String>,
    /// Only those of this run
    #[arg(long, value_name = "NUMBER", conflicts_with = "turn")]
    run: Option<i64>,
    #[command(flatten)]
    paging: Paging,
}

pub(super) async fn turns(arguments: Turns, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let Some(turn) = &arguments.turn else {
        let route = Route::new(["sessions", &id, "turns"]).query("run", arguments.run);
        let answer = connection.client.get(&arguments.paging.of(route)).await?;
        return connection.list(&answer, "turns", |turn: &Turn| &turn.id, table);
    };
    let answer = connection.client.get(&Route::new(["sessions", &id, "turns", turn])).await?;
    connection.object(&answer, |turn: &Turn| &turn.id, details)
}

fn table(turns: &[Turn]) -> Table {
    let now = Utc::now();
    let mut table =
        Table::new(["TURN", "STATUS", "AGE", "TOOK", "TOOLS", "ASKED", "TOKENS", "COST", "COMMITS", "FILES", "WHY"]);
    for turn in turns {
        let changes = || turn.repos.iter().filter_map(|repo| repo.changes.as_ref());
        let commits = count(changes().map(|changes| changes.commits.len()).sum(), changes().any(|c| c.more_commits));
        let files = count(changes().map(|changes| changes.files.len()).sum(), changes().any(|c| c.more_files));
        let tokens = turn.usage.input_tokens.saturating_add(turn.usage.output_tokens).unsigned_abs();
        table.row([
            turn.id.clone(),
            status(turn.status).to_owned(),
            duration::age(turn.started_at, now),
            turn.ended_at.map(|end| duration::span(end - turn.started_at)).unwrap_or_default(),
            turn.tool_calls.to_string(),
            turn.permission_requests.to_string(),
            grouped(tokens),
            usage::cost(&turn.usage).unwrap_or_default(),
            commits,
            files,
            cut(&why(turn), 60),
        ]);
    }
    table
}

fn count(number: usize, more: bool) -> String {
    format!("{number}{}", if more { "+" } else { "" })
}

fn status(status: TurnStatus) -> &'static str {
    match status {
        TurnStatus::Working => "working",
        TurnStatus::Finished => "finished",
        TurnStatus::Error => "error",
        TurnStatus::Interrupted => "interrupted",
        TurnStatus::Lost => "lost",
    }
}

/// Why it did not finish, or not as usual.
fn why(turn: &Turn) -> String {
    let message = turn.message.as_deref().filter(|message| !message.is_empty());
    let stop = turn.stop_reason.as_deref().filter(|reason| *reason != "end_turn");
    let words = [turn.code.as_deref(), message, stop].into_iter().flatten();
    words.collect::<Vec<_>>().join(": ")
}

fn details(turn: &Turn) -> String {
    let mut fields = Fields::new(9);
    fields.add("Turn", &turn.id);
    fields.add("Status", status(turn.status));
    let why = why(turn);
    if !why.is_empty() {
        fields.add("Why", &why);
    }
    fields.add("Message", &turn.message_id);
    fields.add("Began", turn.started_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    fields.add("Took", turn.ended_at.map(|end| duration::span(end - turn.started_at)).unwrap_or_default());
    let last = turn.last_seq.map(|seq| format!(" to {seq}")).unwrap_or_default();
    fields.add("Events", format!("seq {}{last}", turn.first_seq));
    fields.add("Tools", format!("{}, {}", times(turn.tool_calls, "call"), times(turn.permission_requests, "request")));
    let used = &turn.usage;
    let [input, output] = [used.input_tokens, used.output_tokens].map(|number| grouped(number.unsigned_abs()));
    let cost = usage::cost(used).map(|cost| format!(", {cost}")).unwrap_or_default();
    fields.add("Models", format!("{}, {input} tokens in, {output} out{cost}", times(used.calls, "call")));
    turn.repos.iter().fold(fields.into_text(), |text, repo| text + "\n" + &of_repo(repo))
}

fn times(number: i64, what: &str) -> String {
    format!("{} {what}{}", grouped(number.unsigned_abs()), if number == 1 { "" } else { "s" })
}

fn of_repo(repo: &TurnRepo) -> String {
    let short = |commit: &Option<String>| commit.as_deref().unwrap_or("nothing").chars().take(12).collect::<String>();
    let mut lines = vec![format!(
        "{} on {} at {}, snapshot {}",
        repo.repo,
        repo.branch.as_deref().unwrap_or("no branch"),
        short(&repo.head),
        short(&repo.snapshot)
    )];
    if let Some(changes) = &repo.changes {
        lines.extend(changes.commits.iter().map(|commit| {
            let id: String = commit.commit.chars().take(12).collect();
            format!("  {id} {} ({})", commit.subject, commit.author)
        }));
        lines.extend(changes.more_commits.then(|| "  and more commits".to_owned()));
        lines.extend(changes.files.iter().map(|file| match (file.added, file.removed) {
            (Some(added), Some(removed)) => format!("  {} (+{added} -{removed})", file.path),
            _ => format!("  {} (not text)", file.path),
        }));
        lines.extend(changes.more_files.then(|| "  and more files".to_owned()));
    }
    lines.extend(repo.pushed.as_ref().map(|pushed| format!("  {}", pushed.words())));
    lines.extend(repo.not_stored.as_ref().map(|reason| format!("  the snapshot is not stored: {reason}")));
    lines.extend(repo.problem.as_ref().map(|problem| format!("  problem: {problem}")));
    let mut text: String = lines.iter().map(|line| format!("{}\n", escape::line(line))).collect();
    if let Some(patch) = repo.patch.as_deref().filter(|patch| !patch.is_empty()) {
        text += &format!("\n{}", escape::text(patch));
    }
    text
}
