//! Watches what sessions use: memory where no cgroup does, their share of the disk, and the disk as a whole.
//!
//! One thread per host, because every check blocks. The response is always the same: kill the agent, record why, report it. Scanning a
//! session's files is expensive; it is done when the file system has lost enough space since the last scan that the limit may have been
//! passed.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use ambient_runner_protocol::LaunchSpec;

use super::{
    cgroup::Controller,
    disk,
    host::Local,
    hub::Key,
    layout::read_json,
    processes::{Entry, Table, own_memory},
    space::Free,
};
use crate::Shortage;

/// Between two checks of the file system.
const TICK: Duration = Duration::from_millis(250);
/// Between two checks of memory, in ticks.
const MEMORY: u32 = 4;
/// Between two scans of a session's files: minimum, and maximum unless that would cost too much.
const SCAN_SOONEST: Duration = Duration::from_secs(1);
const SCAN_LATEST: Duration = Duration::from_secs(60);
/// The same as multiples of the last scan's cost.
const SOONEST_COST: u32 = 10;
const LATEST_COST: u32 = 100;
/// Checks after which the reserve is released: by then every session's files have been scanned.
const RELEASE: u32 = 6;
/// A session that has grown by less since the last scan is not what fills the disk.
const GROWTH: u64 = 1 << 20;

/// Starts the thread; it ends with the compute.
pub(super) fn start(local: &Arc<Local>) {
    let weak = Arc::downgrade(local);
    let started = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || run(&weak));
    if let Err(error) = started {
        tracing::error!(%error, "sessions' use of memory and disk cannot be watched");
    }
}

fn run(local: &Weak<Local>) {
    let mut watchdog = Watchdog::default();
    loop {
        std::thread::sleep(TICK);
        let Some(local) = local.upgrade().filter(|local| !local.hub.is_closed()) else { return };
        watchdog.look(&local);
    }
}

#[derive(Default)]
struct Watchdog {
    ticks: u32,
    /// Consecutive checks that found too little space.
    low: u32,
    free: Option<u64>,
    /// Total bytes the file system has lost: what others give back in between does not hide what a session takes.
    lost: u64,
    runs: HashMap<Key, Watched>,
}

/// A run that is up.
struct Watched {
    intent: LaunchSpec,
    used: u64,
    grown: bool,
    looked: Option<Instant>,
    cost: Duration,
    lost_then: u64,
    over: Option<Over>,
}

/// It has exhausted a limit; its agent was killed.
struct Over {
    shortage: Shortage,
    message: String,
    recorded: bool,
}

impl Watchdog {
    fn look(&mut self, local: &Local) {
        self.ticks = self.ticks.wrapping_add(1);
        self.follow(local);
        if self.ticks.is_multiple_of(MEMORY) {
            self.look_at_memory(local);
            self.runs.iter_mut().for_each(|(key, run)| run.record(local, key));
        }
        let Some(free) = local.space.look() else { return };
        self.lost += self.free.map_or(0, |before| before.saturating_sub(free.bytes));
        self.free = Some(free.bytes);
        self.look_at_files(local, free);
        self.low = if free.is_low() { self.low.saturating_add(1) } else { 0 };
        if free.is_low() {
            self.relieve(local, free);
        } else if self.ticks.is_multiple_of(MEMORY) {
            local.space.keep_reserve();
        }
    }

    /// Runs that are currently up, with their limits.
    fn follow(&mut self, local: &Local) {
        let up = local.hub.followed();
        self.runs.retain(|key, _| up.contains(key));
        for key in up {
            if self.runs.contains_key(&key) {
                continue;
            }
            let (session, run, attempt) = &key;
            let Ok(Some(intent)) = read_json::<LaunchSpec>(&local.paths(session).launch(*run, *attempt)) else {
                continue;
            };
            let (cost, lost_then) = (Duration::ZERO, self.lost);
            self.runs.insert(key, Watched { intent, used: 0, grown: false, looked: None, cost, lost_then, over: None });
        }
    }

    fn look_at_memory(&mut self, local: &Local) {
        let grouped = local.groups.has(Controller::Memory);
        let table = (!grouped && self.runs.values().any(|run| run.intent.limits.memory_bytes > 0)).then(Table::look);
        for (key, run) in
            self.runs.iter_mut().filter(|(_, run)| run.over.is_none() && run.intent.limits.memory_bytes > 0)
        {
            let limit = run.intent.limits.memory_bytes;
            let message = match &table {
                // What cannot be read now is read at the next check.
                None if local.groups.group(&key.0.session_id, key.1).out_of_memory().is_ok_and(|ended| ended > 0) => {
                    format!("the agent was ended at its limit on memory, {} MiB", limit >> 20)
                }
                None => continue,
                Some(table) => {
                    let used = memory(&members(local, key, table));
                    if used <= limit {
                        continue;
                    }
                    format!(
                        "the agent's processes had {} MiB of memory, their limit is {} MiB",
                        used >> 20,
                        limit >> 20
                    )
                }
            };
            run.end(local, key, Shortage::OutOfMemory, message);
        }
    }

