//! Submodules: what a repository's commit names is fetched into mirrors of ours, one each, under the same checks as a session's own
//! repositories; the clones in the workspace are made by the agent's git, laid out as git itself would.

mod declared;

use std::{os::unix::fs::DirBuilderExt, path::Path, time::Duration};

use ambient_wire::git::{InSubmodule, LeftOut, Submodules};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use self::declared::{Declared, Source};
use super::{
    FETCH,
    command::{Git, GitError},
    large_files,
    mirror::{Mirror, of_submodules, place},
    origin::{self, Origin},
};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
};

/// For all submodules of a repository; less than the server waits for a clone.
const PATIENCE: Duration = Duration::from_secs(240);
/// Timeout for checking one's origin.
const LOOK_PATIENCE: Duration = Duration::from_secs(60);
/// Most submodules per repository, at any depth.
pub(super) const MAX: usize = 100;
pub(super) const MAX_DEPTH: usize = 8;
/// Most that are named with the reason they are missing; of the others only the number is given.
const MAX_NAMED: usize = 4;
/// Most whose commits a push looks for.
const MAX_LOOKED_FOR: usize = 20;
/// Where a mirror without history has its commit.
const RECORDED: &str = "refs/heads/recorded";

/// A submodule that exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Module {
    /// Folder in the repository.
    pub(super) path: String,
    pub(super) url: String,
    /// Name of its mirror.
    pub(super) mirror: String,
}

/// The outcome for a repository's submodules.
#[derive(Default)]
pub(super) struct Added {
    pub(super) modules: Vec<Module>,
    /// What is missing, in words.
    pub(super) notices: Vec<String>,
}

/// Fetches the submodules of a commit and clones them into the agent's clone of the repository. What cannot be fetched is reported, and
/// fails nothing.
pub(super) async fn add(repository: Repository<'_>, mirror: &Mirror<'_>, url: &str, commit: &str) -> Added {
    let mut adding = Adding { repository, added: Added::default(), failed: Vec::new(), seen: 0 };
    let parent = Parent { url: url.to_owned(), commit: commit.to_owned(), path: String::new(), depth: 0 };
    let deadline = Instant::now() + PATIENCE;
    if timeout_at(deadline, adding.all(parent, mirror.name())).await.is_err() {
        adding.failed.push((String::new(), format!("they took longer than {} s", PATIENCE.as_secs())));
    }
    adding.finish().await
}

/// The repository whose submodules they are.
#[derive(Clone, Copy)]
pub(super) struct Repository<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) name: &'a str,
    pub(super) how: Submodules,
    /// The agent's clone.
    pub(super) clone: &'a Path,
}

/// A repository whose submodules are to be examined.
struct Parent {
    url: String,
    commit: String,
    /// Within the whole; empty for the outermost.
    path: String,
    depth: usize,
}

struct Adding<'a> {
    repository: Repository<'a>,
    added: Added,
    failed: Vec<(String, String)>,
    seen: usize,
}

