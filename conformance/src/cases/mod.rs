//! The cases, by feature. Each is small and controls its task boundaries itself: what happens next waits for what came before.

mod activities;
mod basics;
mod cancellation;
mod children;
mod lost;
mod messages;
mod runs;

use crate::case::Case;

/// All of them.
pub fn all() -> Vec<Case> {
    let groups = [
        basics::cases(),
        activities::cases(),
        cancellation::cases(),
        children::cases(),
        lost::cases(),
        messages::cases(),
        runs::cases(),
    ];
    groups.into_iter().flatten().collect()
}
