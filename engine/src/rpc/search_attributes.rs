//! Search attributes in requests and responses: checked against the registered ones, and given their types.

use std::collections::HashMap;

use temporalio_common::protos::temporal::api::{
    command::v1::{Command, command::Attributes as C},
    common::v1::SearchAttributes,
    enums::v1::IndexedValueType as Type,
};
use tonic::Status;

use crate::{
    engine::Engine,
    proto::db,
    search_attributes::{MAX_KEYS, MAX_TOTAL_BYTES, SYSTEM, UNSUPPORTED, check_value, is_null},
};

/// The attributes a command sets, on whichever run.
fn set_by(command: &mut Command) -> Option<&mut SearchAttributes> {
    match command.attributes.as_mut()? {
        C::UpsertWorkflowSearchAttributesCommandAttributes(a) => a.search_attributes.as_mut(),
        C::ContinueAsNewWorkflowExecutionCommandAttributes(a) => a.search_attributes.as_mut(),
        C::StartChildWorkflowExecutionCommandAttributes(a) => a.search_attributes.as_mut(),
        _ => None,
    }
}

impl Engine {
    /// The type of a custom or predefined attribute.
    pub(crate) async fn attribute_type(&self, name: &str) -> Result<Option<Type>, Status> {
        if let Some(known) = self.inner.attributes.get(name) {
            return Ok(Some(known));
        }
        self.custom_attributes().await?;
        Ok(self.inner.attributes.get(name))
    }

    /// The custom attributes, as currently registered.
    pub(crate) async fn custom_attributes(&self) -> Result<HashMap<String, Type>, Status> {
        let rows: Vec<(String, i16)> = sqlx::query_as("select name, type from engine.search_attributes")
            .fetch_all(&self.inner.store.pool)
            .await
            .map_err(db)?;
        let types = rows.into_iter().filter_map(|(name, kind)| Some((name, Type::try_from(i32::from(kind)).ok()?)));
        let types: HashMap<String, Type> = types.collect();
        self.inner.attributes.learn(&types);
        Ok(types)
    }

    /// Checks the attributes of a request that starts a run, and adds the types of their values, which is how histories show them.
    pub(crate) async fn accept_search_attributes(
        &self,
        attributes: Option<&mut SearchAttributes>,
    ) -> Result<(), Status> {
        let Some(attributes) = attributes else { return Ok(()) };
        self.check_search_attributes(attributes).await?;
        self.with_types(Some(attributes)).await
    }

    /// Refuses (`InvalidArgument`) unregistered attributes, the engine's own, or values of the wrong type.
    async fn check_search_attributes(&self, attributes: &SearchAttributes) -> Result<(), Status> {
        let fields = &attributes.indexed_fields;
        if fields.len() > MAX_KEYS {
            let (count, max) = (fields.len(), MAX_KEYS);
            return Err(Status::invalid_argument(format!("number of search attributes {count} exceeds limit {max}")));
        }
        let total: usize = fields.iter().map(|(name, payload)| name.len() + payload.data.len()).sum();
        if total > MAX_TOTAL_BYTES {
            let text = format!("total size of search attributes {total} exceeds size limit {MAX_TOTAL_BYTES}");
            return Err(Status::invalid_argument(text));
        }
        let mut names: Vec<&String> = fields.keys().collect();
        names.sort();
        for name in names {
            if SYSTEM.iter().any(|(n, _)| n == name) || UNSUPPORTED.contains(&name.as_str()) {
                let text = format!("{name} attribute can't be set in SearchAttributes");
                return Err(Status::invalid_argument(text));
            }
            let Some(kind) = self.attribute_type(name).await? else {
                let namespace = &self.inner.options.namespace;
                return Err(Status::invalid_argument(format!(
                    "Namespace {namespace} has no mapping defined for search attribute {name}"
                )));
            };
            match fields.get(name) {
                Some(payload) if !is_null(payload) => check_value(name, kind, payload)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Like [`Self::accept_search_attributes`], for the commands of a workflow task: why the task has failed
    /// (`BAD_SEARCH_ATTRIBUTES`), if it has.
    pub(crate) async fn refused_search_attributes(&self, commands: &mut [Command]) -> Result<Option<String>, Status> {
        for attributes in commands.iter_mut().filter_map(set_by) {
            match self.accept_search_attributes(Some(attributes)).await {
                Err(status) if status.code() == tonic::Code::InvalidArgument => {
                    return Ok(Some(status.message().to_owned()));
                }
                checked => checked?,
            }
        }
        Ok(None)
    }

    /// Adds each value's type, which clients need to read it.
    pub(crate) async fn with_types(&self, attributes: Option<&mut SearchAttributes>) -> Result<(), Status> {
        for (name, payload) in attributes.into_iter().flat_map(|a| a.indexed_fields.iter_mut()) {
            if !payload.metadata.contains_key("type")
                && let Some(kind) = self.attribute_type(name).await?
            {
                payload.metadata.insert("type".to_owned(), format!("{kind:?}").into_bytes());
            }
        }
        Ok(())
    }
}
