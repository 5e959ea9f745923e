//! Diffs that apply byte for byte, however the repository's configuration says they are shown.

use super::command::{Git, GitError};

/// Flags that override the repository's configuration and attributes.
pub(super) const EXACTLY: [&str; 13] = [
    "diff",
    "--binary",
    "--full-index",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--no-relative",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--unified=3",
    "--inter-hunk-context=0",
    "--submodule=short",
    "--ignore-submodules=dirty",
];

/// The start of a patch from a commit (none: nothing at all) to what the other arguments name; and whether it was cut. A cut one
/// ends with a complete line.
///
/// # Errors
/// Git's.
pub(super) async fn since(
    git: Git<'_>,
    base: Option<&str>,
    others: (&[&str], &[&str]),
    most: usize,
) -> Result<(Vec<u8>, bool), GitError> {
    let base = match base {
        Some(base) => base.to_owned(),
        None => git.clone().text(&["hash-object", "-t", "tree", "/dev/null"]).await?,
    };
    let arguments = [&EXACTLY[..], others.0, &[base.as_str()], others.1, &["--"]].concat();
    let (mut patch, cut) = git.most(most).cut(&arguments).await?;
    if cut {
        let end = patch.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        patch.truncate(end);
    }
    Ok((patch, cut))
}
