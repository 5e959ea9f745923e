//! Who is asking.

use std::sync::Arc;

use ambient_domain::{
    project::{Project, Role},
    session::Session,
};
use serde::{Deserialize, Serialize};

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Name, as recorded in operations.
    pub name: String,
    /// Groups, for roles granted to them.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What it is.
    pub kind: PrincipalKind,
}

/// The type of a principal; decides where its roles come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// Has a role everywhere.
    Platform(PlatformRole),
    /// Has the roles that projects grant.
    Person,
    /// An agent's session in one run; sees and works with only itself.
    Session {
        /// Session.
        id: String,
        /// The run its token belongs to.
        run: i64,
    },
}

/// A role in every project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlatformRole {
    /// Everything.
    Admin,
    /// Look.
    Viewer,
}

/// Shared [`Principal`], as passed along with a request.
pub(crate) type SharedPrincipal = Arc<Principal>;

impl Principal {
    /// A platform administrator.
    #[must_use]
    pub fn platform_admin(name: impl Into<String>) -> Self {
        Self { name: name.into(), groups: Vec::new(), kind: PrincipalKind::Platform(PlatformRole::Admin) }
    }

    /// A person with the roles that projects grant.
    #[must_use]
    pub fn person(name: impl Into<String>, groups: Vec<String>) -> Self {
        Self { name: name.into(), groups, kind: PrincipalKind::Person }
    }

    /// The run of a session.
    pub(crate) fn session(id: &str, run: i64) -> Self {
        let kind = PrincipalKind::Session { id: id.to_owned(), run };
        Self { name: format!("session:{id}"), groups: Vec::new(), kind }
    }

    /// Role in every project.
    pub(super) fn platform_role(&self) -> Option<Role> {
        match self.kind {
            PrincipalKind::Platform(PlatformRole::Admin) => Some(Role::Admin),
            PrincipalKind::Platform(PlatformRole::Viewer) => Some(Role::View),
            PrincipalKind::Person | PrincipalKind::Session { .. } => None,
        }
    }

    /// Role in a project.
    pub(super) fn role_in(&self, project: &Project) -> Option<Role> {
        match self.kind {
            PrincipalKind::Platform(_) => self.platform_role(),
            PrincipalKind::Person => project.role_of(&self.name, &self.groups),
            PrincipalKind::Session { .. } => None,
        }
    }

    /// Role that a session's token gives on that session.
    pub(super) fn role_on_itself(&self, session: &Session) -> Option<Role> {
        match &self.kind {
            PrincipalKind::Session { id, run } if *id == session.id => {
                session.run_with_valid_tokens().filter(|valid| valid.number == *run).map(|_| Role::Edit)
            }
            _ => None,
        }
    }

    /// The session whose token it is.
    pub(super) fn session_id(&self) -> Option<&str> {
        match &self.kind {
            PrincipalKind::Session { id, .. } => Some(id),
            PrincipalKind::Platform(_) | PrincipalKind::Person => None,
        }
    }
}
