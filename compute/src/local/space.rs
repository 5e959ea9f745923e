//! Free space on the file system that the server, its database and the sessions share.
//!
//! A reserve is kept as a file and removed when the disk is full, so that stops, logs and the database can always be written; it is
//! recreated when there is space. Below the low-water mark nothing new is started.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Most that reserve and low-water mark may be of the file system.
const RESERVE_SHARE: u64 = 20;
const LOW_SHARE: u64 = 10;
/// Fraction of the low-water mark below which the reserve is released.
const CRITICAL_PART: u64 = 4;

/// The file system of the data directory.
pub(super) struct Space {
    data: PathBuf,
    reserve: u64,
    low_water: u64,
}

/// Free bytes in `data`, and how many are required; none if its file system does not respond.
#[must_use]
pub fn free_space(data: &Path, reserve: u64, low_water: u64) -> Option<(u64, u64)> {
    let free = Space::new(data, reserve, low_water).look()?;
    Some((free.bytes, free.low_water))
}

/// State of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    /// Bytes that are free for everyone, without what will become the reserve again.
    pub(super) bytes: u64,
    /// Below it nothing new is started.
    pub(super) low_water: u64,
    /// The disk is as good as full.
    pub(super) is_critical: bool,
}

impl Free {
    pub(super) fn is_low(&self) -> bool {
        self.bytes < self.low_water
    }
}

impl Space {
    pub(super) fn new(data: &Path, reserve: u64, low_water: u64) -> Self {
        Self { data: data.to_owned(), reserve, low_water }
    }

    fn file(&self) -> PathBuf {
        self.data.join("reserve")
    }

    /// Checks the file system; none if it does not respond.
    pub(super) fn look(&self) -> Option<Free> {
        let volume = statvfs(&self.data).inspect_err(|error| tracing::warn!(%error, "free space is not known")).ok()?;
        let total = volume.f_blocks.saturating_mul(volume.f_frsize);
        let free = volume.f_bavail.saturating_mul(volume.f_frsize);
        let low_water = self.low_water.min(total / LOW_SHARE);
        let owed = self.wanted(total).saturating_sub(self.held());
        Some(Free { bytes: free.saturating_sub(owed), low_water, is_critical: free < low_water / CRITICAL_PART })
    }

    /// Why nothing new can be started, in words.
    pub(super) fn shortage(&self) -> Option<String> {
        let free = self.look().filter(Free::is_low)?;
        Some(format!(
            "the disk is full: {} MiB are free in {}, and below {} MiB (disk_low_water) nothing is started",
            free.bytes >> 20,
            self.data.display(),
            free.low_water >> 20
        ))
    }

    fn wanted(&self, total: u64) -> u64 {
        self.reserve.min(total / RESERVE_SHARE)
    }

    fn held(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.file().symlink_metadata().map_or(0, |about| about.blocks() * 512)
    }

    /// Recreates the reserve if it is missing and there is space for it.
    pub(super) fn keep_reserve(&self) {
        let Ok(volume) = statvfs(&self.data) else { return };
        let wanted = self.wanted(volume.f_blocks.saturating_mul(volume.f_frsize));
        let low = self.look().is_none_or(|free| free.is_low());
        if wanted == 0 || low || self.held() >= wanted {
            return;
        }
        match self.allocate(wanted) {
            Ok(()) => tracing::info!(bytes = wanted, file = %self.file().display(), "a reserve of the disk is kept"),
            Err(error) => {
                tracing::warn!(%error, file = %self.file().display(), "no reserve of the disk can be kept");
                let _ = fs::remove_file(self.file());
            }
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file: File = options.write(true).create(true).truncate(false).mode(0o600).open(self.file())?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
    }

    /// Releases the reserve.
    pub(super) fn release_reserve(&self) {
        if self.held() > 0 && fs::remove_file(self.file()).is_ok() {
            tracing::error!(data = %self.data.display(), "the disk is full: releasing its reserve for what must be written");
        }
    }
}
