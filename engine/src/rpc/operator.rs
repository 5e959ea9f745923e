//! `OperatorService`: custom search attributes. The rest of it is not supported.

use prost::Message;
use temporalio_common::protos::temporal::api::{
    enums::v1::IndexedValueType,
    operatorservice::v1::{
        AddSearchAttributesRequest, AddSearchAttributesResponse, ListSearchAttributesRequest,
        ListSearchAttributesResponse,
    },
};
use tonic::Status;

use crate::{
    engine::Engine,
    proto::{db, decode},
    search_attributes::{self, MAX_CUSTOM},
    store,
};

pub(super) const SERVICE: &str = "temporal.api.operatorservice.v1.OperatorService";

pub(super) async fn call(engine: &Engine, name: &str, request: &[u8]) -> Result<Vec<u8>, Status> {
    match name {
        "AddSearchAttributes" => add(engine, decode(name, request)?).await.map(|r| r.encode_to_vec()),
        "ListSearchAttributes" => list(engine, decode(name, request)?).await.map(|r| r.encode_to_vec()),
        _ => Err(Status::unimplemented(format!("OperatorService/{name} is not supported by this engine"))),
    }
}

/// Clients of older servers leave the namespace out.
fn check_namespace(engine: &Engine, namespace: &str) -> Result<(), Status> {
    if namespace.is_empty() { Ok(()) } else { super::check_namespace(engine, namespace) }
}

async fn add(engine: &Engine, request: AddSearchAttributesRequest) -> Result<AddSearchAttributesResponse, Status> {
    check_namespace(engine, &request.namespace)?;
    let mut wanted: Vec<(String, i16)> = Vec::new();
    for (name, kind) in request.search_attributes {
        search_attributes::check_name(&name)?;
        let known = IndexedValueType::try_from(kind).ok().filter(|k| *k != IndexedValueType::Unspecified);
        let Some(kind) = known.and_then(|k| i16::try_from(k as i32).ok()) else {
            return Err(Status::invalid_argument(format!("search attribute {name}: type {kind} is not known")));
        };
        wanted.push((name, kind));
    }
    wanted.sort();
    let (names, kinds): (Vec<String>, Vec<i16>) = wanted.into_iter().unzip();
    let pool = &engine.inner.store.pool;
    let mut transaction = store::begin(pool).await.map_err(db)?;
    sqlx::query(
        "insert into engine.search_attributes (name, type) select * from unnest($1::text[], $2::smallint[])
         on conflict (name) do nothing",
    )
    .bind(&names)
    .bind(&kinds)
    .execute(&mut *transaction)
    .await
    .map_err(db)?;
    let (count, other): (i64, Option<String>) = sqlx::query_as(
        "select (select count(*) from engine.search_attributes), (select min(s.name) from engine.search_attributes s
            join unnest($1::text[], $2::smallint[]) k(name, type) on k.name = s.name and k.type <> s.type)",
    )
    .bind(&names)
    .bind(&kinds)
    .fetch_one(&mut *transaction)
    .await
    .map_err(db)?;
    // Dropping the transaction here rolls it back.
    if let Some(name) = other {
        return Err(Status::already_exists(format!("search attribute {name} already exists with another type")));
    }
    if count > MAX_CUSTOM {
        let text = format!("there would be {count} custom search attributes, at most {MAX_CUSTOM} are allowed");
        return Err(Status::resource_exhausted(text));
    }
    transaction.commit().await.map_err(db)?;
    engine.custom_attributes().await?;
    Ok(AddSearchAttributesResponse {})
}

async fn list(engine: &Engine, request: ListSearchAttributesRequest) -> Result<ListSearchAttributesResponse, Status> {
    check_namespace(engine, &request.namespace)?;
    let custom = engine.custom_attributes().await?;
    Ok(ListSearchAttributesResponse {
        storage_schema: custom.keys().map(|name| (name.clone(), "jsonb".to_owned())).collect(),
        custom_attributes: custom.into_iter().map(|(name, kind)| (name, kind as i32)).collect(),
        system_attributes: search_attributes::built_in().map(|(n, k)| (n.to_owned(), k as i32)).collect(),
    })
}
