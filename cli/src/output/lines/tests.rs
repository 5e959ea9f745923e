use proptest::prelude::*;

use super::*;
use crate::output::capture;

const FILE: (bool, bool) = (false, false);
const TERMINAL: (bool, bool) = (true, true);

/// The output for pieces from their sources.
fn shown((terminal, colors): (bool, bool), pieces: &[(Source, &str)]) -> String {
    let (console, out, _) = capture::console(terminal, colors);
    let mut lines = Lines::new(console);
    for (source, text) in pieces {
        lines.write(*source, text).unwrap();
    }
    drop(lines);
    out.text()
}

fn file(text: &str) -> String {
    shown(FILE, &[(Source::Output, text)])
}

/// The lines a terminal shows for what was written to it. Nothing else may be written.
fn screen(written: &str) -> Vec<String> {
    let (mut rows, mut column) = (vec![Vec::new()], 0);
    let mut rest = written;
    while let Some(c) = rest.chars().next() {
        let row: &mut Vec<char> = rows.last_mut().unwrap();
        if let Some(after) = rest.strip_prefix("\u{1b}[K") {
            row.truncate(column);
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix("\u{1b}[") {
            let end = after.find('m').unwrap();
            assert!(after[..end].bytes().all(|b| b.is_ascii_digit() || b == b';'), "{after:?}");
            rest = &after[end + 1..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' => {
                rows.push(Vec::new());
                column = 0;
            }
            '\r' => column = 0,
            c => {
                assert!(
                    c == '\t' || !crate::output::escape::is_written_out(c, column.checked_sub(1).map(|at| row[at])),
                    "{c:?}"
                );
                row.truncate(row.len().max(column));
                if column < row.len() {
                    row[column] = c;
                } else {
                    row.push(c);
                }
                column += 1;
            }
        }
    }
    rows.iter().map(|row| row.iter().collect::<String>()).collect()
}

#[test]
fn a_progress_bar_leaves_its_last_state_and_a_file_gets_nothing_else() {
    for (text, expected) in [
        ("  0%\r 50%\r100%\ndone\n", "100%\ndone\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("long text\rshort\n", "shorttext\n"),
        ("long text\r\u{1b}[Kshort\n", "short\n"),
        ("long text\r\u{1b}[2Kshort\n", "short\n"),
        ("abc\u{8}\u{8}X\n", "aXc\n"),
        ("abc\u{1b}[1K\u{1b}[GX\n", "X\n"),
        ("abc\u{1b}[2DX\u{1b}[5CY\n", "aXc    Y\n"),
        ("| \u{8}\u{8}/ \u{8}\u{8}- \u{8}\u{8}done\n", "done\n"),
        ("spin\r\u{1b}[K", ""),
        ("a\tb\n", "a\tb\n"),
        ("tab\ttab\r\n\r\n", "tab\ttab\n\n"),
        ("日本語\u{8}\u{8}x\n", "日本x \n"),
        ("日本\rx\n", "x 本\n"),
        ("e\u{301}\u{8}x\n", "x\n"),
        ("no end", "no end\n"),
        ("", ""),
    ] {
        assert_eq!(file(text), expected, "{text:?}");
    }
}

#[test]
fn colours_are_kept_on_a_terminal_and_dropped_in_a_file() {
    let text = "\u{1b}[1;32mok\u{1b}[0m plain \u{1b}[38;5;208morange\nstill\u{1b}[m\n";
    assert_eq!(file(text), "ok plain orange\nstill\n");
    let expected = "\u{1b}[1;32mok\u{1b}[0m plain \u{1b}[38;5;208morange\u{1b}[0m\n\u{1b}[38;5;208mstill\u{1b}[0m\n";
    assert_eq!(shown(TERMINAL, &[(Source::Output, text)]), expected);
    assert_eq!(shown((true, false), &[(Source::Output, text)]), "ok plain orange\nstill\n", "NO_COLOR");
    // A source's colours are its own.
    let pieces = [(Source::Output, "\u{1b}[31mred"), (Source::Errors, "err"), (Source::Words, "word\n")];
    assert_eq!(shown(TERMINAL, &pieces), "\u{1b}[31mred\u{1b}[0m\u{1b}[33merr\u{1b}[0mword\n");
}

#[test]
fn no_other_sequence_reaches_a_terminal_or_hides_what_follows() {
    for (text, expected) in [
        ("\u{1b}]0;title\u{7}a\n", "a\n"),
        ("\u{1b}]52;c;aGk=\u{1b}\\a\u{1b}]8;;http://x\u{7}link\u{1b}]8;;\u{7}\n", "alink\n"),
        ("\u{1b}[2J\u{1b}[H\u{1b}[10A\u{1b}[?1049h\u{1b}[?25la\u{1b}[8mb\u{1b}c\u{1b}(0c\n", "abc\n"),
        ("\u{1b}P+q544e\u{1b}\\\u{1b}_Gx\u{1b}\\\u{1b}^x\u{1b}\\\u{1b}Xx\u{1b}\\a\n", "a\n"),
        ("\u{1b}]0;never ended\nnext\n", "\\u{1b}]0;never ended\nnext\n"),
        ("\u{9b}31ma\u{9d}0;x\u{7}\n", "\\u{9b}31ma\\u{9d}0;x\\u{7}\n"),
        ("a\u{202e}b\u{200b}c\u{feff}d\u{2028}e\u{85}f\n", "a\\u{202e}b\\u{200b}c\\u{feff}d\\u{2028}e\\u{85}f\n"),
        ("\u{7}\u{b}\u{c}\u{e}\u{7f}\n", "\\u{7}\\u{b}\\u{c}\\u{e}\\u{7f}\n"),
        ("\u{1b}[>4;2ma\u{1b}[0 qb\n", "ab\n"),
    ] {
        assert_eq!(file(text), expected, "{text:?}");
        let on_terminal = shown(TERMINAL, &[(Source::Output, text)]);
        assert_eq!(screen(&on_terminal).join("\n"), expected, "{text:?}");
    }
}

#[test]
fn what_is_cut_between_two_pieces_is_still_one_sequence_and_one_that_is_never_finished_is_shown() {
    let pieces =
        [(Source::Output, "a\u{1b}"), (Source::Errors, "!"), (Source::Output, "[3"), (Source::Output, "1mb\n")];
    assert_eq!(shown(FILE, &pieces), "a!b\n");
    let (console, out, _) = capture::console(false, false);
    let mut lines = Lines::new(console);
    lines.write(Source::Words, "a\u{1b}]0;x").unwrap();
    lines.end(Source::Words).unwrap();
    assert_eq!(out.text(), "a\\u{1b}]0;x\n");
}

#[test]
fn a_line_that_is_drawn_again_and_again_neither_floods_a_file_nor_grows_in_memory() {
    let (console, out, _) = capture::console(false, false);
    let mut lines = Lines::new(console);
    for n in 0..200_000 {
        lines.write(Source::Output, &format!("\r{n:>6} of 200000 e\u{301}")).unwrap();
    }
    lines.write(Source::Output, "\n").unwrap();
    assert_eq!(out.text(), "199999 of 200000 e\u{301}\n");
}

#[test]
fn a_long_line_is_whole_and_what_is_out_of_reach_is_not_drawn_over() {
    let long = "0123456789".repeat(100_000);
    assert_eq!(file(&format!("{long}\r\n{long}")), format!("{long}\n{long}\n"));
    assert_eq!(screen(&shown(TERMINAL, &[(Source::Output, &long)]))[0], long);
    assert_eq!(file(&format!("{long}\rx\n")), format!("{long}\nx\n"));
    let marks = format!("a{}", "\u{301}".repeat(1_000_000));
    assert_eq!(file(&marks), marks + "\n");
}

#[test]
fn a_terminal_sees_a_line_grow_and_change_in_place() {
    let pieces =
        [(Source::Words, "Let me "), (Source::Words, "look"), (Source::Words, "\rWait   "), (Source::Words, "!\n")];
    assert_eq!(shown((true, false), &pieces), "Let me look\rWait   look\u{1b}[K\rWait   !ook\u{1b}[K\n");
    // A line of several rows cannot be redrawn: it is shown when it has ended.
    let wide = "x".repeat(100);
    let pieces =
        [(Source::Output, wide.as_str()), (Source::Output, "\ry"), (Source::Output, "\rz"), (Source::Output, "\n")];
    assert_eq!(shown((true, false), &pieces), format!("{wide}\nz{}\n", "x".repeat(99)));
}

#[test]
fn the_end_of_a_line_is_written_once_and_only_when_one_has_begun() {
    let (console, out, _) = capture::console(true, false);
    let mut lines = Lines::new(console);
    lines.end_line().unwrap();
    lines.write(Source::Words, "half").unwrap();
    lines.end_line().unwrap();
    lines.end_line().unwrap();
    assert_eq!(out.text(), "half\n");
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z ]{0,6}".boxed(),
        2 => prop_oneof!["\r", "\n", "\r\n", "\u{8}", "\u{1b}\\[K", "\u{1b}\\[[0-9]{0,2}[CDGK]"].boxed(),
        2 => "\u{1b}\\[[0-9;:?> ]{0,6}[@-~]".boxed(),
        1 => "\u{1b}[\\]P_^X][a-z0-9;\u{1b}\u{7}\\\\]{0,6}".boxed(),
        1 => any::<String>().boxed(),
    ]
}

