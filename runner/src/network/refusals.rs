//! What was refused, as records: each host at once and then no more than once in a while, and of very many only the first.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ambient_wire::{
    network::Host,
    runner_event::{NetworkRefusal, RunnerEvent},
};

use crate::log::EventLog;

/// How often repeated refusals are told.
const WINDOW: Duration = Duration::from_secs(60);
/// Hosts that are told of in a window. So there are at most twice as many records, and one more.
const MOST: usize = 32;

/// Counts refusals and records them.
pub(super) struct Refusals {
    log: EventLog,
    window: Mutex<Window>,
}

/// A host, a port, and why.
type Refused = (String, u16, NetworkRefusal);

/// What was refused in the current window, and how much of it is not recorded yet.
#[derive(Default)]
struct Window {
    hosts: BTreeMap<Refused, u64>,
    others: BTreeMap<NetworkRefusal, u64>,
}

impl Window {
    /// Counts a refusal; true if it is to be recorded at once.
    fn count(&mut self, refused: Refused) -> bool {
        if let Some(more) = self.hosts.get_mut(&refused) {
            *more += 1;
            return false;
        }
        if self.hosts.len() < MOST {
            self.hosts.insert(refused, 0);
            return true;
        }
        *self.others.entry(refused.2).or_default() += 1;
        false
    }

    /// What is not recorded yet.
    fn told(self) -> Vec<RunnerEvent> {
        let hosts = self.hosts.into_iter().filter(|(_, more)| *more > 0);
        let others = self.others.into_iter().map(|(why, count)| ((String::new(), 0, why), count));
        hosts.chain(others).map(|(refused, count)| event(refused, count)).collect()
    }
}

fn event((host, port, reason): Refused, count: u64) -> RunnerEvent {
    RunnerEvent::NetworkRefused { host, port, reason, count }
}

impl Refusals {
    pub(super) fn new(log: EventLog) -> Self {
        Self { log, window: Mutex::default() }
    }

    /// Counts a refusal, and records the first of a host.
    pub(super) async fn note(&self, host: &Host, port: u16, why: NetworkRefusal) {
        let refused = (host.to_string(), port, why);
        let is_new = self.window().count(refused.clone());
        if is_new {
            self.record(vec![event(refused, 1)]).await;
        }
    }

    /// Records what is not recorded yet, and begins a new window.
    pub(super) async fn tell(&self) {
        let window = std::mem::take(&mut *self.window());
        self.record(window.told()).await;
    }

    /// Does so for ever.
    pub(super) async fn tell_each_window(&self) {
        loop {
            tokio::time::sleep(WINDOW).await;
            self.tell().await;
        }
    }

    async fn record(&self, events: Vec<RunnerEvent>) {
        if events.is_empty() {
            return;
        }
        if let Err(error) = self.log.push(events).await {
            tracing::warn!(%error, "refusals cannot be recorded");
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ambient_wire::runner_event::{NetworkRefusal::NotAllowed, RunnerEvent};

    use super::{MOST, Window};

    #[test]
    fn a_host_is_told_at_once_and_its_repeats_together_and_too_many_hosts_as_a_number() {
        let mut window = Window::default();
        let told_at_once =
            (0..1_000_000_u64).filter(|i| window.count((format!("h{}", i % 1000), 443, NotAllowed))).count();
        assert_eq!((told_at_once, window.hosts.len()), (MOST, MOST));
        let told = window.told();
        assert_eq!(told.len(), MOST + 1);
        let counts: Vec<_> = told
            .iter()
            .map(|event| match event {
                RunnerEvent::NetworkRefused { host, count, .. } => (host.is_empty(), *count),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(counts[..MOST].iter().all(|told| *told == (false, 999)), "{counts:?}");
        assert_eq!(counts[MOST], (true, (1000 - 32) * 1000));
    }
}
