//! A stored snapshot, read by a server where no session is. The packs are hostile, and nothing says that they are what was checked
//! once: they are indexed anew in a folder that is thrown away, by git that sees this folder, the system's programs and no network.

use std::{
    ffi::OsStr,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use ambient_runner_protocol::{Confinement, Limits, StoredAnswer, StoredLook, StoredOrder};
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, timeout_at};

use super::{
    check_object,
    command::{quoted, take},
    directory::Directory,
    environment, make_bare,
    patch::EXACTLY,
};
use crate::{
    confine::EXIT_CANNOT_EXECUTE,
    error::{Error, Result},
    process::confined_in,
    rights::{Place, Rights},
    workspace_path::{parse, parse_beneath},
};

/// Timeout for all of it. The server waits longer, so that it gets the reason.
const PATIENCE: Duration = Duration::from_secs(90);
/// Largest address space of a git, and largest file it writes (an index), bytes.
const MEMORY: u64 = 2 << 30;
const FILE: u64 = 1 << 30;
/// Most packs.
const MAX_PACKS: usize = 64;
const MAX_ERRORS: usize = 16 * 1024;
/// Longest answer of a git that tells about an object, bytes.
const MAX_WORDS: usize = 16 * 1024;

/// Carries out the order and prints what comes of it; returns the exit code.
pub(crate) fn read(order: &str) -> i32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (Ok(order), Ok(runtime)) = (serde_json::from_str::<StoredOrder>(order), runtime) else {
        eprintln!("ambient-runner: cannot read the order, or cannot start");
        return EXIT_CANNOT_EXECUTE;
    };
    let done = runtime.block_on(async {
        let reading = Reading::begin(&order)?;
        reading.carry_out().await
    });
    let (answer, content) = match done {
        Ok((answer, content)) => (answer, content),
        Err(error) => (StoredAnswer::Refused(error.told()), Vec::new()),
    };
    match print(&answer, &content) {
        Ok(()) => 0,
        Err(_) => EXIT_CANNOT_EXECUTE,
    }
}

fn print(answer: &StoredAnswer, content: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    out.write_all(content)?;
    out.flush()
}

struct Reading<'a> {
    order: &'a StoredOrder,
    rights: Rights,
    deadline: Instant,
}

impl<'a> Reading<'a> {
    fn begin(order: &'a StoredOrder) -> Result<Self> {
        let io = |e: std::io::Error| Error::io("cannot open the packs' folder", &e);
        let like = match &order.look {
            StoredLook::Diff { to, .. } => to,
            StoredLook::File { tree, .. } => tree,
        };
        make_bare(&order.folder, None, check_object(like)?).map_err(io)?;
        let directory = Directory::open(&order.folder).map_err(io)?;
        let limits = Limits { processes: 64, open_files: 256, address_space_bytes: MEMORY, ..Limits::default() };
        let rights = Rights {
            mode: order.confinement,
            write: Vec::new(),
            read: Vec::new(),
            pinned: vec![directory.pinned(true)],
            limits: Limits { file_size_bytes: FILE, ..limits },
            own_network: true,
            own_user: false,
            user: None,
            hidden: vec![order.hidden.clone()],
            place: Place::Own,
            groups: Vec::new(),
        };
        Ok(Self { order, rights, deadline: Instant::now() + PATIENCE })
    }

    async fn carry_out(mut self) -> Result<(StoredAnswer, Vec<u8>)> {
        self.settle_place().await?;
        for pack in self.packs()? {
            self.git(&["index-pack", "--threads=1"], &[pack], MAX_WORDS).await?;
        }
        match &self.order.look {
            StoredLook::Diff { from, to, path } => self.diff(from.as_deref(), to, path).await,
            StoredLook::File { tree, path } => self.file(tree, path).await,
        }
    }

    /// Without namespaces, or with confinement switched off, git has what confinement there is.
    async fn settle_place(&mut self) -> Result<()> {
        if self.order.confinement == Confinement::Off {
            (self.rights.place, self.rights.own_network) = (Place::Here, false);
            return Ok(());
        }
        let (code, _, said) = self.run(&["--version"], &[], MAX_WORDS).await?;
        if code == EXIT_CANNOT_EXECUTE {
            if self.order.confinement == Confinement::Require {
                return Err(Error::Conflict(format!("git cannot be confined on this machine: {said}")));
            }
            (self.rights.place, self.rights.own_network) = (Place::Here, false);
        }
        Ok(())
    }

