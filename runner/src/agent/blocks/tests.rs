use proptest::prelude::*;

use super::{Piece, Unclosed, pieces};

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}
fn script(text: &str) -> Piece {
    Piece::Script(text.to_owned())
}
fn scripts(pieces: &[Piece]) -> Vec<String> {
    let script = |piece: &Piece| match piece {
        Piece::Script(script) => Some(script.clone()),
        Piece::Text(_) => None,
    };
    pieces.iter().filter_map(script).collect()
}

#[test]
fn shell_blocks_run_in_order_and_the_rest_is_prose() {
    let message = "First\n```sh\necho 1\n```\nthen\n\n  ~~~ bash title\n  echo 2\n    x\n  ~~~\n```python\nprint()\n```\n```\necho 3\n```";
    let expected = [
        text("First"),
        script("echo 1\n"),
        text("then"),
        script("echo 2\n  x\n"),
        text("```python\nprint()\n```"),
        script("echo 3\n"),
    ];
    assert_eq!(pieces(message).unwrap(), expected);
}

/// What runs of each message, by the rules of CommonMark 0.31.2 named in the comments.
const RUNS: &[(&str, &[&str])] = &[
    // What editors leave: a byte order mark, other systems' line endings.
    ("\u{feff}```sh\nmake\n```\nprose\n", &["make\n"]),
    ("\u{feff}Prose\n```sh\nmake\n```\nprose\n```\nmore\n```\n", &["make\n", "more\n"]),
    ("```sh\r\nmake\r\n\r\ntest\r\n```\r\nprose\r\n", &["make\n\ntest\n"]),
    ("```sh\rmake\r```\rprose\r", &["make\n"]),
    // 4.5: fences, their lengths, marks and indents.
    ("````sh\ncat <<E\n```\nE\n````", &["cat <<E\n```\nE\n"]),
    ("```sh\n~~~\n```", &["~~~\n"]),
    ("~~~sh\n```\n~~~~~", &["```\n"]),
    ("``\nmake\n``", &[]),
    ("no block at ```all```", &[]),
    ("``` sh `x`\nmake\n", &[]),
    ("~~~ sh `x`\nmake\n~~~", &["make\n"]),
    ("   ```sh\n   make\n    x\n  y\n   ```", &["make\n x\ny\n"]),
    ("    ```sh\n    make\n    ```", &[]),
    ("\t```sh\n\tmake\n\t```", &[]),
    ("```sh\nmake\n    ```\n```", &["make\n    ```\n"]),
    ("```sh\nmake\n```\t \nprose", &["make\n"]),
    ("```sh\nmake\n``` x\n```", &["make\n``` x\n"]),
    ("```sh\n```", &[""]),
    ("```sh\n\n  \n```", &["\n  \n"]),
    ("prose\n```sh\nmake\n```\nprose", &["make\n"]),
    // Info strings.
    ("``` sh title=\"a b\" {1}\nx\n```", &["x\n"]),
    ("```bash{1,3}\nx\n```\n```sh,ignore\ny\n```\n```Bash\nz\n```", &["x\n", "y\n", "z\n"]),
    ("```s&#104;\nx\n```", &["x\n"]),
    (
        "```zsh\nx\n```\n```sh-session\nx\n```\n```console\nx\n```\n```{.python}\nx\n```\n```{.sh}\nx\n```\n```,\nx\n```",
        &[],
    ),
    // 5: in lists and quotes a block ends with its container, and loses its markers.
    ("- ```sh\n  make\n  ```\n\n1. then\n\n   ~~~bash\n   test\n     x\n   ~~~\n", &["make\n", "test\n  x\n"]),
    ("> Do\n> ```sh\n> make\n>  x\n> ```\n> prose", &["make\n x\n"]),
    ("> - ```sh\n>   make\n>   ```", &["make\n"]),
    ("- item\n\n      ```sh\n      make\n      ```\n", &[]),
    // 4.4, 4.6: indented code and HTML are neither.
    ("    make\n", &[]),
    ("<!--\n```sh\nmake\n```\n-->\n", &[]),
    ("<pre>\n```sh\nmake\n```\n</pre>\n", &[]),
    ("<details>\n\n```sh\nmake\n```\n\n</details>\n", &["make\n"]),
    ("", &[]),
];

