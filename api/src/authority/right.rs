//! What a handler may do with what it was given, as types.

use ambient_domain::project::Role;

/// A right on a target.
pub(crate) trait Right: Send + Sync + 'static {
    /// Minimum role.
    const ROLE: Role;
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
}
impl Right for Edit {
    const ROLE: Role = Role::Edit;
}
impl Right for Admin {
    const ROLE: Role = Role::Admin;
}
