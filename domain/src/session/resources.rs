//! What a session may take of its machine, where it says so itself. What it leaves open is the server's to say.

use serde::{Deserialize, Serialize};

use crate::{
    entity::Refusal,
    quantity::{Bytes, Cpu},
};

/// Name of the field, as people write it.
const FIELD: &str = "resource_overrides";
/// Fewer processes and the agent could not even begin.
const PROCESSES: std::ops::RangeInclusive<u64> = 16..=4_194_304;
const OPEN_FILES: std::ops::RangeInclusive<u64> = 64..=1_048_576;

/// Limits of all of a session's processes together, but for `open_files`, which is of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceOverrides {
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory; at the limit the agent is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Processes and threads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Space of the session's files; above the limit the agent is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Open files of one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
}

/// Changes; outer `None` = unchanged, inner `None` = the server's default again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "outer: absent; inner: null, which clears the field")]
pub struct ResourcePatch {
    /// Processors.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Option<Cpu>>,
    /// Memory.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Option<Bytes>>,
    /// Processes and threads.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub processes: Option<Option<u64>>,
    /// Space of the files.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub disk: Option<Option<Bytes>>,
    /// Open files.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub open_files: Option<Option<u64>>,
}

impl ResourcePatch {
    /// Leaves everything to the server again.
    pub const CLEARED: Self =
        Self { cpu: Some(None), memory: Some(None), processes: Some(None), disk: Some(None), open_files: Some(None) };
}

impl ResourceOverrides {
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

    /// Whether nothing asked for is above `maxima`, where these say something.
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
