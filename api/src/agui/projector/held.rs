//! What must wait for the next run.

use super::Happened;

/// Most that is kept, of events and of bytes of their texts; what can be missed is left out first.
const MAX_EVENTS: usize = 4096;
/// Most of those that runs begin and end with: each may begin a run while another is begun.
const MAX_STRUCTURE: usize = 100;
const MAX_BYTES: usize = 4 << 20;

/// Events in their order.
#[derive(Debug, Default)]
pub(super) struct Held {
    events: Vec<Happened>,
    bytes: usize,
    structure: usize,
    left_out: u64,
}

impl Held {
    pub(super) fn push(&mut self, happened: Happened) {
        let is_full = match happened.is_structure() {
            true => self.structure >= MAX_STRUCTURE,
            false => self.events.len() >= MAX_EVENTS || self.bytes >= MAX_BYTES,
        };
        if is_full {
            self.left_out += 1;
            return;
        }
        self.structure += usize::from(happened.is_structure());
        self.bytes += happened.size;
        self.events.push(happened);
    }

    /// Everything, and how many events were left out.
    pub(super) fn take(&mut self) -> (Vec<Happened>, u64) {
        let Self { events, left_out, .. } = std::mem::take(self);
        (events, left_out)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