impl Adding<'_> {
    async fn all(&mut self, outermost: Parent, mirror: String) {
        let mut left = vec![(outermost, mirror)];
        while let Some((parent, mirror)) = left.pop() {
            let declared = match self.declared(&parent, &mirror).await {
                Ok(declared) => declared,
                Err(error) => {
                    self.failed.push((parent.path.clone(), format!("its submodules cannot be read: {error}")));
                    continue;
                }
            };
            if declared.is_empty() || (parent.depth > 0 && self.repository.how == Submodules::Shallow) {
                if !declared.is_empty() {
                    let why = "submodules of submodules are not fetched when they are to be shallow";
                    self.failed.push((parent.path.clone(), why.to_owned()));
                }
                continue;
            }
            for Declared { path, commit, source } in declared {
                let path = if parent.path.is_empty() { path } else { format!("{}/{path}", parent.path) };
                self.seen += 1;
                let added = match source {
                    Err(why) => Err(why),
                    Ok(_) if self.seen > MAX => Err(format!("more than {MAX} are not fetched")),
                    Ok(_) if parent.depth == MAX_DEPTH => Err(format!("more than {MAX_DEPTH} levels are not fetched")),
                    Ok(source) => self.one(&parent, &path, &commit, source).await.map_err(|error| error.to_string()),
                };
                match added {
                    Ok(module) => {
                        let (url, mirror) = (module.url.clone(), module.mirror.clone());
                        left.push((Parent { url, commit, path, depth: parent.depth + 1 }, mirror));
                        self.added.modules.push(module);
                    }
                    Err(why) => self.failed.push((path, why)),
                }
            }
        }
    }

    async fn declared(&self, parent: &Parent, mirror: &str) -> Result<Vec<Declared>> {
        let mirror = Mirror::open(self.repository.attempt, mirror)?;
        declared::read(&mirror.git(false, Vec::new()), &parent.commit, &parent.url).await
    }

    async fn one(&mut self, parent: &Parent, path: &str, commit: &str, source: Source) -> Result<Module> {
        let Repository { attempt, name, how, clone } = self.repository;
        let Source { name: section, url } = source;
        let origin = origin::open(attempt, &url)?;
        let folder = of_submodules(attempt, name);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder);
        made.and_then(|()| open_to_all(&folder)).map_err(|e| Error::io("cannot make a folder for mirrors", &e))?;
        let own = format!("{name}.modules/{}", self.seen);
        let mirror = match how {
            Submodules::Recursive => whole(attempt, &own, &origin, commit).await?,
            _ => recorded(attempt, &own, &origin, commit).await?,
        };
        let content = large_files::prepare(attempt, &mirror, &origin, Some(commit)).await?;
        let within = clone.join(path);
        check_out(attempt, &mirror, &within, &url, commit, how).await?;
        // As `git submodule init` does.
        let outer = clone.join(&parent.path);
        for (key, value) in [("url", url.as_str()), ("active", "true")] {
            Git::agents(attempt, &outer).run(&["config", &format!("submodule.{section}.{key}"), value]).await?;
        }
        let misplaced = large_files::check_out(attempt, &within, &content).await;
        let notices = content.notices.into_iter().chain(misplaced).map(|notice| format!("submodule {path}: {notice}"));
        self.added.notices.extend(notices);
        Ok(Module { path: path.to_owned(), url, mirror: own })
    }

    async fn finish(mut self) -> Added {
        if !self.added.modules.is_empty() {
            let git = Git::agents(self.repository.attempt, self.repository.clone).patience(LOOK_PATIENCE);
            // Where git puts them, `.git/modules`, with everything that belongs to it.
            if let Err(error) = git.run(&["submodule", "--quiet", "absorbgitdirs"]).await {
                self.added.notices.push(format!("submodules keep their repositories within their folders: {error}"));
            }
        }
        let named = |(path, why): &(String, String)| format!("{path}: {why}");
        let mut told: Vec<_> = self.failed.iter().take(MAX_NAMED).map(named).collect();
        if self.failed.len() > MAX_NAMED {
            told.push(format!("{} more", self.failed.len() - MAX_NAMED));
        }
        if !told.is_empty() {
            self.added.notices.push(format!("submodules are not all here: {}", told.join("; ")));
        }
        self.added
    }
}

fn open_to_all(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// A mirror with the full history, and with that commit.
async fn whole<'a>(attempt: &'a Attempt, name: &str, origin: &Origin, commit: &str) -> Result<Mirror<'a>> {
    let mirror = Mirror::create(attempt, name, origin, None).await?;
    if !mirror.has(commit).await? {
        fetch(&mirror, origin, commit, &[], PATIENCE).await?;
    }
    Ok(mirror)
}

/// A mirror with that commit, and nothing before it.
async fn recorded<'a>(attempt: &'a Attempt, name: &str, origin: &Origin, commit: &str) -> Result<Mirror<'a>> {
    let mirror = Mirror::make(attempt, name).await?;
    let init = ["init", "--quiet", "--bare", "--template=", object_format(commit), "."];
    mirror.git(true, Vec::new()).run(&init).await?;
    fetch(&mirror, origin, &format!("{commit}:{RECORDED}"), &["--depth=1"], PATIENCE).await?;
    Ok(mirror)
}

/// The option of `git init` for a repository that has this commit.
fn object_format(commit: &str) -> &'static str {
    if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" }
}