#[test]
fn what_runs_is_what_commonmark_has_for_a_fenced_block() {
    for (message, expected) in RUNS {
        let found = pieces(message).unwrap_or_else(|error| panic!("{error:?} in {message:?}"));
        assert_eq!(scripts(&found), *expected, "{message:?}");
    }
}

#[test]
fn a_block_that_is_not_closed_is_refused_whatever_it_is_in() {
    let refused = [
        ("```shell\necho open", 1),
        ("```sh\nmake\n```\nprose\n\n~~~\nopen\n```\n", 6),
        // The closing fence of a block whose opening one was missed, and that of a quote which continued without its marker.
        ("a ```sh\nmake\n```\nprose", 3),
        ("> ```sh\n> make\nprose", 1),
        ("- ```sh\n  make\n\nprose\n", 1),
        ("```sh\n> ```", 1),
        ("text\n```", 2),
    ];
    for (message, line) in refused {
        assert_eq!(pieces(message), Err(Unclosed { line }), "{message:?}");
    }
    assert_eq!(pieces("```python\nprint()"), Ok(vec![text("```python\nprint()")]));
}

#[test]
fn the_marks_of_a_list_or_quote_before_a_fence_are_no_prose() {
    let message =
        "1. Build:\n   ```sh\n   make\n   ```\n2. ```sh\n   test\n   ```\n\n> Why\n>\n> ```sh\n> echo\n> ```\n> so";
    let expected =
        [text("1. Build:"), script("make\n"), script("test\n"), text("> Why\n>"), script("echo\n"), text("> so")];
    assert_eq!(pieces(message).unwrap(), expected);
}

/// Lines that open, close, hold and surround blocks.
fn line() -> impl Strategy<Value = String> {
    let mark = prop_oneof!["", "> ", "- ", "  ", "   ", "    ", "\t", "1. "];
    let rest =
        prop_oneof!["", "`{2,5}(sh| bash x|python)?", "~{3,4}(sh)?", "make", "<!--", "-->", "`{3}\t", "\u{feff}`{3}sh"];
    (mark, rest).prop_map(|(mark, rest)| mark + &rest)
}

proptest! {
    /// No byte order mark, line ending or number of marks changes what runs.
    #[test]
    fn the_encoding_of_a_message_does_not_change_what_runs(lines in prop::collection::vec(line(), 0..12)) {
        let unix = lines.join("\n");
        let found = pieces(&unix);
        for ending in ["\r\n", "\r"] {
            prop_assert_eq!(&pieces(&lines.join(ending)), &found);
        }
        if !unix.starts_with('\u{feff}') {
            prop_assert_eq!(&pieces(&format!("\u{feff}{unix}")), &found);
        }
    }

    /// A script's lines are lines of the message between two fences; prose never runs.
    #[test]
    fn nothing_runs_that_is_not_between_its_fences(lines in prop::collection::vec(line(), 0..12)) {
        let Ok(found) = pieces(&lines.join("\n")) else { return Ok(()) };
        let fences = lines.iter().filter(|line| line.contains("```") || line.contains("~~~")).count();
        let scripts = scripts(&found);
        prop_assert!(fences >= 2 * scripts.len());
        for line in scripts.iter().flat_map(|script| script.lines()) {
            prop_assert!(lines.iter().any(|whole| whole.replace('\t', "    ").contains(line.replace('\t', "    ").trim())));
        }
    }

    /// A block runs exactly as written, whatever it contains, if its fence is long enough.
    #[test]
    fn a_script_is_run_as_it_was_written(script in "([ -~\t]{0,20}\n){0,8}", title in "[a-z ]{0,9}") {
        let fence = "`".repeat(30);
        let message = format!("Do\n\n{fence}sh {title}\n{script}{fence}\n\nDone");
        prop_assert_eq!(pieces(&message).unwrap(), [text("Do"), Piece::Script(script), text("Done")]);
    }
}
