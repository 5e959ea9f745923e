//! How local compute is set up.

use std::path::PathBuf;

pub use ambient_runner_protocol::{Confinement, Limits};

use crate::OwnLimits;

/// How local compute is set up.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Where everything lives; made when absent.
    pub data_dir: PathBuf,
    /// The program `ambient-runner`.
    pub runner_binary: PathBuf,
    /// Name of this host.
    pub host: String,
    /// Paths besides the system's that agents may read (toolchains).
    pub readable_paths: Vec<PathBuf>,
    /// Files of the platform outside of `data_dir` that no `file://` origin may be or hold (configuration, tokens).
    pub platform_paths: Vec<PathBuf>,
    /// First of [`SESSION_UIDS`] user ids for sessions; used when the server is root. `None`: sessions run as the server's user.
    pub session_uid_base: Option<u32>,
    /// Limits of a session that names none.
    pub limits: Limits,
    /// Most that a session gets, whatever it names.
    pub most: OwnLimits,
    /// Bytes that are kept for the server and given free when the disk is full; 0 = none. At most a twentieth of the file system.
    pub disk_reserve: u64,
    /// With fewer bytes free nothing new is started. At most a tenth of the file system.
    pub disk_low_water: u64,
    /// How strictly agents are confined.
    pub confinement: Confinement,
}

impl LocalOptions {
    /// Defaults: user ids from 1,900,000,000, 4,096 processes, 16,384 open files, files up to 64 GiB, no other limits, best effort,
    /// no reserve, 64 MiB of low water.
    #[must_use]
    pub fn new(data_dir: PathBuf, runner_binary: PathBuf, host: String) -> Self {
        Self {
            data_dir,
            runner_binary,
            host,
            readable_paths: Vec::new(),
            platform_paths: Vec::new(),
            session_uid_base: Some(1_900_000_000),
            limits: Limits {
                processes: 4096,
                open_files: 16_384,
                address_space_bytes: 0,
                file_size_bytes: 64 * 1024 * 1024 * 1024,
                ..Limits::default()
            },
            most: OwnLimits::default(),
            disk_reserve: 0,
            disk_low_water: 64 << 20,
            confinement: Confinement::BestEffort,
        }
    }
}
