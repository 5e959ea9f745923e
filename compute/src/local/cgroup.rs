//! Cgroups: what ends and limits all processes of a run together, wherever they have gone.
//!
//! A run's cgroup is `ambient/{data directory}/{session}.{run}`, with `runner` and `agent` beneath it, in every hierarchy there is:
//! controllers may be on hierarchies of their own (v1), on the single one (v2), or, on a hybrid machine, on the former while only
//! the latter can kill a whole cgroup (`cgroup.kill`) and report that it is empty (`cgroup.events`). The agent has the limit, and the
//! runner is next to it with a small allowance of its own, so that the agent's memory use does not kill the runner.
//!
//! Invariants: only the server creates, limits and removes cgroups; the session's users may only move processes
//! between the two, whose sum the parent cgroup limits; a cgroup is removed only when nothing can start in it.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ambient_runner_protocol::Limits;
use rustix::io::Errno;

use super::user_ids::Users;

/// What a runner needs for itself.
const RUNNER_MEMORY: u64 = 256 << 20;
const RUNNER_PROCESSES: u64 = 128;
/// The kernel's own maximum.
const MOST_PROCESSES: u64 = 4_194_304;
/// CPU period, microseconds; the longer one where the share would be too small for it.
const PERIODS: [u64; 2] = [100_000, 1_000_000];
const SMALLEST_QUOTA: u64 = 1_000;
/// Between two attempts to remove a cgroup.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What limits something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// A hierarchy in which this server may create cgroups.
#[derive(Debug, Clone)]
struct Tree {
    /// Where this data directory's cgroups are.
    home: PathBuf,
    unified: bool,
    controllers: Vec<Controller>,
}

/// This machine's hierarchies, as far as we may use them.
#[derive(Debug, Clone, Default)]
pub(super) struct Trees {
    trees: Vec<Tree>,
}

/// The group of one run. It need not exist.
#[derive(Debug, Clone)]
pub(super) struct RunGroup {
    /// Its directory in each hierarchy.
    places: Vec<(PathBuf, Tree)>,
}

/// A hierarchy as it is mounted.
struct Mount {
    point: PathBuf,
    root: String,
    unified: bool,
    options: String,
}

impl Trees {
    /// Looks for hierarchies and creates the cgroups that contain the runs'; `installation` identifies this data directory.
    pub(super) fn detect(installation: &str) -> Self {
        let (mounts, own) = mounted();
        let mut found = Self::default();
        let mut left = Controller::ALL.to_vec();
        let mut problems = Vec::new();
        for mount in &mounts {
            let wanted: Vec<_> = left.iter().copied().filter(|c| mount.unified || mount.has(*c)).collect();
            if wanted.is_empty() && !mount.unified {
                continue;
            }
            match Tree::prepare(mount, &own, installation, &wanted) {
                Ok(tree) => {
                    left.retain(|controller| !tree.controllers.contains(controller));
                    found.trees.push(tree);
                }
                Err(error) => problems.push(format!("{}: {error}", mount.point.display())),
            }
        }
        if !left.is_empty() {
            let left = left.iter().map(|controller| controller.name()).collect::<Vec<_>>().join(", ");
            tracing::warn!(left, problems = problems.join("; "), "control groups do not limit everything of sessions");
        }
        found
    }

    /// The cgroups of a data directory, where they exist; creates none.
    pub(super) fn existing(installation: &str) -> Self {
        let (mounts, own) = mounted();
        let trees = mounts.iter().flat_map(|mount| {
            let homes = mount.parents(&own).into_iter().map(|parent| parent.join("ambient").join(installation));
            let tree = |home| Tree { home, unified: mount.unified, controllers: Vec::new() };
            homes.filter(|home| home.is_dir()).map(tree).collect::<Vec<_>>()
        });
        Self { trees: trees.collect() }
    }

    pub(super) fn has(&self, controller: Controller) -> bool {
        self.trees.iter().any(|tree| tree.controllers.contains(&controller))
    }

    /// Limits that nothing here enforces, in words.
    pub(super) fn unenforced(&self, limits: &Limits, own_user: bool) -> Vec<String> {
        let without = |controller: Controller| !self.has(controller);
        let mut missing = Vec::new();
        if limits.memory_bytes > 0 && without(Controller::Memory) {
            missing
                .push("limit on memory: no control group; each process is limited and their sum is watched".to_owned());
        }
        if limits.cpu_millis > 0 && without(Controller::Cpu) {
            missing.push("limit on processors: no control group".to_owned());
        }
        if without(Controller::Pids) && !own_user {
            missing.push("limit on processes: no control group".to_owned());
        }
        missing
    }

    /// Removes the cgroups that contain the runs', unless there are some.
    pub(super) fn leave(&self) {
        for tree in &self.trees {
            let _ = fs::remove_dir(&tree.home);
        }
    }

