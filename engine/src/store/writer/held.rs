//! Changes that wait to be written, under a simulation's control.

use super::{Item, Outcome, Queued, Transition, Writer, answer};

/// A change that waits.
pub(crate) struct Held(Queued);

impl Held {
    pub(crate) fn transition(&self) -> &Transition {
        match &self.0.item {
            Item::Change(transition) => transition,
            Item::Start(_) => unreachable!("a simulation starts no runs"),
        }
    }

    /// Says what became of it.
    pub(crate) fn answer(self, outcome: Outcome) {
        answer(self.0, outcome);
    }
}

impl Writer {
    /// From now on nothing is written except what is taken with [`Self::take_held`].
    pub(crate) fn hold_all(&self) {
        self.queue().led = true;
    }

    pub(crate) fn held(&self) -> usize {
        self.queue().waiting.len()
    }

    /// The change waiting at this position.
    pub(crate) fn take_held(&self, place: usize) -> Option<Held> {
        self.queue().waiting.remove(place).map(Held)
    }
}
