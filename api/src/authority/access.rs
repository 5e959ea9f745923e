//! The lookup that carries the permission.

use std::marker::PhantomData;

use ambient_domain::project::Role;
use ambient_persistence::StoredEntity;
use axum::{extract::FromRequestParts, http::request::Parts};

use super::{
    authenticate,
    principal::{Principal, SharedPrincipal},
    right::Right,
    state::AppState,
};
use crate::{
    error::{ApiError, ApiResult},
    extract::{no_query, path_param},
    observe::RequestIds,
};

/// An authenticated request: who is asking, and the ids that follow it.
#[derive(Clone)]
pub(crate) struct Access {
    pub(super) state: AppState,
    pub(super) principal: SharedPrincipal,
    pub(super) ids: RequestIds,
}

/// Something that permissions are about.
pub(crate) trait Target: Sized + Send + Sync + 'static {
    /// For people.
    const KIND: &'static str;
    /// Name of the path parameter with its id.
    const PARAM: &'static str;

    /// Loads it, with the caller's role on it. None if it does not exist.
    fn find(access: &Access, id: &str) -> impl Future<Output = ApiResult<Option<Found<Self>>>> + Send;
}

/// A target, not yet authorised.
pub(crate) struct Found<T> {
    pub(super) target: T,
    pub(super) role: Option<Role>,
}

/// A loaded target, and the proof that the caller has right `R` on it.
pub(crate) struct Authorized<T, R> {
    pub(super) access: Access,
    pub(super) target: T,
    right: PhantomData<fn() -> R>,
}

impl Access {
    /// Loads a target and checks the right. What the caller may not see is absent, whatever it wants to do: only a caller that may look is
    /// told that it may not act.
    pub(crate) async fn authorize<T: Target, R: Right>(&self, id: &str) -> ApiResult<Authorized<T, R>> {
        let absent = || ApiError::not_found(T::KIND, id);
        let Found { target, role } = T::find(self, id).await?.ok_or_else(absent)?;
        match role {
            Some(role) if role >= R::ROLE => {}
            Some(_) => return Err(refused(T::KIND, id, R::ROLE)),
            None => return Err(absent()),
        }
        Ok(Authorized { access: self.clone(), target, right: PhantomData })
    }

    /// Whether the credentials are still valid: for connections that outlive a request.
    pub(crate) async fn recheck(&self) -> ApiResult<()> {
        authenticate::still_valid(&self.principal, &self.state).await
    }

    /// Nothing new is started while an administrator drains the workflow engine; what is running continues and can be stopped.
    pub(super) async fn refuse_while_draining(&self) -> ApiResult<()> {
        if self.state.parts().database.is_draining().await? {
            let reason = "an administrator is draining the workflow engine: nothing new is started until `ambient engine drain --undo`";
            return Err(ApiError::unavailable(reason, 60));
        }
        Ok(())
    }

    /// The router's state: only settings are public, its parts belong to this module.
    pub(crate) fn state(&self) -> &AppState {
        &self.state
    }
}

fn refused(kind: &str, id: &str, role: Role) -> ApiError {
    let role = crate::representation::role(role);
    ApiError::forbidden(format!("this needs role '{role}' on {kind} '{}'", id.escape_debug()))
}

impl<T, R> Authorized<T, R> {
    /// The target.
    pub(crate) fn get(&self) -> &T {
        &self.target
    }

    /// The request it was authorised for.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }
}

impl<E: StoredEntity, R> Authorized<E, R> {
    /// The entity as it was at a version.
    pub(crate) async fn at_version(&self, version: i64) -> ApiResult<E> {
        let found = self.access.state.parts().database.load_at(self.target.id(), version).await?;
        found.ok_or_else(|| ApiError::not_found(&format!("{} version", E::TITLE), &version.to_string()))
    }
}

impl FromRequestParts<AppState> for Access {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let principal = authenticate::bearer(&parts.headers, state).await?;
        no_query(parts)?;
        Ok(Self::new(parts, state, principal))
    }
}

impl Access {
    pub(super) fn new(parts: &Parts, state: &AppState, principal: Principal) -> Self {
        let ids = parts.extensions.get::<RequestIds>().cloned().unwrap_or_else(RequestIds::generate);
        tracing::Span::current().record("principal", principal.name.as_str());
        Self { state: state.clone(), principal: SharedPrincipal::new(principal), ids }
    }
}

/// The target that the path names. Runs before the body is read: a caller without rights learns nothing about faults in it.
impl<T: Target, R: Right> FromRequestParts<AppState> for Authorized<T, R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let access = Access::from_request_parts(parts, state).await?;
        let id = path_param(parts, T::PARAM).await?;
        access.authorize(&id).await
    }
}
