//! For how long what finished sessions have left is kept, where their projects do not say.

use ambient_domain::retention::{KeptDays, MOST_DAYS, RetentionRules};
use clap::Args;
use serde::Serialize;

use super::{ConfigError, layers::Layers};

/// Keys of these settings, in the order of [`RetentionConfig`].
pub(super) const KEYS: &[&str] = &["event_keep_days", "workspace_keep_days", "keep_days_min", "keep_days_max"];

/// Retention of what sessions leave. That of stored snapshots is with the store's settings.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RetentionConfig {
    /// Days to keep the events of finished sessions' logs, after a snapshot covers them; 0 = for ever.
    pub event_keep_days: u32,
    /// Days to keep the workspaces of finished sessions; 0 = until the session is deleted.
    pub workspace_keep_days: u32,
    /// Fewest days that a project may say.
    pub keep_days_min: u32,
    /// Most days that anything is kept; 0 = no bound.
    pub keep_days_max: u32,
}

/// Flags of these settings.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct RetentionFlags {
    /// Days to keep the events of finished sessions' logs; 0 = for ever [default: 0]
    #[arg(long, value_name = "DAYS", hide_short_help = true)]
    pub(crate) event_keep_days: Option<String>,
    /// Days to keep the workspaces of finished sessions; 0 = until the session is deleted [default: 0]
    #[arg(long, value_name = "DAYS", hide_short_help = true)]
    pub(crate) workspace_keep_days: Option<String>,
    /// Fewest days that a project may say [default: 1]
    #[arg(long, value_name = "DAYS", hide_short_help = true)]
    pub(crate) keep_days_min: Option<String>,
    /// Most days that a project may say; 0 = no bound [default: 0]
    #[arg(long, value_name = "DAYS", hide_short_help = true)]
    pub(crate) keep_days_max: Option<String>,
}

impl RetentionConfig {
    pub(super) fn take(layers: &mut Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            event_keep_days: layers.take("event_keep_days")?.unwrap_or(0),
            workspace_keep_days: layers.take("workspace_keep_days")?.unwrap_or(0),
            keep_days_min: layers.take("keep_days_min")?.unwrap_or(1),
            keep_days_max: layers.take("keep_days_max")?.unwrap_or(0),
        })
    }

    /// What projects go by.
    #[must_use]
    pub fn rules(&self, snapshot_keep_days: u32) -> RetentionRules {
        let Self { event_keep_days, workspace_keep_days, keep_days_min, keep_days_max } = *self;
        let defaults =
            KeptDays { events: event_keep_days, workspaces: workspace_keep_days, snapshots: snapshot_keep_days };
        RetentionRules { defaults, min_days: keep_days_min, max_days: keep_days_max }
    }

    /// The first invalid setting, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let Self { event_keep_days, workspace_keep_days, keep_days_min, keep_days_max } = *self;
        let days = [
            ("event_keep_days", event_keep_days),
            ("workspace_keep_days", workspace_keep_days),
            ("keep_days_max", keep_days_max),
        ];
        if let Some((key, _)) = days.iter().find(|(_, days)| *days > MOST_DAYS) {
            return Some((key, format!("must be from 0 to {MOST_DAYS}")));
        }
        if !(1..=MOST_DAYS).contains(&keep_days_min) {
            return Some(("keep_days_min", format!("must be from 1 to {MOST_DAYS}")));
        }
        if keep_days_max > 0 && keep_days_max < keep_days_min {
            return Some(("keep_days_max", format!("must be 0, or at least keep_days_min ({keep_days_min})")));
        }
        None
    }
}
