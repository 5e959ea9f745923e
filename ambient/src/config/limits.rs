//! What a session may use of this machine, and how much of its disk is reserved for the server.

use ambient_domain::{
    quantity::{Bytes, Cpu},
    session::ResourceOverrides,
};
use clap::Args;
use serde::Serialize;

use super::{ConfigError, layers::Layers};

/// Keys of these settings, in the order of [`LimitConfig`].
pub(super) const KEYS: &[&str] = &[
    "session_cpu",
    "session_memory",
    "session_processes",
    "session_disk",
    "session_open_files",
    "session_max_cpu",
    "session_max_memory",
    "session_max_processes",
    "session_max_disk",
    "session_max_open_files",
    "disk_reserve",
    "disk_low_water",
];

/// Limits for sessions that name none, the most that one may ask for, and the disk reserve.
#[derive(Debug, Clone, Serialize)]
pub struct LimitConfig {
    /// CPU of a session.
    pub session_cpu: Option<Cpu>,
    /// Memory of a session.
    pub session_memory: Bytes,
    /// Processes and threads of a session.
    pub session_processes: u64,
    /// Disk space of a session's files.
    pub session_disk: Bytes,
    /// Open files per process.
    pub session_open_files: u64,
    /// Maximum CPU.
    pub session_max_cpu: Option<Cpu>,
    /// Maximum memory.
    pub session_max_memory: Option<Bytes>,
    /// Maximum processes and threads.
    pub session_max_processes: Option<u64>,
    /// Maximum disk space.
    pub session_max_disk: Option<Bytes>,
    /// Maximum open files per process.
    pub session_max_open_files: Option<u64>,
    /// Reserved for the server, released when the disk is full; at most a twentieth of the file system.
    pub disk_reserve: Bytes,
    /// With less free space than this nothing new is started and the server is not ready; at most a tenth of the file system.
    pub disk_low_water: Bytes,
}

/// Flags of these settings.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct LimitFlags {
    /// CPU limit for sessions that set none, such as 500m or 2 [default: no limit]
    #[arg(long, value_name = "CPU")]
    pub(crate) session_cpu: Option<String>,
    /// Memory limit for sessions that set none, such as 2Gi [default: half of the machine's]
    #[arg(long, value_name = "BYTES")]
    pub(crate) session_memory: Option<String>,
    /// Limit on processes and threads for sessions that set none [default: 4096]
    #[arg(long, value_name = "NUMBER", hide_short_help = true)]
    pub(crate) session_processes: Option<String>,
    /// Disk space limit for sessions that set none [default: 20Gi]
    #[arg(long, value_name = "BYTES")]
    pub(crate) session_disk: Option<String>,
    /// Limit on open files per process for sessions that set none [default: 16384]
    #[arg(long, value_name = "NUMBER", hide_short_help = true)]
    pub(crate) session_open_files: Option<String>,
    /// Maximum CPU limit that a session may set [default: no maximum]
    #[arg(long, value_name = "CPU", hide_short_help = true)]
    pub(crate) session_max_cpu: Option<String>,
    /// Maximum memory limit that a session may set [default: no maximum]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub(crate) session_max_memory: Option<String>,
    /// Maximum limit on processes and threads that a session may set [default: no maximum]
    #[arg(long, value_name = "NUMBER", hide_short_help = true)]
    pub(crate) session_max_processes: Option<String>,
    /// Maximum disk space limit that a session may set [default: no maximum]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub(crate) session_max_disk: Option<String>,
    /// Maximum limit on open files per process that a session may set [default: no maximum]
    #[arg(long, value_name = "NUMBER", hide_short_help = true)]
    pub(crate) session_max_open_files: Option<String>,
    /// Disk space reserved for the server [default: 256Mi, at most a twentieth of the file system]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub(crate) disk_reserve: Option<String>,
    /// Free space below which nothing new is started [default: 512Mi, at most a tenth of the file system]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub(crate) disk_low_water: Option<String>,
}

impl LimitConfig {
    pub(super) fn take(layers: &mut Layers) -> Result<Self, ConfigError> {
        let session_max_memory: Option<Bytes> = layers.take("session_max_memory")?;
        let session_max_processes: Option<u64> = layers.take("session_max_processes")?;
        let session_max_disk: Option<Bytes> = layers.take("session_max_disk")?;
        let session_max_open_files: Option<u64> = layers.take("session_max_open_files")?;
        // A maximum without a default is the default, if it is lower than ours.
        let memory = lower(Bytes::new(machine_memory() / 2), session_max_memory);
        let disk = lower(Bytes::new(20 << 30), session_max_disk);
        Ok(Self {
            session_cpu: layers.take("session_cpu")?,
            session_memory: layers.take("session_memory")?.unwrap_or(memory),
            session_processes: layers.take("session_processes")?.unwrap_or(lower(4096, session_max_processes)),
            session_disk: layers.take("session_disk")?.unwrap_or(disk),
            session_open_files: layers.take("session_open_files")?.unwrap_or(lower(16_384, session_max_open_files)),
            session_max_cpu: layers.take("session_max_cpu")?,
            session_max_memory,
            session_max_processes,
            session_max_disk,
            session_max_open_files,
            disk_reserve: layers.take("disk_reserve")?.unwrap_or(Bytes::new(256 << 20)),
            disk_low_water: layers.take("disk_low_water")?.unwrap_or(Bytes::new(512 << 20)),
        })
    }

    /// The most a session may ask for.
    #[must_use]
    pub fn maxima(&self) -> ResourceOverrides {
        ResourceOverrides {
            cpu: self.session_max_cpu,
            memory: self.session_max_memory,
            processes: self.session_max_processes,
            disk: self.session_max_disk,
            open_files: self.session_max_open_files,
        }
    }

    /// Limits for a session that names none.
    #[must_use]
    pub fn defaults(&self) -> ResourceOverrides {
        ResourceOverrides {
            cpu: self.session_cpu,
            memory: Some(self.session_memory),
            processes: Some(self.session_processes),
            disk: Some(self.session_disk),
            open_files: Some(self.session_open_files),
        }
    }

    /// The first invalid setting, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        // Maxima first: a default may depend on one.
        let numbers = [("session_max", self.maxima()), ("session", self.defaults())];
        let wrong = numbers.iter().find_map(|(prefix, limits)| Some((*prefix, limits.validate().err()?)));
        let wrong = wrong.or_else(|| Some(("session", self.defaults().within(&self.maxima()).err()?)));
        let (prefix, refusal) = wrong?;
        let field = refusal.field.as_deref().and_then(|field| field.rsplit('.').next()).unwrap_or_default();
        let name = format!("{prefix}_{field}");
        let key = KEYS.iter().copied().find(|key| *key == name).unwrap_or("session_memory");
        Some((key, refusal.reason))
    }
}

fn lower<T: Ord>(default: T, most: Option<T>) -> T {
    match most {
        Some(most) => default.min(most),
        None => default,
    }
}

/// Memory of this machine, bytes; 2 GiB if it does not say.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    line.map_or(2 << 30, |kibibytes: u64| kibibytes << 10)
}
