//! For how long what finished sessions have left is kept.
//!
//! A project says so in its settings; what it leaves open is the server's. The server's bounds win over both.

use serde::{Deserialize, Serialize};

use crate::entity::Refusal;

/// Highest number of days.
pub const MOST_DAYS: u32 = 36_500;

/// A session with this label is kept from all of it.
pub const KEEP_LABEL: (&str, &str) = ("retention", "keep");

/// What a project says, in days; 0 = for ever, absent = the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Events of a session's live log, after a snapshot has covered them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_days: Option<u32>,
    /// A session's workspace, after something last happened in the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_days: Option<u32>,
    /// Stored snapshots of a session's turns, after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_days: Option<u32>,
}

/// What is in force, in days; 0 = for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeptDays {
    /// See [`Retention::event_days`].
    pub events: u32,
    /// See [`Retention::workspace_days`].
    pub workspaces: u32,
    /// See [`Retention::snapshot_days`].
    pub snapshots: u32,
}

/// The server's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionRules {
    /// For projects that say nothing.
    pub defaults: KeptDays,
    /// Fewest days.
    pub min_days: u32,
    /// Most days; 0 = no bound.
    pub max_days: u32,
}

impl Retention {
    /// Says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// With what another says, where it says something.
    #[must_use]
    pub fn overridden_by(self, other: Self) -> Self {
        Self {
            event_days: other.event_days.or(self.event_days),
            workspace_days: other.workspace_days.or(self.workspace_days),
            snapshot_days: other.snapshot_days.or(self.snapshot_days),
        }
    }

    /// Checks every field, whatever the server.
    ///
    /// # Errors
    /// A refusal that names the field.
    pub fn validate(&self) -> Result<(), Refusal> {
        for (field, days) in self.fields() {
            if days.is_some_and(|days| days > MOST_DAYS) {
                return Err(Refusal::invalid(field, format!("must be 0 (for ever) to {MOST_DAYS} days")));
            }
        }
        Ok(())
    }

    fn fields(&self) -> [(&'static str, Option<u32>); 3] {
        let Self { event_days, workspace_days, snapshot_days } = *self;
        [("event_days", event_days), ("workspace_days", workspace_days), ("snapshot_days", snapshot_days)]
    }
}

impl RetentionRules {
    /// What is in force for a project that says this. What was within the bounds when it was written, and no longer is, is moved into them.
    #[must_use]
    pub fn in_force(&self, given: Retention) -> KeptDays {
        let of = |days: Option<u32>, default: u32| self.bounded(days.unwrap_or(default));
        KeptDays {
            events: of(given.event_days, self.defaults.events),
            workspaces: of(given.workspace_days, self.defaults.workspaces),
            snapshots: of(given.snapshot_days, self.defaults.snapshots),
        }
    }

    fn bounded(&self, days: u32) -> u32 {
        match days {
            0 => self.max_days,
            days if self.max_days > 0 => days.clamp(self.min_days.min(self.max_days), self.max_days),
            days => days.max(self.min_days),
        }
    }

    /// Whether a project may say this.
    ///
    /// # Errors
    /// A refusal that names the field and the bounds.
    pub fn check(&self, given: &Retention) -> Result<(), Refusal> {
        given.validate()?;
        for (field, days) in given.fields() {
            if days.is_some_and(|days| self.bounded(days) != days) {
                return Err(Refusal::invalid(field, self.bounds()));
            }
        }
        Ok(())
    }

    /// In words.
    #[must_use]
    pub fn bounds(&self) -> String {
        match self.max_days {
            0 => format!("must be 0 (for ever), or at least {} days: the server's bound", self.min_days),
            most => format!("must be {} to {most} days: the server's bounds", self.min_days),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(days: u32) -> Retention {
        Retention { event_days: Some(days), ..Retention::default() }
    }

    #[test]
    fn a_project_says_more_or_less_than_the_server_and_the_servers_bounds_win() {
        let defaults = KeptDays { events: 0, workspaces: 30, snapshots: 90 };
        let open = RetentionRules { defaults, min_days: 2, max_days: 0 };
        assert_eq!(open.in_force(Retention::default()), defaults);
        assert_eq!(open.in_force(given(7)).events, 7);
        assert_eq!(open.in_force(given(0)).events, 0);
        assert_eq!(open.in_force(given(1)).events, 2);
        let bounded = RetentionRules { max_days: 60, ..open };
        assert_eq!(bounded.in_force(Retention::default()), KeptDays { events: 60, workspaces: 30, snapshots: 60 });
        assert_eq!((bounded.in_force(given(0)).events, bounded.in_force(given(99)).events), (60, 60));
        let other = Retention { event_days: Some(3), workspace_days: Some(9), ..Retention::default() };
        assert_eq!(other.overridden_by(given(7)), Retention { event_days: Some(7), ..other });
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_its_field() {
        let rules = RetentionRules { defaults: KeptDays::default(), min_days: 2, max_days: 60 };
        for days in [0, 1, 61, MOST_DAYS + 1] {
            let refused = rules.check(&given(days)).unwrap_err();
            assert_eq!(refused.field.as_deref(), Some("event_days"), "{refused:?}");
        }
        assert!(rules.check(&given(60)).is_ok() && rules.check(&Retention::default()).is_ok());
        let open = RetentionRules { max_days: 0, ..rules };
        assert!(open.check(&given(0)).is_ok() && open.check(&given(MOST_DAYS + 1)).is_err());
    }
}
