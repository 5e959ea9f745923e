//! Step failures planned by the test, and a record of what was tried.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use ambient_domain::WorkflowInput;
use ambient_workflows::{StepError, StepHook};
use async_trait::async_trait;
use tokio::sync::watch;

/// Where a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum When {
    Before,
    After,
}

/// A planned failure.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// At these steps; none = at every step.
    steps: Option<Vec<&'static str>>,
    when: When,
    /// How often at each step of an attempt.
    times: usize,
    kind: Kind,
    /// It waits until the other end of this is dropped.
    held: Option<Held>,
}

type Held = watch::Receiver<()>;

/// What the hook says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Retry,
    Fatal,
    Superseded,
    /// It only waits.
    Held,
}

impl Fault {
    /// A failure that no repeat mends.
    pub(crate) fn fatal(step: &'static str) -> Self {
        Self { steps: Some(vec![step]), when: When::Before, times: usize::MAX, kind: Kind::Fatal, held: None }
    }
    /// The step fails for good, but not before what comes with it is dropped.
    pub(crate) fn fatal_when_let(step: &'static str) -> (Self, watch::Sender<()>) {
        let (let_go, held) = watch::channel(());
        (Self { held: Some(held), ..Self::fatal(step) }, let_go)
    }
    /// The step waits until what comes with it is dropped, and fails in no way.
    pub(crate) fn held(step: &'static str) -> (Self, watch::Sender<()>) {
        let (fault, let_go) = Self::fatal_when_let(step);
        (Self { kind: Kind::Held, ..fault }, let_go)
    }
    /// The step's work is done; when what comes with it is dropped, it fails, once.
    pub(crate) fn after(step: &'static str) -> (Self, watch::Sender<()>) {
        let (let_go, held) = watch::channel(());
        (Self { held: Some(held), ..Self::twice(vec![step]) }, let_go)
    }
    /// A failure that stays until the plan is cleared.
    pub(crate) fn endless(step: &'static str) -> Self {
        Self { kind: Kind::Retry, ..Self::fatal(step) }
    }
    /// The step is told that somebody else has taken over.
    pub(crate) fn superseded(step: &'static str) -> Self {
        Self { kind: Kind::Superseded, ..Self::fatal(step) }
    }
    /// Every step fails so often before its work.
    pub(crate) fn everywhere(times: usize) -> Self {
        Self { steps: None, when: When::Before, times, kind: Kind::Retry, held: None }
    }
    /// Every step fails once when its work is done, so that it is done twice.
    pub(crate) fn all_twice() -> Self {
        Self { steps: None, when: When::After, times: 1, kind: Kind::Retry, held: None }
    }
    /// These steps fail once when their work is done.
    pub(crate) fn twice(steps: Vec<&'static str>) -> Self {
        Self { steps: Some(steps), ..Self::all_twice() }
    }
}

/// Name of the sweep among entities.
pub(crate) const SWEEP: &str = "sweep";

#[derive(Default)]
struct State {
    plans: HashMap<String, Vec<Fault>>,
    /// (entity, attempt, step, number of the fault) -> failures so far.
    injected: HashMap<(String, i32, String, usize), usize>,
    seen: HashMap<(String, String, When), usize>,
}

/// The hook.
#[derive(Default, Clone)]
pub(crate) struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// What goes wrong with a session, a project or the sweep.
    pub(crate) fn plan(&self, entity: &str, faults: &[Fault]) {
        let mut state = self.0.lock().unwrap();
        state.injected.retain(|(other, ..), _| other != entity);
        state.plans.insert(entity.to_owned(), faults.to_vec());
    }
    /// Nothing goes wrong with it from now on.
    pub(crate) fn clear(&self, entity: &str) {
        self.0.lock().unwrap().plans.remove(entity);
    }
    /// How often a step was begun.
    pub(crate) fn begun(&self, entity: &str, step: &str) -> usize {
        self.seen(entity, step, When::Before)
    }
    /// How often a step's work was done.
    pub(crate) fn done(&self, entity: &str, step: &str) -> usize {
        self.seen(entity, step, When::After)
    }
    fn seen(&self, entity: &str, step: &str, when: When) -> usize {
        let key = (entity.to_owned(), step.to_owned(), when);
        self.0.lock().unwrap().seen.get(&key).copied().unwrap_or_default()
    }

    async fn pass(&self, step: &str, input: &WorkflowInput, when: When) -> Result<(), StepError> {
        let Some((outcome, held)) = self.planned(step, input, when) else { return Ok(()) };
        if let Some(mut held) = held {
            let _ = held.changed().await;
        }
        outcome
    }

    fn planned(&self, step: &str, input: &WorkflowInput, when: When) -> Option<(Result<(), StepError>, Option<Held>)> {
        let mut state = self.0.lock().unwrap();
        let State { plans, injected, seen } = &mut *state;
        let entity = match (&input.session_id, &input.project_id) {
            (session, _) if !session.is_empty() => session,
            (_, project) if !project.is_empty() => project,
            _ => SWEEP,
        };
        *seen.entry((entity.to_owned(), step.to_owned(), when)).or_default() += 1;
        for (number, fault) in plans.get(entity).into_iter().flatten().enumerate() {
            let concerned = fault.when == when && fault.steps.as_ref().is_none_or(|steps| steps.contains(&step));
            let so_far = injected.entry((entity.to_owned(), input.attempt, step.to_owned(), number)).or_default();
            if concerned && *so_far < fault.times {
                *so_far += 1;
                let message = format!("injected at {step}");
                let reason = "Injected";
                let outcome = match fault.kind {
                    Kind::Fatal => Err(StepError::Fatal { reason, message }),
                    Kind::Retry => Err(StepError::Retry { reason, message }),
                    Kind::Superseded => Err(StepError::Superseded),
                    Kind::Held => Ok(()),
                };
                return Some((outcome, fault.held.clone()));
            }
        }
        None
    }
}

#[async_trait]
impl StepHook for Faults {
    async fn before(&self, step: &str, input: &WorkflowInput) -> Result<(), StepError> {
        self.pass(step, input, When::Before).await
    }
    async fn after(&self, step: &str, input: &WorkflowInput) -> Result<(), StepError> {
        self.pass(step, input, When::After).await
    }
}
