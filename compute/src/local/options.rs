//! How local compute is set up.

use std::path::PathBuf;

pub use ambient_runner_protocol::{Confinement, Limits, Network};

use crate::OwnLimits;

/// How local compute is set up.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Where everything is kept; created if absent.
    pub data_dir: PathBuf,
    /// The `ambient-runner` program.
    pub runner_binary: PathBuf,
    /// Name of this host.
    pub host: String,
    /// Additional paths besides the system's that agents may read (toolchains).
    pub readable_paths: Vec<PathBuf>,
    /// Files of the platform outside `data_dir` that no `file://` origin may be or contain (configuration, tokens).
    pub platform_paths: Vec<PathBuf>,
    /// First of [`SESSION_UIDS`] user ids for sessions; used if the server is root. `None`: sessions run as the server's user.
    pub session_uid_base: Option<u32>,
    /// Limits for a session that names none.
    pub limits: Limits,
    /// The most that a session gets, whatever it asks for.
    pub most: OwnLimits,
    /// Bytes kept for the server and released when the disk is full; 0 = none. At most a twentieth of the file system.
    pub disk_reserve: u64,
    /// With fewer free bytes than this nothing new is started. At most a tenth of the file system.
    pub disk_low_water: u64,
    /// How strictly agents are confined.
    pub confinement: Confinement,
    /// What the agent of a session may reach of the network if that says nothing.
    pub network: Network,
}

impl LocalOptions {
    /// Defaults: user ids from 1,900,000,000, 4,096 processes, 16,384 open files, files up to 64 GiB, no other limits, best effort,
    /// an open network, no reserve, 64 MiB of low water.
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
            network: Network::default(),
        }
    }
}
