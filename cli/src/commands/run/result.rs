//! The result of a run in a few lines. Each part is its own function and is left out if nothing is known.

use ambient_wire::session::Session;
use chrono::TimeDelta;

use super::record::{Pushed, Record, Snapshot};
use crate::output::{Console, Style, duration, escape};

/// How many of the paths that a snapshot leaves out are named.
const MAX_NAMED: usize = 10;

/// Lines with their styles; escaped.
pub(super) fn lines(session: &Session, record: &Record) -> Vec<(Style, String)> {
    let mut lines = vec![outcome(session, record)];
    lines.extend(timeline(record).into_iter().map(|line| (Style::Dim, line)));
    lines.extend(snapshots(record).into_iter().map(|line| (Style::Dim, line)));
    lines.extend(left_out(record).into_iter().map(|line| (Style::Yellow, line)));
    lines.extend(not_taken(record).into_iter().map(|line| (Style::Yellow, line)));
    lines.extend(pushes(record));
    lines.extend(record.not_pushed.iter().map(|(repo, how)| (Style::Yellow, format!("  {repo}: {how}"))));
    lines.into_iter().map(|(style, line)| (style, escape::line(&line).into_owned())).collect()
}

fn outcome(session: &Session, record: &Record) -> (Style, String) {
    let what = format!("Session {} ({})", session.name, session.id);
    let (Some(first), Some(end)) = (record.phases.first(), record.last()) else {
        return (Style::Bold, format!("{what}: deleted"));
    };
    let mut line = format!("{what}: {} in {}", end.phase, duration::span(end.at - first.at));
    if end.reason != end.phase {
        line += &format!(", {}", end.reason);
    }
    if !end.message.is_empty() {
        line += &format!(": {}", end.message);
    }
    let code = end.exit_code.map(|code| format!("exit code {code}"));
    if let Some(code) = code.filter(|code| !end.message.contains(code)) {
        line += &format!(" ({code})");
    }
    if record.deleted {
        line += ", and deleted";
    }
    let style = match end.phase.as_str() {
        "Completed" => Style::Green,
        "Failed" => Style::Red,
        _ => Style::Bold,
    };
    (style, line)
}

/// Each phase and how long it lasted.
fn timeline(record: &Record) -> Vec<String> {
    let ends = record.phases.iter().skip(1).map(|next| Some(next.at)).chain([None]);
    let line = |(entry, end): (&super::record::PhaseEntry, Option<chrono::DateTime<chrono::Utc>>)| {
        let lasted: Option<TimeDelta> = end.map(|end| end - entry.at);
        let lasted = lasted.map(duration::span).unwrap_or_default();
        let reason = if entry.reason == entry.phase { "" } else { entry.reason.as_str() };
        format!("  {:<10} {lasted:>10}  {reason}", entry.phase).trim_end().to_owned()
    };
    record.phases.iter().zip(ends).map(line).collect()
}

fn snapshots(record: &Record) -> Vec<String> {
    let short = |commit: &str| commit.chars().take(12).collect::<String>();
    record.snapshots.iter().map(|s| format!("  snapshot of {}: {}", s.repo, short(&s.commit))).collect()
}

/// What no snapshot shows.
fn left_out(record: &Record) -> Vec<String> {
    let of = |snapshot: &Snapshot| {
        let repo = snapshot.repo.clone();
        // An entry without a path says that the list itself was cut.
        let (paths, cut): (Vec<_>, Vec<_>) = snapshot.left_out.iter().partition(|left| !left.path.is_empty());
        let more = paths.len().saturating_sub(MAX_NAMED);
        let more = match (more, cut.is_empty()) {
            (0, true) => None,
            (0, false) => Some("  not in it: more, not named".to_owned()),
            (more, true) => Some(format!("  not in it: {more} more")),
            (more, false) => Some(format!("  not in it: at least {more} more")),
        };
        let named = paths.into_iter().take(MAX_NAMED).map(|left| format!("  not in it: {repo}/{}", left.words()));
        named.chain(more).collect::<Vec<_>>()
    };
    record.snapshots.iter().flat_map(of).collect()
}

