//! Who may do what to what: authorisation by lookup.
//!
//! [`AppState`] keeps its parts private to this module. A handler reaches an entity only through [`Access::authorize`] (or an
//! [`Authorized`] extractor, which does the same), which loads it and compares the caller's role with the right that the
//! handler's signature names. Whatever can be done is then a method of the `Authorized` value, and methods that change something
//! exist only for the rights that allow it: a handler cannot forget the check, or name a lesser right than it uses.
//!
//! Deny by default: no role means no access. What the caller may not see looks absent (404), for every method;
//! what it may see but not change is refused (403).
//!
//! Which module may use which: a module uses those on the lines above its own, and nothing else (`tests/tests/module_order.rs` reads this list).
//!
//! * `principal`, `right`: who is asking, and for what
//! * `static_token`, `ticket`: what stands for a principal
//! * `state`: the router's state and its parts
//! * `authenticate`: from credentials to a principal
//! * `access`: the lookup that carries the permission
//! * `execution`, `live_principal`, `operation`, `platform`, `retention`, `secrets`, `uploads`: what can be done to each of these
//! * `runner`, `stored`: the same, where what is gone is told of
//! * `definition`, `session`: the same for entities with variables
//! * `project`: the same for what contains them all

mod access;
mod authenticate;
mod definition;
mod execution;
mod live_principal;
mod operation;
mod platform;
mod principal;
mod project;
mod retention;
mod right;
mod runner;
mod secrets;
mod session;
mod state;
mod static_token;
mod stored;
mod ticket;
mod uploads;

pub(crate) use self::{
    access::{Access, Authorized, Target},
    definition::{Change, New, Permitted},
    execution::Execution,
    live_principal::LivePrincipal,
    platform::{Platform, Registered},
    project::Creation,
    retention::shown,
    right::{Admin, Edit, Right, View},
    secrets::{ENVIRONMENT_VARIABLES, Sealed},
    session::Accepted,
};
pub use self::{
    principal::{PlatformRole, Principal, PrincipalKind},
    state::{ApiConfig, AppParts, AppState},
    static_token::StaticToken,
};
