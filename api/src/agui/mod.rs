//! AG-UI 1.0 as a projection of live logs.
//!
//! Nothing of AG-UI is stored: its events are made from the log by a pure function ([`projector`]), so every reader gets the same ones, and may
//! stop and go on anywhere ([`place`]). A turn is one run or several: a permission request ends a run, what comes until it is closed belongs to
//! the next.

pub(crate) mod answer;
pub(crate) mod history;
pub(crate) mod input;
mod one_run;
mod place;
mod projector;
pub(crate) mod runs;
pub(crate) mod stream;
