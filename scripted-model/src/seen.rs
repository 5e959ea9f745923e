//! What the endpoint has seen.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

/// Most calls that are remembered.
const MOST: usize = 1000;
/// Largest body that is remembered, bytes.
const MAX_BODY: usize = 256 * 1024;

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// From 1, in order of arrival.
    pub number: u64,
    /// Method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Headers, by name in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body; null if it is larger than 256 KiB or not JSON.
    pub body: Value,
    /// Scenario that answers it; empty if none was named.
    pub scenario: String,
    /// Step of the scenario, from 0.
    pub step: usize,
    /// How it ended.
    pub ending: Ending,
    /// When its head had arrived.
    #[serde(skip)]
    pub began: Instant,
    /// When it ended.
    #[serde(skip)]
    pub ended: Option<Instant>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It has not.
    Open,
    /// With the whole answer.
    Done,
    /// The client closed the connection before.
    ClosedByClient,
}

#[derive(Default)]
pub(crate) struct Calls {
    calls: Mutex<VecDeque<Seen>>,
    changes: watch::Sender<u64>,
}

impl Calls {
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) async fn until(&self, condition: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut changes = self.changes.subscribe();
        loop {
            let all = self.all();
            if condition(&all) {
                return all;
            }
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
    }

    /// A new call, which is open until the returned value says otherwise.
    pub(crate) fn begin(self: &Arc<Self>, method: &str, path: &str, headers: BTreeMap<String, String>) -> Open {
        let number = self.change(|calls| {
            let number = calls.back().map_or(1, |last| last.number + 1);
            let (method, path) = (method.to_owned(), path.to_owned());
            let (body, scenario) = (Value::Null, String::new());
            let (step, ending, began, ended) = (0, Ending::Open, Instant::now(), None);
            calls.push_back(Seen { number, method, path, headers, body, scenario, step, ending, began, ended });
            if calls.len() > MOST {
                calls.pop_front();
            }
            number
        });
        Open { calls: self.clone(), number, ending: Ending::ClosedByClient }
    }

    fn change<T>(&self, change: impl FnOnce(&mut VecDeque<Seen>) -> T) -> T {
        let changed = change(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|changes| *changes += 1);
        changed
    }
}

/// A call that is being answered. Dropped before it is done, its client has gone.
pub(crate) struct Open {
    calls: Arc<Calls>,
    pub(crate) number: u64,
    ending: Ending,
}

impl Open {
    pub(crate) fn body(&self, bytes: &[u8]) {
        let body = if bytes.len() > MAX_BODY { None } else { serde_json::from_slice(bytes).ok() };
        self.change(|call| call.body = body.unwrap_or_default());
    }

    pub(crate) fn plays(&self, scenario: &str, step: usize) {
        self.change(|call| {
            call.scenario = scenario.to_owned();
            call.step = step;
        });
    }

    pub(crate) fn done(mut self) {
        self.ending = Ending::Done;
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        self.calls.change(|calls| {
            if let Some(call) = calls.iter_mut().rev().find(|call| call.number == self.number) {
                change(call);
            }
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let ending = self.ending;
        self.change(|call| {
            call.ending = ending;
            call.ended = Some(Instant::now());
        });
    }
}