    /// Removes all cgroups of runs, and what contains them. What was just killed keeps its cgroup for a moment.
    pub(super) fn clear(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let runs = self.runs();
            let left = runs.iter().filter(|(session, run)| self.group(session, *run).remove().is_err()).count();
            if left == 0 || Instant::now() > deadline {
                return self.leave();
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The group of a run.
    pub(super) fn group(&self, session_id: &str, run: i64) -> RunGroup {
        let place = |tree: &Tree| (tree.home.join(format!("{session_id}.{run}")), tree.clone());
        RunGroup { places: self.trees.iter().map(place).collect() }
    }

    /// Session and run of every existing cgroup.
    pub(super) fn runs(&self) -> Vec<(String, i64)> {
        let names = self.trees.iter().flat_map(|tree| fs::read_dir(&tree.home)).flatten().flatten();
        let mut runs: Vec<_> = names
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (session, run) = name.rsplit_once('.')?;
                Some((session.to_owned(), run.parse().ok().filter(|_| entry.path().is_dir())?))
            })
            .collect();
        runs.sort();
        runs.dedup();
        runs
    }
}

impl Mount {
    fn has(&self, controller: Controller) -> bool {
        self.options.split(',').any(|option| option == controller.name())
    }

    /// Our own group in this hierarchy.
    fn own(&self, own: &str) -> PathBuf {
        let line = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let ours = if self.unified {
                controllers.is_empty()
            } else {
                controllers.split(',').any(|name| self.options.split(',').any(|option| option == name))
            };
            ours.then_some(path)
        });
        let path = line.unwrap_or("/");
        let path = path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(path);
        self.point.join(path.trim_start_matches('/'))
    }

    /// Cgroups beneath which ours may be created, the best first.
    fn parents(&self, own: &str) -> Vec<PathBuf> {
        let own = self.own(own);
        match self.unified {
            true => unified_parents(self, own),
            false if own.is_dir() => vec![own],
            false => vec![self.point.clone()],
        }
    }
}

impl Tree {
    fn prepare(mount: &Mount, own: &str, installation: &str, wanted: &[Controller]) -> io::Result<Self> {
        let prepare = if mount.unified { unified } else { legacy };
        let mut failure = io::Error::other("not ours to use");
        for parent in mount.parents(own) {
            match prepare(&parent, installation, wanted) {
                Ok(tree) => return Ok(tree),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// On the v2 hierarchy: our own cgroup, if it was delegated to us; for root, the top.
fn unified_parents(mount: &Mount, own: PathBuf) -> Vec<PathBuf> {
    let root = rustix::process::geteuid().is_root();
    let ours = own.metadata().is_ok_and(|about| about.uid() == rustix::process::geteuid().as_raw());
    let handed_over = if root { own == mount.point || is_delegated(&own) } else { ours };
    let top = root.then(|| mount.point.clone());
    let mut parents: Vec<_> = handed_over.then_some(own).into_iter().chain(top).collect();
    parents.dedup();
    parents
}

/// systemd's mark of a group that a service manages itself (`Delegate=`).
fn is_delegated(group: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        matches!(rustix::fs::getxattr(group, *name, &mut value[..]), Ok(length) if value[..length].starts_with(b"1"))
    })
}

fn legacy(parent: &Path, installation: &str, wanted: &[Controller]) -> io::Result<Tree> {
    let home = make(&make(&parent.join("ambient"))?.join(installation))?;
    Ok(Tree { home, unified: false, controllers: wanted.to_vec() })
}

fn unified(parent: &Path, installation: &str, wanted: &[Controller]) -> io::Result<Tree> {
    let available = fs::read_to_string(parent.join("cgroup.controllers"))?;
    let wanted: Vec<_> =
        wanted.iter().copied().filter(|c| available.split_whitespace().any(|name| name == c.name())).collect();
    if hand_down(parent, &wanted).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {
        // A cgroup that passes controllers down has no processes of its own: we step aside.
        let aside = make(&parent.join("ambient-server"))?;
        fs::write(aside.join("cgroup.procs"), std::process::id().to_string())?;
    }
    hand_down(parent, &wanted)?;
    let ambient = make(&parent.join("ambient"))?;
    hand_down(&ambient, &wanted)?;
    let home = make(&ambient.join(installation))?;
    hand_down(&home, &wanted)?;
    Ok(Tree { home, unified: true, controllers: wanted })
}

/// Enables controllers for the cgroups beneath.
fn hand_down(group: &Path, controllers: &[Controller]) -> io::Result<()> {
    let file = group.join("cgroup.subtree_control");
    let now = fs::read_to_string(&file)?;
    for controller in controllers.iter().filter(|c| !now.split_whitespace().any(|name| name == c.name())) {
        fs::write(&file, format!("+{}", controller.name()))?;
    }
    Ok(())
}

fn make(group: &Path) -> io::Result<PathBuf> {
    match DirBuilder::new().mode(0o755).create(group) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(group.to_owned()),
    }
}

impl RunGroup {
    /// Recreates the cgroup, with limits; processes of the session's users may enter its two parts.
    ///
    /// # Errors
    /// A system error; something of the run is alive in it.
    pub(super) fn create(&self, limits: &Limits, users: Option<Users>) -> io::Result<()> {
        self.remove()?;
        for (place, tree) in &self.places {
            // Another server on this data directory may have removed it when it ended.
            make(&tree.home)?;
            if tree.unified {
                hand_down(&tree.home, &tree.controllers)?;
            }
            make(place)?;
            if tree.unified {
                hand_down(place, &tree.controllers)?;
            }
            let parts = [place.clone(), make(&place.join("runner"))?, make(&place.join("agent"))?];
            for controller in &tree.controllers {
                limit(*controller, tree.unified, place, limits)?;
            }
            let Some(Users { agent, runner }) = users else { continue };
            for processes in parts.map(|part| part.join("cgroup.procs")) {
                std::os::unix::fs::chown(&processes, Some(agent), Some(runner))?;
                fs::set_permissions(&processes, Permissions::from_mode(0o664))?;
            }
        }
        Ok(())
    }

