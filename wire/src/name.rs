//! Names that people give: of sessions and projects, in labels and annotations, of branches, models and subjects. One rule for all,
//! checked when a request comes in. What was stored under an older rule stays readable.
//!
//! A name is shown in tables, typed as an argument and compared by eye, so it has to be visible and look like what it is: no
//! control or format characters, nothing that reorders text or has no width, no white space but plain spaces inside.

/// Longest name, characters.
pub const MAX: usize = 100;
/// Longest key of a label or annotation, characters.
pub const MAX_KEY: usize = 253;
/// Form of a key of a label or annotation.
pub const KEY_PATTERN: &str = "^[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?$";

/// Characters a name may not contain, as ranges: controls, white space other than the plain space, and what Unicode calls default ignorable (variation selectors among them: with
/// one and without, a name looks the same).
const INVISIBLE: [(char, char); 31] = [
    ('\0', '\u{1f}'),
    ('\u{7f}', '\u{a0}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2000}', '\u{200f}'),
    ('\u{2028}', '\u{202f}'),
    ('\u{205f}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3000}', '\u{3000}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fdd0}', '\u{fdef}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{fffe}', '\u{ffff}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{16fe4}', '\u{16fe4}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d159}', '\u{1d159}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{1fffe}', '\u{1ffff}'),
    ('\u{2fffe}', '\u{2ffff}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Why it is not a name; for people, to follow the field's name.
pub type Problem = String;

/// A name of 1 to `max` characters.
///
/// # Errors
/// What is wrong with it. The text itself is not repeated.
pub fn check(text: &str, max: usize) -> Result<(), Problem> {
    let count = text.chars().count();
    if count == 0 || count > max {
        return Err(format!("must have 1 to {max} characters"));
    }
    visible(text)?;
    if text.starts_with(['-', '.', ' ']) || text.ends_with(' ') {
        return Err("must not begin with '-', '.' or a space, nor end with a space".to_owned());
    }
    no_credentials(text)
}

/// A label's value: a name, or nothing.
///
/// # Errors
/// What is wrong with it.
pub fn check_value(text: &str) -> Result<(), Problem> {
    visible(text)?;
    no_credentials(text)
}

/// A key of a label or annotation.
///
/// # Errors
/// What is wrong with it.
pub fn check_key(key: &str) -> Result<(), Problem> {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let well_formed =
        (1..=MAX_KEY).contains(&key.len()) && key.starts_with(ends) && key.ends_with(ends) && key.chars().all(inner);
    if well_formed {
        return Ok(());
    }
    Err(format!(
        "is not a valid key: 1 to {MAX_KEY} of letters, digits, '-', '_', '.' and '/', with a letter or digit at both ends"
    ))
}

/// A branch, beyond git's own rule: visible, and not a name with a meaning to git.
///
/// # Errors
/// What is wrong with it.
pub fn check_branch(name: &str) -> Result<(), Problem> {
    if matches!(name, "HEAD" | "@") || name.starts_with('+') || name.split('/').any(|part| part.ends_with(".lock")) {
        return Err("is not a valid branch name".to_owned());
    }
    if let Some(whole) = name.strip_prefix("refs/") {
        // Git would turn it into `refs/heads/refs/heads/z`.
        let branch = whole.strip_prefix("heads/").unwrap_or(whole);
        return Err(format!("is the full name of a reference: name the branch alone, '{branch}'"));
    }
    visible(name)?;
    no_credentials(name)
}

fn visible(text: &str) -> Result<(), Problem> {
    match text.chars().find(|c| is_invisible(*c)) {
        Some(c) => Err(format!(
            "must not contain U+{:04X}: control characters, white space but plain spaces, and characters without width or that \
             reorder text are not allowed",
            u32::from(c)
        )),
        None => Ok(()),
    }
}

fn no_credentials(text: &str) -> Result<(), Problem> {
    match crate::redact::text(text) {
        std::borrow::Cow::Borrowed(_) => Ok(()),
        std::borrow::Cow::Owned(_) => Err("must not contain a URL with credentials".to_owned()),
    }
}

/// Whether a character is not allowed in a name.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// A name made from any text: characters that are not allowed become spaces, and it is cut to `max` characters. None if nothing is left.
#[must_use]
pub fn made_of(text: &str, max: usize) -> Option<String> {
    let told = crate::redact::text(text);
    let words: Vec<String> =
        told.split(|c: char| c == ' ' || is_invisible(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let line = words.join(" ");
    let line = line.trim_start_matches(['-', '.', ' ']);
    let cut: String = line.chars().take(max).collect();
    // What ends a sentence or announces more is no part of a name.
    let name = cut.trim_end_matches([' ', ':', ';', ',', '.', '…', '-', '–', '—']).to_owned();
    check(&name, max).is_ok().then_some(name)
}

/// The rule of [`check`], except for credentials and length, as an ECMA 262 regular expression.
#[must_use]
pub fn pattern() -> String {
    let class: String = INVISIBLE.iter().map(|(first, last)| range(*first, *last)).collect();
    format!("^[^-. {class}]([^{class}]*[^ {class}])?$")
}

/// The same for [`check_value`].
#[must_use]
pub fn value_pattern() -> String {
    let class: String = INVISIBLE.iter().map(|(first, last)| range(*first, *last)).collect();
    format!("^[^{class}]*$")
}

fn range(first: char, last: char) -> String {
    // Beyond four digits there is no escape that all dialects share.
    let shown = |c: char| if u32::from(c) <= 0xffff { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    if first == last { shown(first) } else { format!("{}-{}", shown(first), shown(last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_visible_and_looks_like_what_it_is() {
        let good = [
            "a",
            "fix the build",
            "ünïcödé",
            "修复",
            "abcdefghijklmnopqrstuvwxyz1",
            "✔ done",
            "a--all",
            "v1.2 (x)",
            "a@b",
        ];
        for name in good {
            assert_eq!(check(name, MAX), Ok(()), "{name:?}");
        }
        let bad = [
            "",
            " ",
            "  ",
            "\t",
            " a",
            "a ",
            "..",
            ".",
            ".git",
            "--all",
            "-x",
            "a\tb",
            "a\nb",
            "a\u{1b}[2Jb",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{a0}b",
            "a\u{ad}b",
            "\u{200b}",
            "a\u{200b}b",
            "a\u{200d}b",
            "a\u{200e}b",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{2028}b",
            "a\u{2060}b",
            "a\u{3000}b",
            "\u{3164}",
            "\u{2800}",
            "\u{feff}a",
            "\u{fe0f}",
            "✔\u{fe0f} done",
            "a\u{fe00}",
            "a\u{34f}b",
            "a\u{115f}b",
            "a\u{1160}b",
            "a\u{17b4}b",
            "a\u{180b}b",
            "a\u{180f}b",
            "a\u{fff0}b",
            "a\u{ffa0}b",
            "a\u{1d173}b",
            "a\u{e0100}b",
            "a\u{e0fff}b",
            "a\u{e0041}b",
            "a\u{fffe}",
            "a\0b",
            "https://bot:secret@example.org/a",
        ];
        for name in bad {
            assert!(check(name, MAX).is_err(), "{name:?}");
        }
        assert!(check(&"ä".repeat(100), MAX).is_ok() && check(&"ä".repeat(101), MAX).is_err());
    }

    #[test]
    fn keys_values_and_branches_have_rules_of_the_same_kind() {
        for key in ["a", "team", "example.org/team", "a-b_c.d/e1"] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for key in ["", "/", "..", "-a", "--all", "a/", ".a", "a b", "ä", "a\0", &"k".repeat(254)] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
        assert!(check_value("").is_ok() && check_value(" a ").is_ok() && check_value("--x").is_ok());
        assert!(check_value("a\u{202e}b").is_err() && check_value("https://a:b@c").is_err());
        assert!(check_branch("fix/readme").is_ok());
        assert!(check_branch("refs/heads/z").unwrap_err().ends_with("'z'") && check_branch("prefs/z").is_ok());
        for branch in ["HEAD", "@", "+a", "refs/heads/z", "a.lock/b", "a\u{200b}b", "a\u{202e}b"] {
            assert!(check_branch(branch).is_err(), "{branch:?}");
        }
    }

    #[test]
    fn a_name_made_of_any_text_is_one() {
        for (text, name) in [
            ("fix\tit ", Some("fix it")),
            ("- [ ] do\u{200b} this", Some("[ ] do this")),
            ("✔\u{fe0f} done", Some("✔ done")),
            ("... and --all", Some("and --all")),
            ("Count the words:", Some("Count the words")),
            ("Fix it, then … :", Some("Fix it, then")),
            ("Say hello.", Some("Say hello")),
            ("Does it work?", Some("Does it work?")),
            ("v1.2: part (a)", Some("v1.2: part (a)")),
            ("\u{200b}", None),
            ("---", None),
            ("", None),
            ("clone https://bot:ab/cd@host/x.git", Some("clone https://…@host/x.git")),
        ] {
            assert_eq!(made_of(text, MAX).as_deref(), name, "{text:?}");
        }
        assert_eq!(made_of(&"ä".repeat(200), MAX).unwrap().chars().count(), 100);
        assert_eq!(made_of(&format!("{} b", "a".repeat(99)), MAX).unwrap(), "a".repeat(99));
    }
}
