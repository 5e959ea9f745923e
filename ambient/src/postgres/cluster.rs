//! Files and processes of one cluster: `initdb` once, `postgres` at every start.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rand::RngCore;
use tokio::{process::Child, time::timeout};

use super::{PostgresError, account::Account, binaries::Binaries};
use crate::{data_dir, log_tail::log_tail};

/// A Unix socket's path is limited to 108 bytes; the file name in this folder takes the rest.
const LONGEST_SOCKET_FOLDER: usize = 100 - "/.s.PGSQL.5432".len();
const INITDB_PATIENCE: Duration = Duration::from_secs(120);
/// A log longer than this is rotated at the next start.
const LONGEST_LOG: u64 = 16 * 1024 * 1024;

/// Settings of the server. Durability stays on; the rest suits hundreds of short transactions on one machine.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "password_encryption=scram-sha-256",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "max_connections=200",
    "shared_buffers=256MB",
    "wal_compression=on",
    "max_wal_size=1GB",
    "jit=off",
    "log_checkpoints=off",
    "log_line_prefix=%m [%p] ",
    "cluster_name=ambient",
];

/// Where a cluster's files are.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    root: PathBuf,
}

impl Cluster {
    pub(super) fn new(root: PathBuf) -> Result<Self, PostgresError> {
        let cluster = Self { root };
        let folder = cluster.socket_folder();
        let bytes = folder.as_os_str().len();
        if bytes > LONGEST_SOCKET_FOLDER {
            return Err(PostgresError::SocketPathTooLong { folder, bytes, longest: LONGEST_SOCKET_FOLDER });
        }
        Ok(cluster)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(super) fn socket_folder(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("server.log")
    }

    /// The lock held during start and stop.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    fn password_file(&self) -> PathBuf {
        self.root.join("password")
    }

    /// Creates the folder for everything else. It stays ours: the account may pass through it and change nothing, so it
    /// cannot put a link where we, as root, are about to write or to give a file away.
    pub(super) fn make_root(&self, account: &Account) -> Result<(), PostgresError> {
        let mode = if account.switch { 0o711 } else { 0o700 };
        // Including one that was made under a strict umask and lets nobody pass.
        let made = data_dir::make(&self.root, mode)
            .and_then(|()| fs::set_permissions(&self.root, fs::Permissions::from_mode(mode)));
        made.map_err(|error| PostgresError::file(&self.root, error))
    }

    /// The password of this cluster's roles, made on first use.
    pub(super) fn password(&self) -> Result<String, PostgresError> {
        let path = self.password_file();
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(PostgresError::file(&path, error)),
        }
        if self.data().exists() {
            return Err(PostgresError::PasswordLost { file: path, data: self.data() });
        }
        let mut bytes = [0_u8; 24];
        rand::rng().fill_bytes(&mut bytes);
        let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let next = self.root.join("password.next");
        write_secret(&next, &password).map_err(|error| PostgresError::file(&next, error))?;
        fs::rename(&next, &path).map_err(|error| PostgresError::file(&path, error))?;
        Ok(password)
    }

    /// Creates the cluster if there is none. `initdb` works next to the final place, so an existing cluster is complete,
    /// whenever a start was interrupted.
    pub(super) async fn initialise(
        &self,
        binaries: &Binaries,
        account: &Account,
        password: &str,
    ) -> Result<(), PostgresError> {
        let run = self.socket_folder();
        if !run.exists() {
            make_private(&run, account).map_err(|error| PostgresError::file(&run, error))?;
        }
        if self.data().exists() {
            return Ok(());
        }
        let (fresh, secret) = (self.root.join("data.new"), self.root.join("initdb-password"));
        let removed = fs::remove_dir_all(&fresh);
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(PostgresError::file(&fresh, error));
        }
        make_private(&fresh, account).map_err(|error| PostgresError::file(&fresh, error))?;
        let handed_over = write_secret(&secret, password).and_then(|()| account.own(&secret));
        handed_over.map_err(|error| PostgresError::file(&secret, error))?;
        let made = initdb(binaries, account, &fresh, &secret).await;
        fs::remove_file(&secret).map_err(|error| PostgresError::file(&secret, error))?;
        made?;
        let moved = fs::rename(&fresh, self.data()).and_then(|()| File::open(&self.root)?.sync_all());
        moved.map_err(|error| PostgresError::file(&self.data(), error))
    }

    /// Starts the server in its own process group, so that neither the terminal nor our end takes it down.
    /// Also returns where its part of the log begins.
    pub(super) fn spawn(&self, binaries: &Binaries, account: &Account) -> Result<(Child, u64), PostgresError> {
        let path = self.log();
        let log = self.open_log().map_err(|error| PostgresError::file(&path, error))?;
        let copies = log.metadata().and_then(|meta| Ok((meta.len(), log.try_clone()?)));
        let (begin, second) = copies.map_err(|error| PostgresError::file(&path, error))?;
        let mut command = account.command(&binaries.postgres());
        command.arg("-D").arg(self.data());
        command.arg("-c").arg(self.socket_setting());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(second).process_group(0);
        let child = command.spawn().map_err(|error| PostgresError::file(&binaries.postgres(), error))?;
        Ok((child, begin))
    }

    /// A list of one: quoted, in case the path contains a comma or a quotation mark.
    fn socket_setting(&self) -> OsString {
        let folder = self.socket_folder();
        let mut setting = b"unix_socket_directories=\"".to_vec();
        for byte in folder.as_os_str().as_bytes() {
            setting.extend(std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 }));
        }
        setting.push(b'"');
        OsString::from_vec(setting)
    }

    /// The last lines of the log from `begin`.
    pub(super) fn log_tail(&self, begin: u64) -> String {
        log_tail(&self.log(), begin)
    }

    /// The log stays ours; the server gets it as an open file.
    fn open_log(&self) -> io::Result<File> {
        let path = self.log();
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LONGEST_LOG) {
            fs::rename(&path, self.root.join("server.log.old"))?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path)
    }
}

async fn initdb(binaries: &Binaries, account: &Account, data: &Path, secret: &Path) -> Result<(), PostgresError> {
    let mut command = account.command(&binaries.initdb());
    command.arg("-D").arg(data).arg("--pwfile").arg(secret);
    command.args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(INITDB_PATIENCE, command.output()).await;
    let failed = |reason: String| PostgresError::Initdb { program: binaries.initdb(), reason };
    let output = output
        .map_err(|_| failed(format!("not done after {} s", INITDB_PATIENCE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()
}

fn make_private(dir: &Path, account: &Account) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    account.own(dir)
}
