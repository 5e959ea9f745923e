//! A change of a file as a unified diff.

use std::time::Duration;

use similar::{ChangeTag, DiffTag, TextDiff};

use crate::output::Style;

/// Longest time one diff is worked on: then it is coarser.
const PATIENCE: Duration = Duration::from_millis(200);
/// Lines around a change.
const CONTEXT: usize = 3;
/// Most lines shown of one file.
const MAX_LINES: usize = 200;

/// What happened to a file in a line: `src/main.rs  +3 -1`.
pub(super) struct FileDiff {
    pub(super) summary: String,
    /// Lines with their style.
    pub(super) lines: Vec<(Style, String)>,
}

/// What git says of a change: its files, and a patch.
pub(super) fn patch<'a>(summary: &str, texts: impl Iterator<Item = &'a str>) -> FileDiff {
    let style = |line: &str| match line.as_bytes() {
        [b'+', ..] => Style::Green,
        [b'-', ..] => Style::Red,
        [b'@', ..] => Style::Cyan,
        [b'd', b'i', b'f', b'f', ..] => Style::Bold,
        _ => Style::Plain,
    };
    let mut lines = texts.flat_map(str::lines).map(|line| (style(line), line.to_owned())).collect();
    bound(&mut lines);
    FileDiff { summary: summary.to_owned(), lines }
}

fn bound(lines: &mut Vec<(Style, String)>) {
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push((Style::Dim, format!("… {more} more lines")));
    }
}

/// Compares a file's content before (none: it is new, or is not told) and after.
pub(super) fn of(path: &str, before: Option<&str>, after: &str, is_cut_off: bool) -> FileDiff {
    let old = before.unwrap_or_default();
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(old, after);
    let (mut added, mut removed, mut lines) = (0, 0, Vec::new());
    for change in diff.iter_all_changes() {
        added += usize::from(change.tag() == ChangeTag::Insert);
        removed += usize::from(change.tag() == ChangeTag::Delete);
    }
    for group in diff.grouped_ops(CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        if group.iter().all(|op| op.tag() == DiffTag::Equal) {
            continue;
        }
        let old_lines = first.old_range().start..last.old_range().end;
        let new_lines = first.new_range().start..last.new_range().end;
        lines.push((Style::Cyan, format!("@@ -{} +{} @@", span(&old_lines), span(&new_lines))));
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (style, sign) = match change.tag() {
                ChangeTag::Insert => (Style::Green, '+'),
                ChangeTag::Delete => (Style::Red, '-'),
                ChangeTag::Equal => (Style::Plain, ' '),
            };
            lines.push((style, format!("{sign}{}", change.value().trim_end_matches(['\r', '\n']))));
        }
    }
    bound(&mut lines);
    if is_cut_off {
        lines.push((Style::Dim, "… the file was too large: the rest is not told".to_owned()));
    }
    let new = if before.is_none() && !is_cut_off { "new file, " } else { "" };
    let removals = if removed > 0 { format!(" -{removed}") } else { String::new() };
    FileDiff { summary: format!("{path}  ({new}+{added}{removals})"), lines }
}

/// `first,count` of lines, as `diff -u` writes it.
fn span(lines: &std::ops::Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        count => format!("{},{count}", lines.start + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(diff: &FileDiff) -> String {
        diff.lines.iter().fold(diff.summary.clone(), |shown, (_, line)| shown + "\n" + line)
    }

    #[test]
    fn only_what_has_changed_is_shown_with_a_few_lines_around_it() {
        let before: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let after = before.replace("line 2\n", "second\n").replace("line 18\n", "line 18\nand more\n");
        insta::assert_snapshot!(shown(&of("a.txt", Some(&before), &after, false)), @"
        a.txt  (+2 -1)
        @@ -1,5 +1,5 @@
         line 1
        -line 2
        +second
         line 3
         line 4
         line 5
        @@ -16,5 +16,6 @@
         line 16
         line 17
         line 18
        +and more
         line 19
         line 20
        ");
    }

    #[test]
    fn a_new_file_an_unchanged_one_and_one_that_was_cut_off_say_so() {
        assert_eq!(shown(&of("n", None, "one\r\ntwo", false)), "n  (new file, +2)\n@@ -0,0 +1,2 @@\n+one\n+two");
        assert_eq!(shown(&of("s", Some("same\n"), "same\n", false)), "s  (+0)");
        assert!(shown(&of("c", None, "x\n", true)).ends_with("+x\n… the file was too large: the rest is not told"));
    }

    #[test]
    fn a_long_diff_is_cut_off_and_a_hard_one_takes_no_longer_than_it_may() {
        let lines = |odd: usize| (0..60_000).map(|n| format!("{}\n", n * odd % 7919)).collect::<String>();
        let began = std::time::Instant::now();
        let diff = of("h", Some(&lines(3)), &lines(5), false);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(diff.lines.len(), MAX_LINES + 1);
    }
}