    /// Moves a runner in; what it starts follows.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn add_runner(&self, pid: u32) -> io::Result<()> {
        self.parts("runner").try_for_each(|part| fs::write(part.join("cgroup.procs"), pid.to_string()))
    }

    /// Whether a process has been moved in, in every hierarchy.
    pub(super) fn has_runner(&self, pid: i32) -> bool {
        let pid = pid.to_string();
        self.parts("runner").all(|part| {
            let processes = fs::read_to_string(part.join("cgroup.procs")).unwrap_or_default();
            processes.lines().any(|line| line == pid)
        })
    }

    /// What every process of the agent has to enter.
    pub(super) fn agent_groups(&self) -> Vec<PathBuf> {
        self.parts("agent").collect()
    }

    fn parts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        self.places.iter().map(move |(place, _)| place.join(name))
    }

    fn unified(&self) -> Option<&Path> {
        self.places.iter().find(|(place, tree)| tree.unified && place.is_dir()).map(|(place, _)| place.as_path())
    }

    /// Kills the agent's processes at once, however fast they fork. False if this kernel or machine cannot.
    pub(super) fn kill_agent(&self) -> bool {
        self.unified().is_some_and(|place| fs::write(place.join("agent/cgroup.kill"), "1").is_ok())
    }

    /// Kills the runner too.
    pub(super) fn kill(&self) -> bool {
        self.unified().is_some_and(|place| fs::write(place.join("cgroup.kill"), "1").is_ok())
    }

    /// Whether no process is left; none if nothing could tell.
    ///
    /// # Errors
    /// A system error: then it is unknown.
    pub(super) fn is_empty(&self) -> io::Result<Option<bool>> {
        let Some(place) = self.unified() else { return Ok(None) };
        let populated = read_if_there(&place.join("cgroup.events"))?.and_then(|text| value(&text, "populated"));
        Ok(populated.map(|populated| populated == 0))
    }

    /// Processes of the group, from the first hierarchy that has it.
    pub(super) fn processes(&self) -> Vec<i32> {
        let Some((place, _)) = self.places.iter().find(|(place, _)| place.is_dir()) else { return Vec::new() };
        let texts = ["runner", "agent"].map(|part| fs::read_to_string(place.join(part).join("cgroup.procs")));
        // A process of another PID namespace would be shown as 0.
        texts
            .iter()
            .flatten()
            .flat_map(|text| text.lines())
            .filter_map(|pid| pid.parse().ok())
            .filter(|p| *p > 0)
            .collect()
    }

    /// How many of the agent's processes were killed for lack of memory.
    ///
    /// # Errors
    /// A system error: then it is unknown.
    pub(super) fn out_of_memory(&self) -> io::Result<u64> {
        let has_memory = |(_, tree): &&(PathBuf, Tree)| tree.controllers.contains(&Controller::Memory);
        let Some((place, tree)) = self.places.iter().find(has_memory) else { return Ok(0) };
        let file = if tree.unified { "agent/memory.events" } else { "agent/memory.oom_control" };
        Ok(read_if_there(&place.join(file))?.and_then(|text| value(&text, "oom_kill")).unwrap_or(0))
    }

    /// Removes the group.
    ///
    /// # Errors
    /// A system error: `ResourceBusy` while a process is alive in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        for (place, _) in &self.places {
            for group in [place.join("agent"), place.join("runner"), place.clone()] {
                match fs::remove_dir(&group) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn limit(controller: Controller, unified: bool, group: &Path, limits: &Limits) -> io::Result<()> {
    match controller {
        Controller::Memory if limits.memory_bytes > 0 => {
            for (part, bytes) in [("agent", limits.memory_bytes), ("", limits.memory_bytes + RUNNER_MEMORY)] {
                limit_memory(unified, &group.join(part), bytes)?;
            }
            // The agent is killed as a whole, not a process here and there.
            if unified { set_if_known(&group.join("agent/memory.oom.group"), 1) } else { Ok(()) }
        }
        Controller::Pids => {
            let agent = limits.processes.min(MOST_PROCESSES - RUNNER_PROCESSES);
            set(&group.join("agent/pids.max"), agent)?;
            set(&group.join("pids.max"), agent + RUNNER_PROCESSES)
        }
        Controller::Cpu if limits.cpu_millis > 0 => limit_cpu(unified, group, limits.cpu_millis),
        Controller::Memory | Controller::Cpu => Ok(()),
    }
}

/// Swap would only postpone the limit; kernels without swap accounting lack its file.
fn limit_memory(unified: bool, group: &Path, bytes: u64) -> io::Result<()> {
    if unified {
        set(&group.join("memory.max"), bytes)?;
        return set_if_known(&group.join("memory.swap.max"), 0);
    }
    set(&group.join("memory.limit_in_bytes"), bytes)?;
    set_if_known(&group.join("memory.memsw.limit_in_bytes"), bytes)
}

fn limit_cpu(unified: bool, group: &Path, millis: u64) -> io::Result<()> {
    let quota = |period: u64| period * millis / 1000;
    let [short, long] = PERIODS;
    let period = if quota(short) < SMALLEST_QUOTA { long } else { short };
    let quota = quota(period).max(SMALLEST_QUOTA);
    if unified {
        return fs::write(group.join("cpu.max"), format!("{quota} {period}"));
    }
    set(&group.join("cpu.cfs_period_us"), period)?;
    set(&group.join("cpu.cfs_quota_us"), quota)
}

/// A file of a cgroup; none if the cgroup, or the file in this kernel, does not exist. A cgroup may disappear while it is read.
fn read_if_there(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn set(file: &Path, value: u64) -> io::Result<()> {
    fs::write(file, value.to_string())
}

/// A file that not every kernel has. Cgroup files cannot be created: where they are missing, creating them is not permitted.
fn set_if_known(file: &Path, value: u64) -> io::Result<()> {
    match set(file, value) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Err(error),
        _ => Ok(()),
    }
}

fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The hierarchies of this machine, and the cgroups this process is in (`/proc/self/cgroup`).
fn mounted() -> (Vec<Mount>, String) {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    (mounts(&read("/proc/self/mountinfo")), read("/proc/self/cgroup"))
}

/// Mounted hierarchies, those with a single controller first: that is where a hybrid machine's controllers are.
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (mounted, source) = line.split_once(" - ")?;
        let mut source = source.split(' ');
        let (kind, options) = (source.next()?, source.nth(1)?);
        let fields: Vec<_> = mounted.split(' ').collect();
        let (root, point) = (*fields.get(3)?, *fields.get(4)?);
        let unified = kind == "cgroup2";
        (unified || kind == "cgroup").then(|| Mount {
            point: point.into(),
            root: root.to_owned(),
            unified,
            options: options.to_owned(),
        })
    };
    let mut mounts: Vec<_> = mountinfo.lines().filter_map(mount).collect();
    mounts.sort_by_key(|mount| mount.unified);
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_on_pure_and_hybrid_machines_and_in_containers() {
        let hybrid = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
                      33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      22 31 0:3 / /proc rw - proc proc rw\n";
        let found = mounts(hybrid);
        assert_eq!(found.iter().map(|mount| mount.unified).collect::<Vec<_>>(), [false, false, true]);
        assert!(found[0].has(Controller::Memory) && found[1].has(Controller::Cpu) && !found[1].has(Controller::Pids));
        let own = "4:memory:/box/x\n1:cpu,cpuacct:/\n0::/init.scope\n";
        assert_eq!(found[0].own(own), Path::new("/sys/fs/cgroup/memory/box/x"));
        assert_eq!(found[1].own(own), Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found[2].own(own), Path::new("/sys/fs/cgroup/unified/init.scope"));
        let bound = mounts("35 31 0:32 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate\n");
        assert_eq!(bound[0].own("0::/docker/abc\n"), Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        assert_eq!(value("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(value("populated 1\nfrozen 0\n", "populated"), Some(1));
        assert_eq!(value("oom_kills 1\n", "oom_kill"), None);
    }
}
