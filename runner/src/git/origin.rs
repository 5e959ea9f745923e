//! Where a repository comes from: `https://…` or `file:///…` and nothing else.

use std::path::{Path, PathBuf};

use url::Url;

use super::command::{Git, quoted};
use crate::{
    app::App,
    error::{Error, Result},
    life,
};

const MAX_URL: usize = 2048;

/// A checked URL.
#[derive(Debug)]
pub(crate) struct Origin {
    /// As it was given.
    pub(crate) text: String,
    /// As git gets it.
    pub(crate) url: String,
    /// Directories of a `file://` origin: the repository and what it borrows from.
    pub(crate) paths: Vec<PathBuf>,
}

/// Checks a URL.
///
/// # Errors
/// Bad input that names `url`.
pub(crate) fn check(app: &App, text: &str) -> Result<Origin> {
    let url = parse(text)?;
    let mut paths = Vec::new();
    if url.scheme() == "file" {
        let path = url.to_file_path().map_err(|()| bad("is not a path on this host"))?;
        let path = std::fs::canonicalize(&path).map_err(|e| bad(&format!("{}: {e}", path.display())))?;
        if !path.is_dir() {
            return Err(bad("is not a directory"));
        }
        paths = with_borrowed(path);
        let projects = projects(app);
        if paths.iter().any(|path| path.starts_with(&projects)) {
            return Err(bad("points into the directory of the sessions"));
        }
    }
    Ok(Origin { text: text.to_owned(), url: url.to_string(), paths })
}

fn parse(text: &str) -> Result<Url> {
    if text.is_empty() || text.len() > MAX_URL || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(bad(&format!("1 to {MAX_URL} bytes without spaces and control characters")));
    }
    if text.starts_with('-') {
        return Err(bad("begins with '-'"));
    }
    let url = Url::parse(text).map_err(|e| bad(&format!("is not a URL: {e}")))?;
    if !matches!(url.scheme(), "https" | "file") {
        return Err(bad("must begin with https:// or file:///"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("must not contain credentials"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("must not have a query or fragment"));
    }
    if url.scheme() == "file" && (url.host().is_some() || !text.starts_with("file:///") || text.contains("%00")) {
        return Err(bad("must be file:/// and an absolute path"));
    }
    Ok(url)
}

fn bad(reason: &str) -> Error {
    Error::bad("url", reason)
}

/// `{data}/projects`, where compute has laid the session out: sessions may not read each other's workspaces by way of a
/// URL. Elsewhere the session's own directory.
fn projects(app: &App) -> PathBuf {
    let root = &app.paths.root;
    let laid_out = |path: &&Path| path.ends_with("projects") && root.parent().is_some_and(|p| p.ends_with("sessions"));
    let directory = root.ancestors().nth(3).filter(laid_out).unwrap_or(root);
    std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned())
}

/// A linked worktree's repository is elsewhere, and so are the objects a shared clone borrows.
fn with_borrowed(path: PathBuf) -> Vec<PathBuf> {
    let mut git = path.join(".git");
    let mut paths = vec![path.clone()];
    if let Some(linked) = first_line(&git).and_then(|line| line.strip_prefix("gitdir: ").map(|to| path.join(to))) {
        git = linked;
    }
    let git = if git.is_dir() { git } else { path };
    let common = first_line(&git.join("commondir")).map_or_else(|| git.clone(), |to| git.join(to));
    let alternates = std::fs::read_to_string(common.join("objects/info/alternates")).unwrap_or_default();
    let objects = common.join("objects");
    let borrowed = alternates.lines().map(|line| objects.join(line)).collect::<Vec<_>>();
    paths.extend([git, common].into_iter().chain(borrowed).filter_map(|path| std::fs::canonicalize(path).ok()));
    paths.sort();
    paths.dedup();
    paths
}

fn first_line(path: &Path) -> Option<String> {
    if !path.is_file() {
        return None;
    }
    std::fs::read_to_string(path).ok()?.lines().next().map(str::to_owned)
}

impl Origin {
    /// Lets git read this origin, also when it belongs to another user (`safe.directory`, for these paths only). A file,
    /// because git clears `GIT_CONFIG_COUNT` for the process on the other side of `file://`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open_to<'a>(&self, app: &'a App, name: &str, git: Git<'a>) -> Result<Git<'a>> {
        if self.paths.is_empty() {
            return Ok(git);
        }
        let file = app.paths.repos().join(format!("{name}.gitconfig"));
        let mut text = "[core]\n\thooksPath = /dev/null\n[safe]\n".to_owned();
        for path in self.paths.iter().flat_map(|path| [path.clone(), path.join(".git")]) {
            text.push_str(&format!("\tdirectory = {}\n", quoted(&path)));
        }
        let write = || -> std::io::Result<()> {
            let _ = std::fs::remove_file(&file);
            std::io::Write::write_all(&mut life::create_new(&file)?, text.as_bytes())
        };
        write().map_err(|e| Error::io("cannot write the origin's git configuration", &e))?;
        Ok(git.readable(&self.paths).readable(std::slice::from_ref(&file)).variable("GIT_CONFIG_GLOBAL", &file))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_plain_https_and_file_urls_are_taken() {
        for url in ["https://example.com/a/b.git", "https://example.com:8443/a", "file:///srv/a%20b.git"] {
            assert!(parse(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "-u",
            "--upload-pack=x",
            "ext::sh -c id",
            "ext::sh",
            "ssh://h/x",
            "git@h:x",
            "http://h/x",
            "git://h/x",
            "https://u@h/x",
            "https://u:p@h/x",
            "https://h/x?ext::y",
            "https://h/x#y",
            "file://h/x",
            "file:x",
            "/srv/x",
            "../x",
            "file:///x\n",
            "file:///a b",
            "https:///",
            "file:///a%00b",
            "data:,x",
            "fd::3",
        ] {
            assert!(parse(url).is_err(), "{url:?}");
        }
    }
}
