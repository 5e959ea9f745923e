//! One run, its workers, its clients and another process, and everything that can happen to them in any order.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use rand::{Rng, rngs::StdRng};
use sqlx::PgPool;
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowType, history::v1::WorkflowExecutionSignaledEventAttributes,
    history::v1::history_event::Attributes, workflowservice::v1::StartWorkflowExecutionRequest,
};
use tokio::task::{JoinHandle, yield_now};
use uuid::Uuid;

use super::{
    database::{Attempt, Database, attempt, attempt_of},
    requests::{Answer, Request, Task, Told},
};
use crate::{
    clock::Clock,
    engine::Engine,
    history::workflow_task::holds,
    hot::{Remembered, Tail},
    lease::Lease,
    matching::{self, Kind},
    model::{Activity, Loaded, Run, Start, StartPolicy, Target, TaskState},
    options::EngineOptions,
    proto,
    recorded::{Recorded, decoded},
    rpc::start::new_run,
    store::{CommitError, Store, writer::Writer},
    token::TaskToken,
};

/// The worker's own queue.
pub(super) const STICKY: &str = "sticky";
/// The queue of the workflow and its activities.
const QUEUE: &str = "q";
/// Everything a worker polls.
const POLLED: [(Kind, &str); 3] = [(Kind::Workflow, QUEUE), (Kind::Workflow, STICKY), (Kind::Activity, QUEUE)];
/// Things that happen in one simulation.
const STEPS: usize = 40;
/// The end must come within this many looks.
const LOOKS: usize = 4000;

/// What a worker has in its hands.
#[derive(Clone)]
pub(super) enum Held {
    Task(Box<Task>),
    Activity(Box<Activity>),
}

type Hands = Arc<Mutex<Vec<Held>>>;

pub(super) struct World {
    random: StdRng,
    engine: Engine,
    database: Arc<Database>,
    run: Uuid,
    hands: Hands,
    asked: Vec<JoinHandle<()>>,
    pollers: Vec<JoinHandle<()>>,
    /// Requests so far, for their names.
    names: usize,
    /// The task that a worker of another process has.
    abroad: Option<TaskToken>,
    abroad_process: Uuid,
    revision: i64,
    loud: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// `pool` is never connected.
    pub(super) fn new(pool: &PgPool, random: StdRng, loud: bool) -> Self {
        let database: Arc<Database> = Arc::default();
        let connect = pool.connect_options();
        let lanes = ambient_postgres::Lanes::new(&connect, 1);
        let writer = Arc::new(Writer::new(lanes.clone(), tokio::runtime::Handle::current()));
        writer.hold_all();
        let tables: Arc<dyn crate::store::tables::Tables> = Arc::<Database>::clone(&database);
        let store = Store { pool: pool.clone(), lanes, writer, tables: Some(tables) };
        let now = chrono::Utc::now();
        let lease = Lease::of(Uuid::new_v4(), Instant::now(), connect.as_ref().clone());
        let (engine, _) =
            Engine::assemble(EngineOptions::patient(), store, pool.clone(), lease, Clock::new(now, now), 1);
        let mut world = Self {
            random,
            engine,
            database,
            run: Uuid::nil(),
            hands: Arc::default(),
            asked: Vec::new(),
            pollers: Vec::new(),
            names: 0,
            abroad: None,
            abroad_process: Uuid::new_v4(),
            revision: 0,
            loud,
        };
        world.begin();
        world
    }

    /// A run whose first task waits in the database.
    fn begin(&mut self) {
        let request = StartWorkflowExecutionRequest {
            workflow_id: "w".to_owned(),
            workflow_type: Some(WorkflowType { name: "any".to_owned() }),
            task_queue: Some(proto::queue(QUEUE)),
            ..Default::default()
        };
        let (now, wall) = self.engine.inner.clock.both();
        let start = Start::new(new_run(request, None).unwrap(), StartPolicy::Reuse(Default::default()), now, wall);
        self.run = start.run.run_id;
        self.database.start(&start);
        self.engine.created(&start);
    }

    /// Lets everything happen, in this world's order, and then come to rest.
    pub(super) async fn live(mut self) {
        for step in 0..STEPS {
            self.step();
            for _ in 0..self.random.random_range(0..6) {
                yield_now().await;
            }
            self.check(step % 8 == 0);
        }
        self.rest().await;
    }

