//! What AG-UI has no word for: the names of our own `CUSTOM` events in a session's log, with the shape of `value`.
//!
//! AG-UI events carry a few fields of our own: `RUN_STARTED.messageId`, `TOOL_CALL_RESULT.exitCode`, `RUN_ERROR.{threadId,runId}`.
//! Codes of `RUN_ERROR`: `ScriptFailed`, `PushFailed`, `Interrupted`, `Terminated`, `RunnerLost`, `LogFull`, `AgentError`.

use serde::{Deserialize, Serialize};

/// `{log_id, attempt, resumed}`: first record of every attempt.
pub const ATTEMPT_STARTED: &str = "ambient.attempt_started";
/// `{message_id, seq}`: a message was recorded and will be worked on.
pub const MESSAGE_ACCEPTED: &str = "ambient.message_accepted";
/// `{run_id, message_id, outcome: finished|error|interrupted, last_message_seq, problems, repos, code?, exit_code?}`: after
/// RUN_FINISHED or RUN_ERROR and the turn's snapshots; `code` is RUN_ERROR's. `problems` is a list of
/// [`RepoProblem`], `repos` one of [`RepoPosition`]: for those without a problem.
pub const TURN_ENDED: &str = "ambient.turn_ended";
/// `{repo, commit, head, ref, base, patch, patch_truncated, patch_exact, patch_base64?, left_out, running}`: a snapshot of a
/// repository at the end of a turn, on top of commit `head` (null: none). `running` processes of the agent were still running, so
/// the files may have changed meanwhile. `patch` is the unified diff, with its summary, from `base` (where it was cloned at) to the snapshot; at most 128
/// KiB, empty if there is none. A patch that is not valid text has `patch_exact: false` and its bytes in `patch_base64`.
/// `left_out` is a list of [`LeftOut`](crate::git::LeftOut).
pub const SNAPSHOT: &str = "ambient.snapshot";
/// `{repo}` and the fields of [`GitPushed`](crate::git::GitPushed): a repository with `push_to` was pushed at the end of a turn, before
/// RUN_FINISHED. Except for `uncommitted` and `notices` it is what the origin at `url` said, not the workspace.
pub const PUSHED: &str = "ambient.pushed";
/// `{repo, notices}`: a repository was cloned, with remarks, in words.
pub const REPO_NOTICES: &str = "ambient.repo_notices";
/// `{repo, reason}`: a snapshot could not be made.
pub const SNAPSHOT_FAILED: &str = "ambient.snapshot_failed";
/// `{toolCallId, stream: stdout|stderr, text}`: output of a tool while it runs, at most 16 KiB per record.
pub const TOOL_OUTPUT: &str = "ambient.tool_output";
/// `{code, reason}`: last record before the runner exits.
pub const EXIT: &str = "ambient.exit";

/// `reason` in [`EXIT`] for an end that compute asked for: a teardown, or a launch being undone. Whoever asked knows, so it is no
/// news about the session.
pub const ENDED_BY_REQUEST: &str = "terminated by request";

/// What was checked out in a repository at the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoPosition {
    /// Its directory in the workspace.
    pub repo: String,
    /// Branch; none when detached.
    pub branch: Option<String>,
    /// Commit; none if there is none yet.
    pub head: Option<String>,
}

/// What was wrong with a repository at the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoProblem {
    /// Its directory in the workspace.
    pub repo: String,
    /// The directory is gone, or something else is in its place.
    pub missing: bool,
    /// In words.
    pub reason: String,
}
