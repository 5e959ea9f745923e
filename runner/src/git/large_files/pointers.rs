//! Which files of a commit, or of commits to be pushed, are kept with Git LFS: read by our git from the mirror.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{command::Git, directory::Directory};
use crate::{
    error::{Error, Result},
    lfs::pointer::{MAX_POINTER, MIN_POINTER, Object, parse},
};

/// Largest list of files, bytes.
const MAX_LIST: usize = 32 * 1024 * 1024;
/// Most small files that are examined.
const MAX_SMALL: usize = 200_000;

/// Paths by the object that belongs at them.
pub(super) type Pointers = BTreeMap<Object, Vec<u8>>;

/// A blob and where it is.
struct Blob {
    name: String,
    path: Vec<u8>,
}

/// Pointers in a commit's tree, at paths that its attributes assign to LFS, with one of their paths each.
///
/// # Errors
/// Git's; too many.
pub(super) async fn of_commit(git: &Git<'_>, scratch: &Directory, commit: &str) -> Result<Pointers> {
    let list = git.clone().most(MAX_LIST).only(|entry| small_file(entry).is_some());
    let list = list.run(&["ls-tree", "-r", "-l", "-z", "--full-tree", commit]).await?;
    let blobs: Vec<_> = list.split(|byte| *byte == 0).filter_map(small_file).collect();
    let blobs = with_attribute(git, scratch, commit, limited(blobs)?).await?;
    read(git, blobs).await
}

/// Pointers that are in the commit's history and not in the others', at paths that the commit's attributes assign to LFS.
///
/// # Errors
/// Git's; too many.
pub(super) async fn of_push(
    git: &Git<'_>,
    scratch: &Directory,
    commit: &str,
    expected: Option<&str>,
) -> Result<Pointers> {
    let mut arguments = vec!["rev-list", "--objects", commit, "--not", "--all"];
    arguments.extend(expected);
    let list = git.clone().most(MAX_LIST).run(&arguments).await?;
    let named = list.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b' ')?;
        let name = std::str::from_utf8(&line[..at]).ok()?.to_owned();
        Some(Blob { name, path: line[at + 1..].to_vec() }).filter(|blob| !blob.path.is_empty())
    });
    let mut named: Vec<_> = named.collect();
    let names: String = named.iter().flat_map(|blob| [&blob.name, "\n"]).collect();
    let format = "--batch-check=%(objecttype) %(objectsize)";
    let about = git.clone().most(MAX_LIST).input(names).text(&["cat-file", format]).await?;
    let mut about = about.lines();
    named.retain(|_| {
        let size = about.next().and_then(|line| line.strip_prefix("blob ")).and_then(|size| size.parse().ok());
        size.is_some_and(is_small)
    });
    let pointers = read(git, limited(named)?).await?;
    if pointers.is_empty() {
        return Ok(pointers);
    }
    let blobs = pointers.values().map(|path| Blob { name: String::new(), path: path.clone() }).collect();
    let paths: BTreeSet<_> = with_attribute(git, scratch, commit, blobs).await?.into_iter().map(|b| b.path).collect();
    Ok(pointers.into_iter().filter(|(_, path)| paths.contains(path)).collect())
}

fn limited(blobs: Vec<Blob>) -> Result<Vec<Blob>> {
    if blobs.len() > MAX_SMALL {
        return Err(Error::TooLarge(format!("more than {MAX_SMALL} small files to look into for Git LFS")));
    }
    Ok(blobs)
}

fn is_small(size: u64) -> bool {
    (MIN_POINTER..MAX_POINTER).contains(&size)
}

/// `mode type object size\tpath` of a file that may be a pointer.
fn small_file(entry: &[u8]) -> Option<Blob> {
    let tab = entry.iter().position(|byte| *byte == b'\t')?;
    let mut fields = std::str::from_utf8(&entry[..tab]).ok()?.split_ascii_whitespace();
    let (mode, _, name, size) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let fits = mode.starts_with("100") && size.parse().is_ok_and(is_small);
    fits.then(|| Blob { name: name.to_owned(), path: entry[tab + 1..].to_vec() })
}

/// Those at paths that the commit's attributes assign to LFS. Uses its own index, because this git has no working tree to read
/// attributes from.
async fn with_attribute(git: &Git<'_>, scratch: &Directory, commit: &str, blobs: Vec<Blob>) -> Result<Vec<Blob>> {
    if blobs.is_empty() {
        return Ok(blobs);
    }
    let index = scratch.path.join("lfs-index");
    let git = git.clone().variable("GIT_INDEX_FILE", &index);
    git.clone().run(&["read-tree", commit]).await?;
    let mut paths = Vec::new();
    for blob in &blobs {
        paths.extend_from_slice(&blob.path);
        paths.push(0);
    }
    let told = git.most(MAX_LIST).input(paths).run(&["check-attr", "--cached", "--stdin", "-z", "filter"]).await;
    let _ = std::fs::remove_file(&index);
    let told = told?;
    // Path, attribute, value.
    let mut fields = told.split(|byte| *byte == 0);
    let mut kept = Vec::new();
    for blob in blobs {
        let (path, _, value) = (fields.next(), fields.next(), fields.next());
        if path != Some(&blob.path[..]) {
            return Err(Error::Git("git check-attr gave unexpected output".to_owned()));
        }
        if value == Some(b"lfs") {
            kept.push(blob);
        }
    }
    Ok(kept)
}

/// The blobs that are pointers.
async fn read(git: &Git<'_>, blobs: Vec<Blob>) -> Result<Pointers> {
    let mut pointers = Pointers::new();
    // As many as the response has room for.
    for some in blobs.chunks(MAX_LIST / 2048) {
        let names: String = some.iter().flat_map(|blob| [&blob.name, "\n"]).collect();
        let content = git.clone().most(MAX_LIST).input(names).run(&["cat-file", "--batch=%(objectsize)"]).await?;
        let mut rest = &content[..];
        for blob in some {
            let wrong = || Error::Git("git cat-file gave unexpected output".to_owned());
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(wrong)?;
            let size: usize = std::str::from_utf8(&rest[..end]).ok().and_then(|s| s.parse().ok()).ok_or_else(wrong)?;
            let body = rest.get(end + 1..end + 1 + size).ok_or_else(wrong)?;
            rest = rest.get(end + size + 2..).ok_or_else(wrong)?;
            if let Some(object) = parse(body) {
                pointers.entry(object).or_insert_with(|| blob.path.clone());
            }
        }
    }
    Ok(pointers)
}
