//! What a session may use of its machine, if it says so itself. What it leaves open is up to the server.

use serde::{Deserialize, Serialize};

use crate::{
    entity::Refusal,
    quantity::{Bytes, Cpu},
};

/// Name of the field, as people write it.
const FIELD: &str = "resource_overrides";
/// With fewer processes the agent could not even start.
const PROCESSES: std::ops::RangeInclusive<u64> = 16..=4_194_304;
const OPEN_FILES: std::ops::RangeInclusive<u64> = 64..=1_048_576;

/// Limits for all of a session's processes together, except `open_files`, which is per process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceOverrides {
    /// CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory; an agent that reaches it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Maximum number of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Disk space of the session's files; above it the agent is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Maximum number of open files per process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
}

/// Changes; outer `None` = unchanged, inner `None` = the server's default again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "outer: absent; inner: null, which clears the field")]
pub struct ResourcePatch {
    /// CPU.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Option<Cpu>>,
    /// Memory.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Option<Bytes>>,
    /// Maximum number of processes and threads.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub processes: Option<Option<u64>>,
    /// Disk space of the files.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub disk: Option<Option<Bytes>>,
    /// Maximum number of open files per process.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub open_files: Option<Option<u64>>,
}

impl ResourcePatch {
    /// Returns everything to the server's limits.
    pub const CLEARED: Self =
        Self { cpu: Some(None), memory: Some(None), processes: Some(None), disk: Some(None), open_files: Some(None) };
}

impl ResourceOverrides {
    /// These, and where they leave something open, those.
    #[must_use]
    pub fn or(self, those: &Self) -> Self {
        Self {
            cpu: self.cpu.or(those.cpu),
            memory: self.memory.or(those.memory),
            processes: self.processes.or(those.processes),
            disk: self.disk.or(those.disk),
            open_files: self.open_files.or(those.open_files),
        }
    }

    /// Leaves everything to the server.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn patched(self, patch: &ResourcePatch) -> Self {
        Self {
            cpu: patch.cpu.unwrap_or(self.cpu),
            memory: patch.memory.unwrap_or(self.memory),
            processes: patch.processes.unwrap_or(self.processes),
            disk: patch.disk.unwrap_or(self.disk),
            open_files: patch.open_files.unwrap_or(self.open_files),
        }
    }

    /// Checks what has a range.
    ///
    /// # Errors
    /// A refusal that names the field.
    pub fn validate(&self) -> Result<(), Refusal> {
        for (name, value, range) in
            [("processes", self.processes, PROCESSES), ("open_files", self.open_files, OPEN_FILES)]
        {
            if value.is_some_and(|value| !range.contains(&value)) {
                let problem = format!("must be {} to {}", range.start(), range.end());
                return Err(Refusal::invalid(format!("{FIELD}.{name}"), problem));
            }
        }
        Ok(())
    }

    /// Whether nothing requested is above `maxima`, where these are set.
    ///
    /// # Errors
    /// A refusal that names the field and its maximum.
    pub fn within(&self, maxima: &Self) -> Result<(), Refusal> {
        no_more("cpu", self.cpu, maxima.cpu)?;
        no_more("memory", self.memory, maxima.memory)?;
        no_more("processes", self.processes, maxima.processes)?;
        no_more("disk", self.disk, maxima.disk)?;
        no_more("open_files", self.open_files, maxima.open_files)
    }
}

fn no_more<T: PartialOrd + std::fmt::Display>(name: &str, wanted: Option<T>, most: Option<T>) -> Result<(), Refusal> {
    match (wanted, most) {
        (Some(wanted), Some(most)) if wanted > most => Err(Refusal::invalid(
            format!("{FIELD}.{name}"),
            format!("must be at most {most}, this server's maximum (session_max_{name})"),
        )),
        _ => Ok(()),
    }
}
