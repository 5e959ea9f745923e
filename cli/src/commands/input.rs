//! What users pass in: texts from arguments, files and standard input, labels, pages.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ambient_wire::{
    agent_type::AgentCommand,
    git::Submodules,
    model::{MAX_LIMIT, ModelRules},
    network::{Network, Problem},
    permission::Permissions,
    playbook::Playbook,
    session::SecretText,
};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{client::route::Route, error::CliError};

/// Largest text the API accepts, bytes.
const MAX_TEXT: u64 = 1 << 20;

/// A text, given directly or in a file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Text {
    /// What the agent should do
    #[arg(short = 'p', long = "prompt", value_name = "TEXT", conflicts_with = "file")]
    pub(crate) prompt: Option<String>,
    /// File that says what the agent should do; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

impl Text {
    /// The text, if one was given.
    pub(crate) fn read(&self) -> Result<Option<String>, CliError> {
        text("--prompt", self.prompt.as_deref(), self.file.as_deref())
    }
}

/// `NAME=VALUE`, or just `NAME` to take the value from the environment.
pub(crate) fn variable(given: &str) -> Result<(String, SecretText), String> {
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => (given, std::env::var(given).map_err(|_| format!("{given} is not set here; write {given}=VALUE"))?),
    };
    if name.is_empty() { Err("has no name".to_owned()) } else { Ok((name.to_owned(), SecretText(value))) }
}

/// Which submodules are fetched, by its name in the API.
pub(crate) fn submodules() -> impl TypedValueParser<Value = Submodules> {
    PossibleValuesParser::new(["none", "shallow", "recursive"]).map(|name| match name.as_str() {
        "shallow" => Submodules::Shallow,
        "recursive" => Submodules::Recursive,
        _ => Submodules::None,
    })
}

/// A text given as `argument`, or in a file.
pub(crate) fn text(argument: &str, given: Option<&str>, file: Option<&Path>) -> Result<Option<String>, CliError> {
    match given {
        Some(text) => checked(argument, text.to_owned()).map(Some),
        None => text_of("--file", file),
    }
}

/// A script in the file that `flag` names, which may be empty.
pub(crate) fn script_of(flag: &str, file: Option<&Path>) -> Result<Option<String>, CliError> {
    let Some(text) = file.map(|file| read(flag, file)).transpose()? else { return Ok(None) };
    if text.contains('\0') {
        return Err(CliError::Usage(format!("{flag}: contains a NUL")));
    }
    Ok(Some(text))
}

/// A text in the file that `flag` names.
pub(crate) fn text_of(flag: &str, file: Option<&Path>) -> Result<Option<String>, CliError> {
    file.map(|file| checked(flag, read(flag, file)?)).transpose()
}

fn checked(source: &str, text: String) -> Result<String, CliError> {
    if text.trim().is_empty() {
        return Err(CliError::Usage(format!("{source}: is empty")));
    }
    if text.contains('\0') {
        return Err(CliError::Usage(format!("{source}: contains a NUL")));
    }
    Ok(text)
}

fn read(flag: &str, path: &Path) -> Result<String, CliError> {
    let wrong = |problem: String| CliError::Usage(format!("{flag}: {}: {problem}", path.display()));
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| wrong(error.to_string()))?)
    };
    let mut bytes = Vec::new();
    source.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(wrong("has more than 1 MiB".to_owned()));
    }
    decoded(bytes).map_err(wrong)
}

/// The text in a file, without the byte order mark that some editors put before UTF-8.
fn decoded(mut bytes: Vec<u8>) -> Result<String, String> {
    // Latin text in UTF-16 without a byte order mark has NUL in every other byte.
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe])
        || bytes.starts_with(&[0xfe, 0xff])
        || (bytes.len() > 2
            && bytes.len().is_multiple_of(2)
            && bytes.chunks_exact(2).take(32).all(|pair| (pair[0] == 0) != (pair[1] == 0)));
    if is_utf16 {
        return Err("is UTF-16, not UTF-8; save it as UTF-8".to_owned());
    }
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8 (byte {})", error.utf8_error().valid_up_to()))
}

/// Permissions in a file.
pub(crate) fn permissions(file: Option<&Path>) -> Result<Option<Permissions>, CliError> {
    let read = |text: String| {
        serde_json::from_str(&text).map_err(|error| CliError::Usage(format!("--permissions: is not right: {error}")))
    };
    text_of("--permissions", file)?.map(read).transpose()
}

/// What is said about models, in a file.
pub(crate) fn models(file: Option<&Path>) -> Result<Option<ModelRules>, CliError> {
    let read =
        |text: String| serde_json::from_str(&text).map_err(|e| CliError::Usage(format!("--models: is not right: {e}")));
    text_of("--models", file)?.map(read).transpose()
}

/// An amount of money, in millionths.
pub(crate) fn amount(text: &str) -> Result<u64, String> {
    let wrong = || "must be an amount such as 20 or 2.50, with at most 6 decimals".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 6 || text.ends_with('.') || !is_number(whole) || !is_number(decimals) {
        return Err(wrong());
    }
    let micros: u64 = format!("{whole}{decimals:0<6}").parse().map_err(|_| wrong())?;
    if micros > MAX_LIMIT { Err("must be at most 1000000000".to_owned()) } else { Ok(micros) }
}

