//! What a change reads, from something other than the database: for simulations.

use futures::future::BoxFuture;
use tonic::Status;
use uuid::Uuid;

use crate::model::{Activity, Loaded, Target};

/// A stand-in for the tables.
pub(crate) trait Tables: Send + Sync {
    /// An open run.
    fn load<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Option<Loaded>, Status>>;

    /// A pending activity.
    fn activity(&self, run: Uuid, scheduled_event_id: i64) -> BoxFuture<'_, Result<Option<Activity>, Status>>;
}