    fn step(&mut self) {
        let (what, step): (&str, fn(&mut Self)) = match self.random.random_range(0..100) {
            0..25 => ("a write ends", Self::write),
            25..45 => ("poll", Self::poll),
            45..72 => ("work", Self::work),
            72..77 => ("signal", Self::signal),
            77..82 => ("flush", Self::flush),
            82..90 => ("elsewhere", Self::elsewhere),
            90..92 => ("time out", |world| world.ask(|request| async move { request.time_out().await })),
            92..94 => ("give back", Self::give_back),
            94..96 => ("forget", |world| drop(world.engine.inner.hot.take(world.run))),
            96..97 => ("hang up", Self::hang_up),
            97..98 => ("retire", Self::retire),
            _ => ("lease", Self::lease),
        };
        self.say(what);
        step(self);
    }

    /// What happens, for whoever examines one seed.
    fn say(&self, what: &str) {
        if self.loud {
            let state = self.database.run(|run| (run.revision, run.last_event_id, run.wft_state, attempt(run)));
            let hands: Vec<_> = lock(&self.hands).iter().map(Held::attempt).collect();
            let (writes, asked) = (self.engine.inner.store.writer.held(), self.names);
            eprintln!("{what}: run {state:?}, {writes} writes wait, {asked} requests, in hands: {hands:?}");
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn request(&mut self) -> Request {
        self.names += 1;
        let (engine, database) = (self.engine.clone(), Arc::clone(&self.database));
        Request { engine, database, run: self.run, name: format!("request {}", self.names) }
    }

    fn ask<F: Future<Output = ()> + Send + 'static>(&mut self, ask: impl FnOnce(Request) -> F) {
        let request = self.request();
        self.asked.push(tokio::spawn(ask(request)));
    }

    /// One of the waiting writes completes.
    fn write(&mut self) {
        let writer = &self.engine.inner.store.writer;
        let place = self.random.random_range(0..writer.held().max(1));
        let Some(held) = writer.take_held(place) else { return };
        let lost = || CommitError::Db(sqlx::Error::Io(std::io::Error::other("cut")));
        let outcome = match self.random.random_range(0..100) {
            0..82 => self.database.commit(held.transition()),
            // A deadlock, or the like: not written.
            82..86 => Err(CommitError::Conflict),
            86..92 => Err(lost()),
            _ => {
                self.database.commit_unheard(held.transition());
                Err(lost())
            }
        };
        self.say(if outcome.is_ok() { "  written" } else { "  not written, as far as is known" });
        held.answer(outcome);
    }

    fn poll(&mut self) {
        let (kind, queue) = POLLED[self.random.random_range(0..POLLED.len())];
        let poll = poll(self.engine.clone(), Arc::clone(&self.database), Arc::clone(&self.hands), kind, queue);
        self.pollers.retain(|poller| !poller.is_finished());
        if self.pollers.len() < 6 {
            self.pollers.push(tokio::spawn(poll));
        }
    }

    /// A worker finishes what it has, or stays silent about it forever.
    fn work(&mut self) {
        let held = {
            let mut hands = lock(&self.hands);
            if hands.is_empty() {
                return;
            }
            let place = self.random.random_range(0..hands.len());
            hands.swap_remove(place)
        };
        let again = self.chance(15);
        let hands = Arc::clone(&self.hands);
        if again {
            // Reported twice.
            lock(&hands).push(held.clone());
        }
        match held {
            Held::Activity(activity) => self.ask(|request| async move {
                if request.complete_activity(&activity).await == Told::Unknown && !again {
                    lock(&hands).push(Held::Activity(activity));
                }
            }),
            Held::Task(task) => {
                let answer = self.choose();
                self.ask(|request| async move {
                    let (told, mut given) = request.answer(&task, answer).await;
                    if told == Told::Unknown && !again {
                        given.push(Held::Task(task));
                    }
                    lock(&hands).extend(given);
                });
            }
        }
    }

    fn choose(&mut self) -> Answer {
        match self.random.random_range(0..100) {
            0..88 => {
                let activities = self.random.random_range(0..4);
                Answer::Schedule { activities, eager: self.chance(50) }
            }
            88..94 => Answer::Fail,
            _ => Answer::Close,
        }
    }

    fn signal(&mut self) {
        let target = if self.chance(50) { Target::Run(self.run) } else { Target::Current("w".to_owned()) };
        self.ask(|request| async move {
            let _ = request.signal(target).await;
        });
    }

    /// A change has waited long enough.
    fn flush(&mut self) {
        let run = self.run;
        self.ask(|request| async move { request.engine.flush(run).await });
    }

    /// Another process changes the run; most of the time its hint arrives.
    fn elsewhere(&mut self) {
        let (own, abroad) = (self.engine.inner.lease.process(), self.abroad_process);
        let changed = match self.random.random_range(0..6) {
            0 => self.database.elsewhere(abroad, |t| {
                t.arrive(Attributes::WorkflowExecutionSignaledEventAttributes(
                    WorkflowExecutionSignaledEventAttributes::default(),
                ));
                true
            }),
            1 => {
                let queue = if self.chance(50) { QUEUE } else { STICKY };
                let claimed = self.database.claim_task(queue, abroad);
                self.abroad = claimed.as_ref().map(Run::task_token).or(self.abroad.take());
                claimed.is_some()
            }
            2 => {
                let token = self.abroad.take();
                self.database.elsewhere(abroad, |t| {
                    token.is_some_and(|token| holds(&t.run, &token)) && t.time_out_task().is_ok()
                })
            }
            3 => self.end_activity_elsewhere(),
            // It considers this one dead.
            _ if self.engine.inner.lease.is_held() => false,
            _ => self.database.elsewhere(abroad, |t| {
                t.run.wft_state == TaskState::Started && t.run.wft_process == Some(own) && t.time_out_task().is_ok()
            }),
        };
        if changed && self.chance(70) {
            self.engine.inner.hot.take(self.run);
        }
    }

    /// A worker of another process reports an activity.
    fn end_activity_elsewhere(&mut self) -> bool {
        let activities = self.database.activities();
        let Some(activity) = activities.first() else { return false };
        self.database.elsewhere(self.abroad_process, |t| t.complete_activity(activity, "abroad", None).is_ok())
    }

    /// A poll's caller has gone before it received its task.
    fn give_back(&mut self) {
        let mut hands = lock(&self.hands);
        let Some(place) = hands.iter().position(|held| matches!(held, Held::Task(_))) else { return };
        if let Held::Task(task) = hands.swap_remove(place) {
            self.take_back(vec![matching::Task::Workflow { run: Box::new(task.run), events: None }]);
        }
    }

    /// Pollers go.
    fn hang_up(&mut self) {
        self.pollers.drain(..).for_each(|poller| poller.abort());
    }

    /// The worker signs off.
    fn retire(&mut self) {
        if self.chance(20) {
            self.take_back(self.engine.inner.matching.retire(STICKY));
        }
    }

    fn take_back(&self, tasks: Vec<matching::Task>) {
        tasks.iter().for_each(|task| self.database.let_go(attempt_of_ready(task)));
        self.engine.take_back(tasks);
    }

    /// The lease is lost, or there is a new one.
    fn lease(&mut self) {
        let lease = &self.engine.inner.lease;
        if !lease.is_held() {
            lease.renamed(Uuid::new_v4(), Instant::now());
        } else if let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(10)) {
            lease.renewed(long_ago);
        }
    }