    fn look_at_files(&mut self, local: &Local, free: Free) {
        let lost = self.lost;
        for (key, run) in self.runs.iter_mut().filter(|(_, run)| run.over.is_none()) {
            let limit = run.intent.limits.disk_bytes;
            if !run.is_due(lost, free.is_low()) {
                continue;
            }
            let files = run.measure(local, key, lost);
            let (used, most) = (run.used >> 20, limit >> 20);
            let message = if limit == 0 {
                continue;
            } else if run.used > limit {
                format!("the session's files take {used} MiB of the disk, their limit is {most} MiB")
            } else if files > disk::ENTRIES {
                format!(
                    "the session has more than {} files, which cannot be counted against its limit on disk",
                    disk::ENTRIES
                )
            } else {
                continue;
            };
            run.end(local, key, Shortage::DiskFull, message);
        }
    }

    /// The disk is nearly full: sessions that fill it and have more than their share are killed, largest first; then the reserve is
    /// released.
    fn relieve(&mut self, local: &Local, free: Free) {
        let candidates = self.runs.iter().filter(|(_, run)| run.over.is_none());
        let (count, used) = candidates.clone().fold((0, 0), |(count, used), (_, run)| (count + 1, used + run.used));
        let share = (used + free.bytes).saturating_sub(free.low_water) / u64::max(count, 1);
        let largest = candidates.filter(|(_, run)| run.grown && run.used > share).max_by_key(|(_, run)| run.used);
        if let Some(key) = largest.map(|(key, _)| key.clone())
            && let Some(run) = self.runs.get_mut(&key)
        {
            let message = format!(
                "the server's disk is nearly full ({} MiB free), and of its sessions this one takes most, {} MiB",
                free.bytes >> 20,
                run.used >> 20
            );
            run.end(local, &key, Shortage::DiskFull, message);
        }
        // Even if none of our sessions fills the disk; the culprit was looked for first.
        if free.is_critical && self.low > RELEASE {
            local.space.release_reserve();
        }
    }
}

impl Watched {
    fn end(&mut self, local: &Local, key: &Key, shortage: Shortage, message: String) {
        local.tell_exhausted(key, shortage, &message);
        local.end_exhausted(&key.0, &self.intent, shortage, &message);
        let recorded = local.record(&key.0, &self.intent, shortage, &message);
        self.over = Some(Over { shortage, message, recorded });
    }

    /// A full disk may not have accepted the record.
    fn record(&mut self, local: &Local, key: &Key) {
        if let Some(over) = self.over.as_mut().filter(|over| !over.recorded) {
            over.recorded = local.record(&key.0, &self.intent, over.shortage, &over.message);
        }
    }

    fn is_due(&self, lost: u64, low: bool) -> bool {
        let Some(looked) = self.looked else { return true };
        let age = looked.elapsed();
        let limit = self.intent.limits.disk_bytes;
        let may_be_over = limit > 0 && lost - self.lost_then >= limit.saturating_sub(self.used);
        let soonest = SCAN_SOONEST.max(self.cost * SOONEST_COST);
        age > SCAN_LATEST.max(self.cost * LATEST_COST) || (age > soonest && (may_be_over || low))
    }

    /// Scans the session's files; returns how many there are.
    fn measure(&mut self, local: &Local, key: &Key, lost: u64) -> usize {
        let begin = Instant::now();
        let paths = local.paths(&key.0);
        let (workspace, home, tmp) = (paths.workspace(), paths.home(), paths.tmp());
        let grouped = local.groups.group(&key.0.session_id, key.1).processes();
        let processes = if grouped.is_empty() { pids(&members(local, key, &Table::look())) } else { grouped };
        let disk::Use { bytes, entries, .. } = disk::measure(&[&workspace, &home, &tmp], &processes);
        self.grown = self.looked.is_some() && bytes > self.used + GROWTH;
        self.used = bytes;
        self.cost = begin.elapsed();
        self.looked = Some(Instant::now());
        self.lost_then = lost;
        entries
    }
}

fn members(local: &Local, (session, run, attempt): &Key, table: &Table) -> Vec<Entry> {
    let marks = local.marks(&local.paths(session), &[(*run, *attempt)]);
    marks.map(|marks| table.members(&marks)).unwrap_or_default()
}

fn pids(members: &[Entry]) -> Vec<i32> {
    members.iter().map(|member| member.pid).collect()
}

/// Private memory of these processes, bytes: file-backed pages are shared.
fn memory(members: &[Entry]) -> u64 {
    members.iter().filter_map(|member| own_memory(member.pid).ok()).sum()
}