/// Prints what the run changed to standard output: exact for programs, escaped for people.
pub(super) fn print_patches(record: &Record, console: &Console) -> std::io::Result<()> {
    for snapshot in record.snapshots.iter().filter(|snapshot| !snapshot.patch.is_empty()) {
        if console.out_is_terminal() {
            console.data(&escape::text(&String::from_utf8_lossy(&snapshot.patch)))?;
        } else {
            console.bytes(&snapshot.patch)?;
        }
    }
    for snapshot in record.snapshots.iter().filter(|snapshot| snapshot.patch_truncated) {
        console.warn(&format!("the diff of {} is truncated; the snapshot has the rest", escape::line(&snapshot.repo)));
    }
    Ok(())
}

/// Repositories without a snapshot, or with one that may not show a single moment.
fn not_taken(record: &Record) -> Vec<String> {
    let failed = record.not_taken.iter().map(|failed| format!("  no snapshot of {}: {}", failed.repo, failed.reason));
    let moving = record.snapshots.iter().filter(|snapshot| snapshot.running > 0).map(|snapshot| {
        let Snapshot { repo, running, .. } = snapshot;
        format!("  {repo}: {running} processes of the agent were still running when the snapshot was taken")
    });
    failed.chain(moving).collect()
}

/// What the runner reports that an origin accepted, and how that differs from what is shown; what was wanted is another matter.
fn pushes(record: &Record) -> Vec<(Style, String)> {
    let mut lines = Vec::new();
    for Pushed { repo, what } in &record.pushes {
        lines.push((Style::Plain, format!("  {}", what.words())));
        lines.extend(what.remarks().map(|remark| (Style::Yellow, format!("  {repo}: {remark}"))));
        let head = record.snapshots.iter().find(|snapshot| snapshot.repo == *repo).and_then(|s| s.head.as_ref());
        if let Some(head) = head.filter(|head| **head != what.commit) {
            let head = head.chars().take(12).collect::<String>();
            lines.push((Style::Yellow, format!("  {repo}: since the push another commit was checked out: {head}")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use ambient_wire::{
        git::{LeftOut, LeftOutReason},
        live::Event,
    };

    use super::*;

    #[test]
    fn the_last_word_on_a_repository_is_said() {
        let event = |data: serde_json::Value| {
            let event_type = data["type"].as_str().unwrap_or_default().to_owned();
            Event { seq: 1, event_type, data, at: chrono::DateTime::UNIX_EPOCH }
        };
        let failed = serde_json::json!({
            "type": "repo.push_failed", "repo": "a", "url": "file:///r", "branch": "out", "reason": "refused",
        });
        let pushed = serde_json::json!({
            "type": "repo.pushed", "repo": "a", "url": "file:///r", "branch": "out", "commit": "0123456789abcdef", "commits": 1,
            "created": true, "uncommitted": 0,
        });
        let mut record = Record::default();
        record.take(&event(pushed.clone()));
        record.take(&event(failed));
        assert!(record.pushes.is_empty());
        assert_eq!(record.not_pushed, [("a".to_owned(), "not pushed to out of file:///r: refused".to_owned())]);
        record.take(&event(pushed));
        assert_eq!((record.pushes.len(), record.not_pushed.len()), (1, 0));
    }

    #[test]
    fn of_a_list_that_was_cut_the_rest_is_at_least_so_much() {
        let left = |path: String| LeftOut { path, reason: LeftOutReason::Special, submodule: None };
        let mut left_out: Vec<_> = (0..12).map(|n| left(format!("p{n}"))).collect();
        let told = |left_out: &[LeftOut]| {
            let (repo, commit, left_out) = ("r".to_owned(), String::new(), left_out.to_vec());
            let snapshot =
                Snapshot { repo, commit, patch: Vec::new(), patch_truncated: false, left_out, head: None, running: 0 };
            super::left_out(&Record { snapshots: vec![snapshot], ..Record::default() })
        };
        assert_eq!(told(&left_out[..10]).len(), 10);
        assert_eq!(told(&left_out).last().unwrap(), "  not in it: 2 more");
        left_out.push(LeftOut { path: String::new(), reason: LeftOutReason::More, submodule: None });
        assert_eq!(told(&left_out).last().unwrap(), "  not in it: at least 2 more");
        assert_eq!(told(&left_out).len(), 11);
    }
}
