//! Changes that wait to be written, in the hands of a simulation.

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
    /// Nothing is written from now on but what is taken with [`Self::take_held`].
    pub(crate) fn hold_all(&self) {
        self.queue().led = true;
    }

    pub(crate) fn held(&self) -> usize {
        self.queue().waiting.len()
    }

    /// The change that waits at this place.
    pub(crate) fn take_held(&self, place: usize) -> Option<Held> {
        self.queue().waiting.remove(place).map(Held)
    }
}