/// A label's `key=value`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    if key.is_empty() {
        return Err("must be KEY=VALUE".to_owned());
    }
    if key.ends_with('!') {
        return Err("must be KEY=VALUE: '!=' is not supported".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Pairs by key; a key given twice is refused, as one of its values would be lost.
pub(crate) fn by_key<V>(
    flag: &str,
    pairs: impl IntoIterator<Item = (String, V)>,
) -> Result<BTreeMap<String, V>, CliError> {
    let mut all = BTreeMap::new();
    for (key, value) in pairs {
        if all.contains_key(&key) {
            return Err(CliError::Usage(format!("{flag}: '{key}' is given twice")));
        }
        all.insert(key, value);
    }
    Ok(all)
}

/// Which part of a list.
#[derive(Debug, Clone, Default, Args)]
pub struct Paging {
    /// Page number, from 1
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) page: Option<u32>,
    /// Maximum number of items per page
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=65_500))]
    pub(crate) size: Option<u32>,
}

impl Paging {
    pub(crate) fn of(&self, route: Route) -> Route {
        route.query("page", self.page).query("size", self.size)
    }
}

/// `PROGRAM ARGUMENT…`.
pub(crate) fn agent_command(text: &str) -> Result<AgentCommand, String> {
    let mut words = text.split_whitespace().map(str::to_owned);
    let program = words.next().ok_or("it is empty")?;
    Ok(AgentCommand { program, args: words.collect(), directory: None })
}

/// `open`, `none`, or hosts separated by commas.
pub(crate) fn network(text: &str) -> Result<Network, String> {
    let words = || text.split(',').map(str::trim);
    if words().count() > 1
        && let Some(mode) = words().find(|word| ["open", "none"].contains(word))
    {
        return Err(format!("'{mode}' stands alone; a list has hosts only"));
    }
    text.parse().map_err(|problem: Problem| format!("{} {}", problem.field, problem.reason))
}

/// `URL`, `URL#BRANCH`, `URL#BRANCH:FOLDER` or `URL#:FOLDER`.
pub(crate) fn playbook(text: &str) -> Result<Playbook, String> {
    let (url, place) = text.split_once('#').unwrap_or((text, ""));
    let (branch, path) = place.split_once(':').unwrap_or((place, ""));
    if url.is_empty() {
        return Err("has no URL".to_owned());
    }
    let branch = Some(branch.to_owned()).filter(|branch| !branch.is_empty());
    Ok(Playbook { git_url: url.to_owned(), branch, path: path.trim_matches('/').to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff}```sh\r\nmake\r\n```").unwrap();
        let text = Text { prompt: None, file: Some(file.path().to_owned()) }.read().unwrap();
        assert_eq!(text.as_deref(), Some("```sh\r\nmake\r\n```"));
    }

    #[test]
    fn a_text_that_cannot_be_sent_is_refused_with_its_flag() {
        let directory = tempfile::tempdir().unwrap();
        let wrong = |content: &[u8]| {
            let file = directory.path().join("task.md");
            std::fs::write(&file, content).unwrap();
            let error = Text { prompt: None, file: Some(file) }.read().unwrap_err().to_string();
            error.replace(directory.path().to_str().unwrap(), "")
        };
        insta::assert_snapshot!(wrong(b" \n"), @"--file: is empty");
        insta::assert_snapshot!(wrong(b"\xef\xbb\xbf \n"), @"--file: is empty");
        for utf16 in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a", b"\xff\xfe\0\0a\0\0\0", b"a\0b\0c\0", b"\0a\0b"] {
            assert_eq!(wrong(utf16), "--file: /task.md: is UTF-16, not UTF-8; save it as UTF-8");
        }
        insta::assert_snapshot!(wrong(b"ab\xff"), @"--file: /task.md: is not UTF-8 (byte 2)");
        insta::assert_snapshot!(wrong(b"a\0b"), @"--file: contains a NUL");
        insta::assert_snapshot!(wrong(&vec![b'a'; (1 << 20) + 1]), @"--file: /task.md: has more than 1 MiB");
        let absent = Text { prompt: None, file: Some("no-such-file".into()) }.read().unwrap_err();
        insta::assert_snapshot!(absent, @"--file: no-such-file: No such file or directory (os error 2)");
        assert_eq!(absent.exit(), crate::Exit::Usage);
        assert_eq!(Text::default().read().unwrap(), None);
    }

    #[test]
    fn an_amount_is_read_exactly() {
        let good = [("20", 20_000_000), ("2.50", 2_500_000), ("0.000001", 1), ("0", 0), ("1000000000", MAX_LIMIT)];
        for (text, micros) in good {
            assert_eq!(amount(text), Ok(micros), "{text}");
        }
        for text in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000001", "1000000000.000001", "99999999999999999999"]
        {
            assert!(amount(text).is_err(), "{text}");
        }
    }
}
