//! The operating-system account PostgreSQL runs under: ours, or another if we are root, which PostgreSQL refuses.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command as BlockingCommand,
};

use tokio::process::Command;

use super::PostgresError;

/// An entry of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether starting PostgreSQL under it requires a change of uid.
    pub(super) switch: bool,
}

impl Account {
    /// The account for the server of `data`: its owner, if it exists and we may choose, because PostgreSQL
    /// serves nobody else's, and a user `postgres` may have been added to the machine since.
    pub(super) fn for_postgres(data: &Path) -> Result<Self, PostgresError> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            return look_up(&uid.as_raw().to_string()).ok_or(PostgresError::UnknownUid { uid: uid.as_raw() });
        }
        let found = match fs::metadata(data) {
            Ok(meta) if meta.uid() != 0 => {
                look_up(&meta.uid().to_string()).ok_or(PostgresError::UnknownUid { uid: meta.uid() })?
            }
            _ => ["postgres", "nobody"].iter().find_map(|name| look_up(name)).ok_or(PostgresError::NoAccount)?,
        };
        Ok(Self { switch: true, ..found })
    }

    /// A command that runs under the account, in a directory it can enter, without any of our environment.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/bin:/bin");
        if self.switch {
            // This also drops root's supplementary groups.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives a file or directory to the account. Only for what is in a folder of ours, where nobody can swap it.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        if self.switch { std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// The first directory on the way to `path` that the account may not enter.
    pub(super) fn barrier(&self, path: &Path) -> Option<PathBuf> {
        let closed = |dir: &&Path| {
            let Ok(meta) = fs::metadata(dir) else { return false };
            let bit = if meta.uid() == self.uid {
                0o100
            } else if meta.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            meta.mode() & bit == 0
        };
        let way: Vec<&Path> = path.ancestors().skip(1).collect();
        self.switch.then(|| way.into_iter().rev().find(closed).map(Path::to_owned)).flatten()
    }
}

/// Finds an account by name or uid: in the file, else with `getent`, which also knows directory services.
fn look_up(key: &str) -> Option<Account> {
    let file = fs::read_to_string("/etc/passwd").unwrap_or_default();
    file.lines().find_map(|line| parse(line, key)).or_else(|| {
        let output = BlockingCommand::new("getent").args(["passwd", key]).output().ok()?;
        parse(std::str::from_utf8(&output.stdout).ok()?.trim(), key)
    })
}

fn parse(line: &str, key: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, ..] = fields[..] else { return None };
    let found = name == key || uid == key;
    found.then(|| {
        Some(Account { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, switch: false })
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_by_uid() {
        let line = "nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin";
        let account = Account { name: "nobody".into(), uid: 65534, gid: 65533, switch: false };
        assert_eq!(parse(line, "nobody"), Some(account.clone()));
        assert_eq!(parse(line, "65534"), Some(account));
        assert_eq!(parse(line, "65533"), None);
        assert_eq!(parse("broken", "broken"), None);
        assert_eq!(look_up("0").unwrap().name, "root");
        assert_eq!(look_up("4000000001"), None);
    }
}
