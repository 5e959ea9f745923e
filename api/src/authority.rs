//! Who may do what to what: authorisation by lookup.
//!
//! [`AppState`] keeps its parts private to this module. A handler reaches an entity only through [`Access::authorize`] (or an
//! [`Authorized`] extractor, which does the same), which loads it and compares the caller's role with the right that the
//! handler's signature names. Whatever can be done is then a method of the `Authorized` value, and methods that change something
//! exist only for the rights that allow it: a handler cannot forget the check, or name a lesser right than it uses.
//!
//! Deny by default: no role means no access. What the caller may not see looks absent (404), for every method;
//! what it may see but not change is refused (403).

mod access;
mod authenticate;
mod definition;
mod execution;
mod operation;
mod platform;
mod principal;
mod project;
mod right;
mod runner;
mod secrets;
mod session;
mod state;
mod ticket;

pub(crate) use self::{
    access::{Access, Authorized, Target},
    authenticate::LivePrincipal,
    execution::Execution,
    platform::{Platform, Registered},
    project::{Creation, WriteOptions},
    right::{Admin, Edit, View},
    secrets::{ENVIRONMENT_VARIABLES, Sealed},
    session::Accepted,
};
pub use self::{
    authenticate::StaticToken,
    principal::{PlatformRole, Principal, PrincipalKind},
    state::{ApiConfig, AppParts, AppState},
};