    /// What is cached is what is stored, or older.
    fn check(&mut self, events: bool) {
        if let Some(revision) = self.database.run(|run| run.revision) {
            assert!(revision >= self.revision, "the version goes back");
            self.revision = revision;
        }
        let state = |run: &Run| (run.revision, run.last_event_id, run.wft_state, attempt(run), run.buffered.clone());
        let stored = self.database.run(state);
        self.engine.inner.hot.peek(self.run, |Remembered { loaded, tail }| {
            let known = state(&loaded.run);
            assert!(known.0 <= self.revision, "what is not written is remembered");
            let Some(stored) = stored.filter(|stored| stored.0 == known.0) else { return };
            assert_eq!(known, stored, "remembered otherwise than stored");
            if events {
                let remembered = decoded(&tail.since(tail.after).unwrap()).unwrap();
                let after = usize::try_from(tail.after).unwrap();
                self.database.history(|history| assert_eq!(history[after..], remembered, "newest events"));
            }
        });
    }

    /// Nothing more happens, and everyone who waits is told the outcome.
    async fn rest(mut self) {
        self.hang_up();
        if self.chance(50) {
            self.engine.inner.accepting.store(false, Ordering::Release);
        }
        let mut idle = 0;
        for look in 0.. {
            assert!(look < LOOKS, "somebody waits for ever");
            while let Some(held) = self.engine.inner.store.writer.take_held(0) {
                let outcome = self.database.commit(held.transition());
                held.answer(outcome);
            }
            if self.engine.inner.deferred.has(self.run, "w") {
                self.flush();
            }
            for _ in 0..8 {
                yield_now().await;
            }
            let waits = self.engine.inner.store.writer.held() > 0 || self.engine.inner.deferred.has(self.run, "w");
            idle = if waits || !self.asked.iter().all(JoinHandle::is_finished) { 0 } else { idle + 1 };
            // The engine's own tasks (which take things back) are between two steps.
            if idle > 3 {
                break;
            }
            if look % 16 == 15 {
                // One that has lost often pauses for a moment.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        for asked in self.asked.drain(..) {
            if let Err(failed) = asked.await {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
        self.check(true);
        self.nothing_is_lost();
    }

    /// Whatever this process has started is with someone, or held.
    fn nothing_is_lost(&self) {
        let mut here: Vec<_> = lock(&self.hands).iter().map(Held::attempt).collect();
        for (kind, queue) in POLLED {
            let queue = self.engine.inner.matching.queue(kind, queue);
            here.extend(std::iter::from_fn(|| queue.take()).map(|task| attempt_of_ready(&task)));
        }
        let own = Some(self.engine.inner.lease.process());
        let started = |run: &Run| run.wft_state == TaskState::Started && run.wft_process == own;
        let task = self.database.run(|run| started(run).then(|| attempt(run))).flatten();
        let activities = self.database.activities().into_iter().filter(|a| a.is_started() && a.process == own);
        let started = task.into_iter().chain(activities.map(|a| attempt_of(&a)));
        for attempt in started.filter(|attempt| !self.database.is_let_go(*attempt)) {
            assert!(here.contains(&attempt), "{attempt:?} is started and nobody has it: {here:?}");
        }
    }
}

fn attempt_of_ready(task: &matching::Task) -> Attempt {
    match task {
        matching::Task::Workflow { run, .. } => attempt(run),
        matching::Task::Activity(activity) => attempt_of(activity),
    }
}

impl Held {
    pub(super) fn attempt(&self) -> Attempt {
        match self {
            Self::Task(task) => attempt(&task.run),
            Self::Activity(activity) => attempt_of(activity),
        }
    }
}

/// A worker's poll, up to its first task.
async fn poll(engine: Engine, database: Arc<Database>, hands: Hands, kind: Kind, name: &'static str) {
    let queue = engine.inner.matching.queue(kind, name);
    let _present = queue.enter("worker");
    loop {
        let hinted = queue.ready().await;
        if !engine.inner.lease.is_held() {
            return queue.hint();
        }
        let held = match queue.take() {
            Some(task) => Some(taken(&database, task)),
            None => claimed(&engine, &database, kind, name),
        };
        if let Some(held) = held {
            database.give(held.attempt());
            lock(&hands).push(held);
            if hinted {
                queue.hint();
            }
            return;
        }
    }
}

/// Events after the ones a worker has seen, as they are stored.
fn stored(database: &Database, run: &Run) -> (i64, Vec<Recorded>) {
    let after = if run.wft_queue == run.task_queue { 0 } else { run.previous_started_id };
    let comes = after + 1..=run.last_event_id;
    let events =
        database.history(|all| all.iter().filter(|e| comes.contains(&e.event_id)).map(Recorded::new).collect());
    (after, events)
}

fn task(run: Run, shown: &[Recorded]) -> Held {
    Held::Task(Box::new(Task { token: run.task_token(), shown: decoded(shown).unwrap(), run }))
}

/// A task that was held.
fn taken(database: &Database, ready: matching::Task) -> Held {
    match ready {
        matching::Task::Activity(activity) => Held::Activity(activity),
        matching::Task::Workflow { run, events } => {
            let shown = events.unwrap_or_else(|| stored(database, &run).1);
            task(*run, &shown)
        }
    }
}

/// A task that waited in the database.
fn claimed(engine: &Engine, database: &Database, kind: Kind, name: &str) -> Option<Held> {
    let process = engine.inner.lease.process();
    if kind == Kind::Activity {
        let activity = database.claim_activity(process)?;
        engine.inner.hot.put_activity(activity.clone());
        return Some(Held::Activity(Box::new(activity)));
    }
    let run = database.claim_task(name, process)?;
    let (after, events) = stored(database, &run);
    let (now, wall) = engine.inner.clock.both();
    let loaded = Loaded { run: run.clone(), now, wall };
    engine.inner.hot.put(Remembered { loaded, tail: Tail::new(after, events.clone()) });
    Some(task(run, &events))
}