proptest! {
    /// `screen` fails on anything but text, its three movements and colours.
    #[test]
    fn whatever_is_written_is_harmless_and_ends_up_the_same_in_file_and_terminal(
        pieces in prop::collection::vec(piece(), 0..12),
        cuts in prop::collection::vec(0usize..40, 0..6),
    ) {
        let whole = pieces.concat();
        let in_file = file(&whole);
        let is_harmless = !in_file.contains(['\u{1b}', '\r', '\u{8}']);
        prop_assert!(is_harmless);
        let mut at: Vec<_> = cuts.iter().map(|cut| whole.floor_char_boundary(*cut)).chain([0, whole.len()]).collect();
        at.sort_unstable();
        let cut: Vec<_> = at.windows(2).map(|ends| (Source::Output, &whole[ends[0]..ends[1]])).collect();
        prop_assert_eq!(&shown(FILE, &cut), &in_file, "in pieces");
        // What is shown in between must fit its row too: one that does not cannot be redrawn.
        let fits = |end: &usize| file(&whole[..*end]).lines().all(|line| line.len() < 79);
        if whole.is_ascii() && at.iter().all(fits) {
            let on_terminal = screen(&shown(TERMINAL, &cut)).join("\n");
            prop_assert_eq!(on_terminal.trim_start_matches('\n'), in_file.trim_start_matches('\n'));
        }
    }
}
