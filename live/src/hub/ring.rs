//! The newest events of a log, contiguous.

use std::{collections::VecDeque, sync::Arc};

use super::Event;

/// Events `base + 1 ..= last`.
#[derive(Debug, Default)]
pub(super) struct Ring {
    base: i64,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Grown since the last check by [`Ring::shrink_if_idle`].
    grown: bool,
}

/// What a ring has for a cursor.
#[derive(Debug)]
pub(super) enum Taken {
    /// The next events.
    Events(Vec<Arc<Event>>),
    /// Nothing new.
    UpToDate,
    /// The next event is not (or no longer) here: read the table.
    Behind,
}

impl Ring {
    pub(super) fn last(&self) -> i64 {
        self.base + i64::try_from(self.events.len()).unwrap_or(0)
    }

    pub(super) fn base(&self) -> i64 {
        self.base
    }

    /// Empty, to be continued after `last`.
    pub(super) fn reset(&mut self, last: i64) {
        *self = Self { base: last, grown: self.grown, ..Self::default() };
    }

    /// Appends; anything but the next event starts a new ring, so that a ring never has a gap.
    pub(super) fn push(&mut self, event: Arc<Event>, most_events: usize, most_bytes: usize) {
        if event.seq() <= self.last() {
            return;
        }
        if event.seq() != self.last() + 1 {
            self.reset(event.seq() - 1);
        }
        self.grown = true;
        self.bytes += event.json().len();
        self.events.push_back(event);
        while self.events.len() > 1 && (self.events.len() > most_events || self.bytes > most_bytes) {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= oldest.json().len();
                self.base = oldest.seq();
            }
        }
    }

    pub(super) fn after(&self, cursor: i64, most: usize) -> Taken {
        let Ok(skip) = usize::try_from(cursor - self.base) else { return Taken::Behind };
        if skip >= self.events.len() {
            return Taken::UpToDate;
        }
        Taken::Events(self.events.range(skip..).take(most).cloned().collect())
    }

    /// Nothing has arrived since the last call: those who are up to date need no events.
    pub(super) fn shrink_if_idle(&mut self) {
        if !self.grown && !self.events.is_empty() {
            self.reset(self.last());
        }
        self.grown = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64) -> Arc<Event> {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        Arc::new(Event::of(ambient_persistence::StoredEvent {
            session_id: "s".to_owned(),
            seq,
            at,
            event_type: "T".to_owned(),
            data: serde_json::json!({}),
            message_id: None,
            run: None,
            log_id: None,
            runner_seq: None,
            operation_id: None,
        }))
    }

    fn seqs(taken: Taken) -> Vec<i64> {
        match taken {
            Taken::Events(events) => events.iter().map(|event| event.seq()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_ring_keeps_the_newest_events_within_its_bounds_and_sends_others_to_the_table() {
        let mut ring = Ring::default();
        ring.reset(10);
        (11..=20).for_each(|seq| ring.push(event(seq), 4, usize::MAX));
        assert_eq!((ring.base(), ring.last()), (16, 20));
        assert!(matches!(ring.after(15, 9), Taken::Behind));
        assert_eq!(seqs(ring.after(16, 9)), [17, 18, 19, 20]);
        assert_eq!(seqs(ring.after(18, 1)), [19]);
        assert!(matches!(ring.after(20, 9), Taken::UpToDate));
        ring.push(event(21), 4, 1);
        assert_eq!((ring.base(), ring.last()), (20, 21));
    }

    #[test]
    fn a_ring_never_has_a_gap_or_a_repetition() {
        let mut ring = Ring::default();
        [1, 2, 2, 1, 5, 6].into_iter().for_each(|seq| ring.push(event(seq), 9, usize::MAX));
        assert!(matches!(ring.after(2, 9), Taken::Behind));
        assert_eq!(seqs(ring.after(4, 9)), [5, 6]);
    }

    #[test]
    fn an_idle_ring_lets_its_events_go_but_not_its_place() {
        let mut ring = Ring::default();
        ring.push(event(1), 9, usize::MAX);
        ring.shrink_if_idle();
        assert_eq!(seqs(ring.after(0, 9)), [1]);
        ring.shrink_if_idle();
        assert_eq!((ring.base(), ring.last()), (1, 1));
        assert!(matches!(ring.after(1, 9), Taken::UpToDate));
    }
}