    fn packs(&self) -> Result<Vec<PathBuf>> {
        let io = |e: std::io::Error| Error::io("cannot list the packs", &e);
        let entries = std::fs::read_dir(self.order.folder.join("objects/pack")).map_err(io)?;
        let mut packs = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(io)?;
        packs.retain(|path| path.extension() == Some(OsStr::new("pack")));
        if packs.len() > MAX_PACKS {
            return Err(Error::TooLarge(format!("more than {MAX_PACKS} packs")));
        }
        Ok(packs)
    }

    async fn diff(&self, from: Option<&str>, to: &str, path: &str) -> Result<(StoredAnswer, Vec<u8>)> {
        let path = parse("path", path)?;
        let from = match from {
            Some(from) => check_object(from)?.to_owned(),
            None => {
                let empty = self.git(&["hash-object", "-t", "tree", "/dev/null"], &[], MAX_WORDS).await?;
                String::from_utf8_lossy(&empty.0).trim().to_owned()
            }
        };
        let trees = [format!("{from}^{{tree}}"), format!("{}^{{tree}}", check_object(to)?)];
        let arguments = [&EXACTLY[..], &["--no-renames", &trees[0], &trees[1], "--"]].concat();
        let paths: Vec<_> = Some(path).filter(|path| !path.as_os_str().is_empty()).into_iter().collect();
        let most = usize::try_from(self.order.most).unwrap_or(usize::MAX);
        let (mut patch, truncated) = self.git(&arguments, &paths, most).await?;
        if truncated {
            let end = patch.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            patch.truncate(end);
        }
        Ok((StoredAnswer::Found { truncated, mode: None }, patch))
    }

    async fn file(&self, tree: &str, path: &str) -> Result<(StoredAnswer, Vec<u8>)> {
        let wanted = parse_beneath("path", path)?;
        let tree = format!("{}^{{tree}}", check_object(tree)?);
        let (listed, _) = self.git(&["ls-tree", "-z", "-l", "--full-tree", &tree, "--"], &[wanted], MAX_WORDS).await?;
        let entry = listed.split(|byte| *byte == 0).next().unwrap_or_default();
        let about = entry.split(|byte| *byte == b'\t').next().unwrap_or_default();
        let about = String::from_utf8_lossy(about).into_owned();
        let fields: Vec<&str> = about.split_whitespace().collect();
        let [mode, "blob", object, size] = fields[..] else {
            return match fields.get(1) {
                None => Err(Error::NotFound(format!("no '{path}' in the snapshot"))),
                Some(_) => Err(Error::bad("path", "is not a file")),
            };
        };
        let most = self.order.most;
        if size.parse::<u64>().is_ok_and(|size| size > most) {
            return Err(Error::TooLarge(format!("the file has {size} bytes; at most {most} are given")));
        }
        let limit = usize::try_from(most).unwrap_or(usize::MAX);
        let (content, truncated) = self.git(&["cat-file", "blob", check_object(object)?], &[], limit).await?;
        Ok((StoredAnswer::Found { truncated, mode: Some(mode.to_owned()) }, content))
    }

    /// The start of standard output, and whether there was more.
    async fn git(&self, arguments: &[&str], paths: &[PathBuf], most: usize) -> Result<(Vec<u8>, bool)> {
        let what = arguments.first().copied().unwrap_or_default();
        match self.run(arguments, paths, most).await? {
            (0, output, _) => Ok(output),
            (_, _, said) => Err(Error::Conflict(format!("the stored snapshot cannot be read: git {what}: {said}"))),
        }
    }

    async fn run(&self, arguments: &[&str], paths: &[PathBuf], most: usize) -> Result<(i32, (Vec<u8>, bool), String)> {
        let io = |e: std::io::Error| Error::io("cannot run git", &e);
        let folder: &Path = &self.order.folder;
        let place = self.rights.place.clone();
        let mut command = confined_in(place, &self.rights, folder, "git".as_ref()).map_err(io)?;
        command.args(arguments).args(paths).envs(environment::of_stored(folder));
        command.env("GIT_LITERAL_PATHSPECS", "1").process_group(0).stdin(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(io)?;
        let (pid, stdout, stderr) = (child.id(), child.stdout.take(), child.stderr.take());
        let work = async {
            let (output, errors) = tokio::join!(take(stdout, most), take(stderr, MAX_ERRORS));
            (output, errors, child.wait().await)
        };
        let Ok((output, errors, status)) = timeout_at(self.deadline, work).await else {
            if let Some(group) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            let reason = format!("the stored snapshot could not be read within {} s", PATIENCE.as_secs());
            return Err(Error::Conflict(reason));
        };
        let status = status.map_err(io)?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Ok((code, output, quoted(&String::from_utf8_lossy(&errors.0))))
    }
}
