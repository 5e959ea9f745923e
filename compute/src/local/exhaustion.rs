//! What a run has exhausted: found once, recorded, and from then on part of what is known about its attempt.
//!
//! The record belongs to the server, out of reach of the session's user; it outlives the cgroup and the server.

use std::time::Duration;

use ambient_runner_protocol::LaunchSpec;
use serde::{Deserialize, Serialize};

use super::{
    error::io_error,
    host::Local,
    hub::{Key, observation},
    layout::{read_json, write_json},
};
use crate::{ComputeError, RunnerState, SessionRef, Shortage};

/// How long killing an agent is repeated before the teardown, which follows, takes over.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
struct Exhaustion {
    nonce: String,
    shortage: Shortage,
    message: String,
}

impl Local {
    /// What is recorded for the attempt, or what its cgroup says.
    pub(super) fn exhausted(
        &self,
        session: &SessionRef,
        intent: &LaunchSpec,
    ) -> Result<Option<RunnerState>, ComputeError> {
        if let Some(told) = self.hub.told_exhausted(session, intent.run, intent.attempt) {
            return Ok(Some(told));
        }
        let file = self.exhaustion(session, intent.run, intent.attempt);
        let recorded = read_json::<Exhaustion>(&file)?.filter(|record| record.nonce == intent.nonce);
        if let Some(Exhaustion { shortage, message, .. }) = recorded {
            return Ok(Some(RunnerState::Exhausted { shortage, message }));
        }
        let group = self.groups.group(&session.session_id, intent.run);
        if group.out_of_memory().map_err(|e| io_error("reading what a control group has used up", e))? == 0 {
            return Ok(None);
        }
        let message = format!("the agent was ended at its limit on memory, {} MiB", intent.limits.memory_bytes >> 20);
        // A full disk may not accept it; then the cgroup is asked again.
        self.record(session, intent, Shortage::OutOfMemory, &message);
        Ok(Some(RunnerState::Exhausted { shortage: Shortage::OutOfMemory, message }))
    }

    fn exhaustion(&self, session: &SessionRef, run: i64, attempt: i32) -> std::path::PathBuf {
        self.paths(session).run_dir(run).join(format!("exhausted.{attempt}.json"))
    }

    /// Records it for later servers; false if it should be retried.
    pub(super) fn record(&self, session: &SessionRef, intent: &LaunchSpec, shortage: Shortage, message: &str) -> bool {
        let record = Exhaustion { nonce: intent.nonce.clone(), shortage, message: message.to_owned() };
        let written = write_json(&self.exhaustion(session, intent.run, intent.attempt), &record, None);
        written.inspect_err(|error| tracing::warn!(%error, "what a run has used up cannot be recorded")).is_ok()
    }

    /// Kills the agent of an attempt that has exhausted a limit.
    pub(super) fn end_exhausted(&self, session: &SessionRef, intent: &LaunchSpec, shortage: Shortage, message: &str) {
        let (session_id, run, reason) = (&session.session_id, intent.run, shortage.as_str());
        tracing::warn!(session = session_id, run, reason, message, "an agent is ended");
        self.end_agent(session, intent);
        // Only now, so that whoever filled the disk does not get the space.
        if self.space.look().is_some_and(|free| free.is_critical) {
            self.space.release_reserve();
        }
    }

    /// Reports what an attempt has exhausted, before its agent is killed for it.
    pub(super) fn tell_exhausted(&self, key: &Key, shortage: Shortage, message: &str) {
        let state = RunnerState::Exhausted { shortage, message: message.to_owned() };
        self.hub.tell(observation(key.clone(), state));
    }

    /// Kills what could use more; the runner stays to say how far the agent got.
    pub(super) fn end_agent(&self, session: &SessionRef, intent: &LaunchSpec) {
        let paths = self.paths(session);
        self.groups.group(&session.session_id, intent.run).kill_agent();
        let marks = self.marks(&paths, &[(intent.run, intent.attempt)]);
        let (marks, spared) = match marks.and_then(|marks| marks.runners().map(|spared| (marks, spared))) {
            Ok((_, spared)) if spared.is_empty() => return,
            Ok(found) => found,
            Err(error) => return tracing::warn!(%error, "processes of an agent cannot be looked for"),
        };
        let left = marks.kill(&spared, KILL_PATIENCE);
        if !left.is_empty() {
            tracing::warn!(?left, "processes of an agent are left");
        }
    }
}
