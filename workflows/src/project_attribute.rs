//! The search attribute by which a project's executions are found, on both engines.
//!
//! It is registered before anything is started with it: an engine refuses a start with an attribute it does not know.

use std::time::Duration;

use temporalio_client::{
    Client,
    tonic::{Code, IntoRequest as _, Status},
};
use temporalio_common::{
    protos::temporal::api::{
        enums::v1::IndexedValueType, operatorservice::v1::AddSearchAttributesRequest,
        workflowservice::v1::CountWorkflowExecutionsRequest,
    },
    search_attributes::{SearchAttributeKey, SearchAttributes},
};
use temporalio_sdk::ContinueAsNewOptions;

/// Its name, of type `Keyword`.
pub const NAME: &str = "AmbientProjectId";
const KEY: SearchAttributeKey<String> = SearchAttributeKey::keyword(NAME);

/// Between two checks whether the engine knows it already.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The attribute for an execution that works for this project.
pub(crate) fn of(project_id: &str) -> SearchAttributes {
    SearchAttributes::new([KEY.value_set(project_id.to_owned())])
}

/// How an execution that works for this project continues as new, even one that started before the attribute existed.
pub(crate) fn kept(project_id: &str) -> ContinueAsNewOptions {
    ContinueAsNewOptions::builder().search_attributes(of(project_id)).build()
}

/// Whether an engine refused a start because it has not learnt of the attribute yet: another server's part of a cluster may lag behind.
pub(crate) fn is_unknown(status: &Status) -> bool {
    status.code() == Code::InvalidArgument && status.message().contains(NAME)
}

/// Registers it, and waits until the engine accepts it in queries: each part of a cluster learns of it in its own time.
///
/// # Errors
/// When it is not registered and must not be. The caller limits the time.
pub(crate) async fn ensure(client: &Client) -> Result<(), String> {
    if is_known(client).await? {
        return Ok(());
    }
    let request = AddSearchAttributesRequest {
        search_attributes: [(NAME.to_owned(), IndexedValueType::Keyword as i32)].into(),
        namespace: client.options().namespace.clone(),
    };
    match client.connection().operator_service().add_search_attributes(request.into_request()).await {
        Ok(_) => tracing::info!(attribute = NAME, "registered the search attribute"),
        // Another server was faster.
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => {
            return Err(format!(
                "search attribute {NAME} (Keyword) does not exist and cannot be created: {}",
                status.message()
            ));
        }
    }
    while !is_known(client).await? {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

async fn is_known(client: &Client) -> Result<bool, String> {
    let query = format!("{NAME} = 'none'");
    let request = CountWorkflowExecutionsRequest { namespace: client.options().namespace.clone(), query };
    match client.connection().workflow_service().count_workflow_executions(request.into_request()).await {
        Ok(_) => Ok(true),
        Err(status) if is_unknown(&status) => Ok(false),
        Err(status) => Err(status.message().to_owned()),
    }
}
