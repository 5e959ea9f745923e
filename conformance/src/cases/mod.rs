//! The cases, by feature. Each is small and decides its task boundaries itself: what happens next waits for what was before.

mod activities;
mod basics;
mod cancellation;
mod children;
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
        messages::cases(),
        runs::cases(),
    ];
    groups.into_iter().flatten().collect()
}