async fn fetch(mirror: &Mirror<'_>, origin: &Origin, what: &str, how: &[&str], patience: Duration) -> Result<()> {
    let git = origin.allow(mirror.git(true, origin.readable())).patience(patience);
    let upload = origin.upload_pack();
    let upload: Vec<_> = upload.as_deref().into_iter().collect();
    match git.run(&[&FETCH[..], how, &upload, &["--", &origin.url, what]].concat()).await {
        Ok(_) => Ok(()),
        Err(GitError::Failed { stderr, .. }) if stderr.contains("not our ref") => {
            Err(Error::Git("its origin does not have the recorded commit".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// The clone in the workspace, made by the agent's git.
async fn check_out(
    attempt: &Attempt,
    mirror: &Mirror<'_>,
    to: &Path,
    url: &str,
    commit: &str,
    how: Submodules,
) -> Result<()> {
    let (source, target) = (mirror.path().to_string_lossy(), to.to_string_lossy());
    let git = |at: &Path| Git::agents(attempt, at).patience(PATIENCE).variable("GIT_ALLOW_PROTOCOL", "file");
    match how {
        Submodules::Recursive => {
            let clone = ["clone", "--quiet", "--shared", "--no-checkout", "--template=", "--no-recurse-submodules"];
            git(&attempt.paths.tmp()).run(&[&clone[..], &["--origin=origin", "--", &source, &target]].concat()).await?;
            git(to).run(&["config", "remote.origin.url", url]).await?;
        }
        _ => {
            let init = ["init", "--quiet", "--template=", object_format(commit), "--", &target];
            git(&attempt.paths.tmp()).run(&init).await?;
            git(to).run(&["remote", "add", "origin", url]).await?;
            git(to).run(&[&FETCH[..], &["--", &source, RECORDED]].concat()).await?;
        }
    }
    git(to).run(&["checkout", "--quiet", "--detach", commit]).await?;
    Ok(())
}

/// Remarks on a commit being pushed, by submodule: it points to commits that their origins do not have. `git` sees it
/// and the previous commit.
///
/// # Errors
/// Git's.
pub(super) async fn unpublished(
    attempt: &Attempt,
    git: &Git<'_>,
    modules: &[Module],
    commit: &str,
    before: Option<&str>,
) -> Result<Vec<(String, String)>> {
    let mut links = declared::links(git, commit).await?;
    if let (false, Some(before)) = (links.is_empty(), before) {
        let known = declared::links(git, before).await?;
        links.retain(|path, commit| known.get(path) != Some(commit));
    }
    let mut notices = Vec::new();
    let more = links.len().saturating_sub(MAX_LOOKED_FOR);
    for (path, commit) in links.into_iter().take(MAX_LOOKED_FOR) {
        let told = match modules.iter().find(|module| module.path == path) {
            None => Some("whether its origin has that is not known, because it was not fetched here".to_owned()),
            Some(module) => match at_its_origin(attempt, module, &commit).await {
                Ok(true) => None,
                Ok(false) => Some(format!("{} does not have it: commits in submodules are not pushed", module.url)),
                Err(error) => Some(format!("whether its origin has that is not known: {error}")),
            },
        };
        let notice = told.map(|told| format!("submodule {path} is at commit {}: {told}", &commit[..12]));
        notices.extend(notice.map(|notice| (path, notice)));
    }
    if more > 0 {
        notices.push((String::new(), format!("{more} more submodules have changed, and were not looked at")));
    }
    Ok(notices)
}

/// Remarks on submodules in the working tree at a push: their contents are not in it. For those in `told` it is already known
/// that their origins lack commits.
pub(super) fn not_in_a_push(left_out: &[LeftOut], told: &[(String, String)]) -> Vec<String> {
    let held = left_out.iter().filter_map(|left| Some((&left.path, left.submodule?)));
    let held = held.map(|(path, held)| match told.iter().any(|(known, _)| known == path) {
        true => (path, InSubmodule { unpublished: Some(0), ..held }),
        false => (path, held),
    });
    let held: Vec<_> = held.filter(|(_, held)| !held.words().is_empty()).collect();
    let more = held.len().saturating_sub(MAX_LOOKED_FOR);
    let named = held.iter().take(MAX_LOOKED_FOR);
    let named = named.map(|(path, held)| format!("submodule {path} {}", held.words()));
    named.chain((more > 0).then(|| format!("{more} more submodules have work of their own"))).collect()
}

/// Whether the origin has a commit: nothing else gets into a submodule's mirror.
async fn at_its_origin(attempt: &Attempt, module: &Module, commit: &str) -> Result<bool> {
    let mirror = Mirror::open(attempt, &module.mirror)?;
    if mirror.has(commit).await? {
        return Ok(true);
    }
    let origin = origin::open(attempt, &module.url)?;
    // Other parts of the history that a mirror without history has would be no use to it either.
    let how: &[&str] = if place(attempt, &module.mirror).join("shallow").exists() { &["--depth=1"] } else { &[] };
    match fetch(&mirror, &origin, commit, how, LOOK_PATIENCE).await {
        Ok(()) => mirror.has(commit).await,
        Err(Error::Git(why)) if why.contains("does not have the recorded commit") => Ok(false),
        Err(error) => Err(error),
    }
}
