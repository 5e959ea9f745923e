//! What a handler may do with what it was given, as types.

use ambient_domain::project::Role;

/// A right on a target.
pub(crate) trait Right: Send + Sync + 'static {
    /// Least role.
    const ROLE: Role;
    /// Whether a refusal is told (403) or looks like absence (404).
    const CHANGES: bool;
}

/// Look.
#[derive(Debug)]
pub(crate) enum View {}
/// Work with it.
#[derive(Debug)]
pub(crate) enum Edit {}
/// Own it.
#[derive(Debug)]
pub(crate) enum Admin {}

impl Right for View {
    const ROLE: Role = Role::View;
    const CHANGES: bool = false;
}
impl Right for Edit {
    const ROLE: Role = Role::Edit;
    const CHANGES: bool = true;
}
impl Right for Admin {
    const ROLE: Role = Role::Admin;
    const CHANGES: bool = true;
}
