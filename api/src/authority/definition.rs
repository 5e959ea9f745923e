//! What can be done with definitions, of every Kind.

use ambient_actors::{Reply, Request};
use ambient_domain::{Definition, DefinitionSpec, Entity, definition::Command, project::Project};
use ambient_persistence::{StoredEntity, is_ksuid};

use super::{
    access::{Access, Authorized, Found, Target},
    right::Edit,
    secrets::Sealed,
};
use crate::{error::ApiResult, extract::WriteOptions};

/// A definition Kind, as far as permissions are concerned.
pub(crate) trait Permitted: DefinitionSpec {
    /// The definition itself.
    type Entity: StoredEntity<Command = Command<Self>> + Target;
    /// Name of the path parameter with its id.
    const PARAM: &'static str;
}

/// A new definition.
pub(crate) struct New<S> {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) spec: S,
    pub(crate) sealed: Sealed,
}

/// A change to a definition.
pub(crate) struct Change<S: DefinitionSpec> {
    pub(crate) name: Option<String>,
    pub(crate) spec: S::Patch,
    pub(crate) sealed: Sealed,
}

/// Whoever may see and change the project may see and change its definitions. A session's token opens only itself.
impl<S: Permitted> Target for Definition<S>
where
    Definition<S>: StoredEntity,
{
    const KIND: &'static str = S::TITLE;
    const PARAM: &'static str = S::PARAM;

    async fn find(access: &Access, id: &str) -> ApiResult<Option<Found<Self>>> {
        if !is_ksuid(id) {
            return Ok(None);
        }
        let found: Option<Self> = access.state.parts().database.load(id).await?;
        let Some(target) = found.filter(|definition| !definition.is_deleted()) else { return Ok(None) };
        let role = access.role_by_ids(&target.project_id, S::KIND, id).await?;
        Ok(Some(Found { target, role }))
    }
}

impl Authorized<Project, Edit> {
    /// Creates a definition in it.
    pub(crate) async fn create_definition<S: Permitted>(
        &self,
        new: New<S>,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<S::Entity>> {
        let New { id, name, spec, sealed } = new;
        self.access.seal(&sealed).await?;
        let project_id = self.target.id.clone();
        let command = Command::Create { id: id.clone(), project_id, name, spec: Box::new(spec) };
        self.access.call(&id, Request::new(command, self.access.caller()), options).await
    }
}

impl Access {
    /// Changes a definition.
    pub(crate) async fn change_definition<S: Permitted>(
        &self,
        definition: &Authorized<S::Entity, Edit>,
        change: Change<S>,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<S::Entity>> {
        let Change { name, spec, sealed } = change;
        self.seal(&sealed).await?;
        let command = Command::Patch { name, spec: Box::new(spec) };
        self.call(definition.target.id(), Request::new(command, self.caller()), options).await
    }

    /// Deletes a definition.
    pub(crate) async fn delete_definition<S: Permitted>(
        &self,
        definition: &Authorized<S::Entity, Edit>,
        options: WriteOptions<'_>,
    ) -> ApiResult<Reply<S::Entity>> {
        self.call(definition.target.id(), Request::new(Command::Delete, self.caller()), options).await
    }
}
