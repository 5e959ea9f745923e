//! The saga tests of every lifecycle: fail at every step, every step twice, every undo twice; and what people do meanwhile.
//!
//! Everything is real except time: Postgres, actors, engine, worker, local compute, the runner's binary, git. The tables of
//! steps are the workflows' own, so a new step is covered automatically. Needs `cargo build --workspace --bins`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "tests")]

#[path = "../replay/branch.rs"]
mod branch;
mod clocks;
#[allow(dead_code, reason = "read by the tests of replay")]
#[path = "../replay/corpus.rs"]
mod corpus;
mod deleted;
mod engine;
mod faults;
mod life;
mod long_running;
mod lost_runner;
mod meanwhile;
mod rare;
mod recording;
mod start;
mod stop;
mod worker;
mod world;
