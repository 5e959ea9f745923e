//! `--repo`: a URL unchanged, or a local folder as a `file://` URL.

use std::path::{Path, PathBuf};

use ambient_wire::git_url;
use url::Url;

use crate::error::CliError;

/// A repository as given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepoUrl {
    /// `https://…` or `file:///…`.
    pub(crate) url: String,
    /// Top folder, if it is a local working tree.
    pub(crate) working_tree: Option<PathBuf>,
}

/// Turns what the user gave to `flag` into a repository's URL.
pub(crate) fn resolve(flag: &str, given: &str) -> Result<RepoUrl, CliError> {
    let wrong = |problem: String| CliError::Usage(format!("{flag}: {problem}"));
    if given.is_empty() {
        return Err(wrong("must not be empty".to_owned()));
    }
    if given.contains("://") {
        git_url::check(given).map_err(|problem| wrong(format!("the URL {problem}")))?;
        return Ok(RepoUrl { url: given.to_owned(), working_tree: None });
    }
    let path = std::fs::canonicalize(given).map_err(|error| wrong(cannot_open(given, &error)))?;
    let top = top_level(&path)
        .ok_or_else(|| wrong(format!("'{given}' is not in a git repository; 'git init' creates one")))?;
    let url =
        Url::from_file_path(&top).map_err(|()| wrong(format!("'{}' cannot be written as a URL", top.display())))?;
    let working_tree = top.join(".git").exists().then(|| top.clone());
    Ok(RepoUrl { url: url.to_string(), working_tree })
}

fn cannot_open(given: &str, error: &std::io::Error) -> String {
    // Something `git clone` accepts besides URLs but sessions do not, or an invalid URL. Not repeated here: it may contain a password,
    // and terminals are recorded.
    if given.contains('@') && given.contains(':') {
        return "this looks like ssh, or contains credentials; neither is supported, use a plain https:// URL"
            .to_owned();
    }
    format!("cannot open '{given}': {error}")
}

/// The nearest folder that is a repository, from `path` upwards.
fn top_level(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|folder| is_repository(folder)).map(Path::to_owned)
}

fn is_repository(folder: &Path) -> bool {
    let git = folder.join(".git");
    // A `.git` file points elsewhere: worktrees and submodules.
    let linked = || std::fs::read_to_string(&git).is_ok_and(|text| text.starts_with("gitdir:"));
    is_git_directory(&git) || is_git_directory(folder) || linked()
}

fn is_git_directory(folder: &Path) -> bool {
    folder.join("HEAD").is_file() && folder.join("objects").is_dir() && folder.join("refs").is_dir()
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    fn git(folder: &Path, arguments: &[&str]) {
        let done = Command::new("git").arg("-C").arg(folder).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    #[test]
    fn a_folder_becomes_the_url_of_its_repository() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let work = root.join("my wörk");
        fs::create_dir_all(work.join("deep/er")).unwrap();
        git(&work, &["init", "-q"]);
        let expected = format!("file://{}/my%20w%C3%B6rk", root.display());
        for inside in [work.clone(), work.join("deep/er")] {
            let found = resolve("--repo", inside.to_str().unwrap()).unwrap();
            assert_eq!((found.url.as_str(), found.working_tree.as_deref()), (expected.as_str(), Some(work.as_path())));
        }
        // git itself can read such a URL.
        git(&root, &["clone", "-q", &expected, "copy"]);

        git(&root, &["init", "-q", "--bare", "bare.git"]);
        let bare = resolve("--repo", root.join("bare.git").to_str().unwrap()).unwrap();
        assert_eq!(bare, RepoUrl { url: format!("file://{}/bare.git", root.display()), working_tree: None });

        git(&work, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"]);
        git(&work, &["worktree", "add", "-q", "../tree"]);
        let tree = resolve("--repo", root.join("tree").to_str().unwrap()).unwrap();
        assert_eq!(tree.url, format!("file://{}/tree", root.display()));
    }

    #[test]
    fn urls_stay_as_they_are() {
        for url in ["https://example.org/a/b.git", "file:///srv/git/a"] {
            assert_eq!(resolve("--repo", url).unwrap().url, url);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_the_flag() {
        let directory = tempfile::tempdir().unwrap();
        let wrong = |given: &str| {
            let error = resolve("--repo", given).unwrap_err();
            assert_eq!(error.exit(), crate::Exit::Usage);
            error.to_string().replace(directory.path().to_str().unwrap(), "")
        };
        insta::assert_snapshot!(wrong(""), @"--repo: must not be empty");
        insta::assert_snapshot!(wrong("./no/such/folder"), @"--repo: cannot open './no/such/folder': No such file or directory (os error 2)");
        insta::assert_snapshot!(wrong(directory.path().to_str().unwrap()), @"--repo: '' is not in a git repository; 'git init' creates one");
        insta::assert_snapshot!(wrong("git@example.org:a/b.git"), @"--repo: this looks like ssh, or contains credentials; neither is supported, use a plain https:// URL");
        insta::assert_snapshot!(wrong("ssh://example.org/a"), @"--repo: the URL must begin with https:// or file:///");
        insta::assert_snapshot!(wrong("https://"), @"--repo: the URL must name a host (letters, digits, '-' and '.') and optionally a port after https://");
        for secret in [
            "https://me:s3cret@example.org/a",
            "https://me:ab/s3cret@example.org/a",
            r"https:\\me:s3cret@example.org",
            "HTTPS://s3cret@h/x",
        ] {
            assert!(!wrong(secret).contains("s3cret"), "{secret}");
        }
    }
}
