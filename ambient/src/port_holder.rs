//! Finds who listens on a TCP port, for the message that it is taken.

use std::{fmt, fs, path::Path};

/// A listening process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// Its pid.
    pub pid: u32,
    /// Its command name, at most 15 bytes.
    pub command: String,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.command, self.pid)
    }
}

/// The process that listens on `port`, on any address; `None` if there is none or it belongs to another user, whose
/// open files we may not see.
#[must_use]
pub fn port_holder(port: u16) -> Option<PortHolder> {
    let inodes: Vec<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().flat_map(|table| listeners(table, port)).collect();
    if inodes.is_empty() {
        return None;
    }
    let pids = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| holds_any(*pid, &inodes))?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    Some(PortHolder { pid, command })
}

/// Inodes of the listening sockets on `port`. Columns: slot, local address, remote address, state (0A = listening),
/// queues, timer, retransmits, uid, timeout, inode.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let suffix = format!(":{port:04X}");
    let ours = rows.filter(|row| row.len() > 9 && row[1].ends_with(&suffix) && row[3] == "0A");
    ours.map(|row| row[9].to_owned()).collect()
}

fn holds_any(pid: u32, inodes: &[String]) -> bool {
    let Ok(files) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else { return false };
    files.filter_map(Result::ok).filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|listening| listening == inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let own_name = fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has no second case.
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert_eq!(port_holder(port), Some(PortHolder { pid: std::process::id(), command: own_name.clone() }));
            drop(listener);
            // A process that another test is just starting has it too, until it execs.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while let Some(holder) = port_holder(port) {
                assert!(std::time::Instant::now() < deadline, "{holder} still has it");
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}
