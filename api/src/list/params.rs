//! Query parameters of a Kind's list, derived from its columns.

use std::{fmt, marker::PhantomData};

use ambient_domain::{Column, ColumnType, Entity};
use ambient_persistence::ListQuery;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use utoipa::{
    IntoParams,
    openapi::{
        KnownFormat, Object, ObjectBuilder, Required, SchemaFormat, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{ArrayBuilder, SchemaType},
    },
};

use super::{MAX_SIZE, labels, order, paging, query};
use crate::{
    authority::Access,
    error::{ApiError, ApiResult},
    extract::BETWEEN,
    given,
};

/// Which entities of a Kind, and in what order.
pub(crate) struct ListParams<E> {
    page: Option<i64>,
    size: Option<i64>,
    order_by: Option<String>,
    project_id: Option<String>,
    label: Vec<String>,
    /// Filter values, by the column's name in the API.
    filters: Vec<(&'static str, String)>,
    kind: PhantomData<fn() -> E>,
}

impl<E: Entity> ListParams<E> {
    /// The store's query; a project may be given by name.
    pub(crate) async fn query(self, access: &Access) -> ApiResult<ListQuery> {
        let paging = paging(self.page, self.size, MAX_SIZE)?;
        let order = order(self.order_by.as_deref(), &ordered::<E>())?;
        let project_id = access.project_id(self.project_id.as_deref()).await?;
        let mut filters: Vec<(String, String)> =
            project_id.into_iter().map(|id| ("project_id".to_owned(), id)).collect();
        for (name, value) in self.filters {
            let Some(column) = filtered::<E>().find(|column| column.api_name == name) else { continue };
            if !column.values.is_empty() && !column.values.contains(&value.as_str()) {
                return Err(ApiError::invalid(name, format!("must be one of {}", column.values.join(", "))));
            }
            let value = match column.api_name {
                "name" => given::composed(&value),
                _ => value,
            };
            filters.push((column.name.to_owned(), value));
        }
        filters.extend(labels(&self.label)?);
        Ok(query(paging, order, filters))
    }
}

/// Columns that lists filter by.
fn filtered<E: Entity>() -> impl Iterator<Item = &'static Column<E>> {
    E::COLUMNS.iter().filter(|column| column.filter.is_some())
}

/// Columns that lists order by: their names in the API and in the store.
fn ordered<E: Entity>() -> Vec<(&'static str, &'static str)> {
    let id = [("id", "id")].into_iter().chain(E::IN_PROJECT.then_some(("project_id", "project_id")));
    let own = E::COLUMNS.iter().filter(|column| column.ordered).map(|column| (column.api_name, column.name));
    let last = ["version", "created_at", "updated_at"].map(|name| (name, name));
    id.chain(own).chain(last).collect()
}

fn has_labels<E: Entity>() -> bool {
    E::COLUMNS.iter().any(|column| column.name == "labels")
}

/// Names of all parameters, in the document's order.
fn names<E: Entity>() -> Vec<&'static str> {
    let first = ["page", "size", "order_by"].into_iter().chain(E::IN_PROJECT.then_some("project_id"));
    let own = filtered::<E>().map(|column| column.api_name);
    first.chain(own).chain(has_labels::<E>().then_some("label")).collect()
}

impl<'de, E: Entity> Deserialize<'de> for ListParams<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reading(PhantomData))
    }
}

/// Reads pairs one by one, so that the path of an error is the parameter's name.
struct Reading<E>(PhantomData<fn() -> E>);

impl<'de, E: Entity> Visitor<'de> for Reading<E> {
    type Value = ListParams<E>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("query parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ListParams<E>, A::Error> {
        let mut params = ListParams {
            page: None,
            size: None,
            order_by: None,
            project_id: None,
            label: Vec::new(),
            filters: Vec::new(),
            kind: PhantomData,
        };
        while let Some(given) = map.next_key::<String>()? {
            let given = if given == "orderBy" { "order_by" } else { given.as_str() };
            let Some(name) = names::<E>().into_iter().find(|name| *name == given) else {
                return Err(A::Error::custom(unknown::<E>(given)));
            };
            let twice = match name {
                "page" => params.page.replace(map.next_value()?).is_some(),
                "size" => params.size.replace(map.next_value()?).is_some(),
                "order_by" => params.order_by.replace(map.next_value()?).is_some(),
                "project_id" => params.project_id.replace(map.next_value()?).is_some(),
                "label" => {
                    let all: String = map.next_value()?;
                    params.label.extend(all.split(BETWEEN).map(str::to_owned));
                    false
                }
                filter => {
                    let twice = params.filters.iter().any(|(name, _)| *name == filter);
                    params.filters.push((filter, map.next_value()?));
                    twice
                }
            };
            if twice {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
        }
        Ok(params)
    }
}

/// In serde's own words, which the edge recognises.
fn unknown<E: Entity>(name: &str) -> String {
    let names: Vec<String> = names::<E>().iter().map(|name| format!("`{name}`")).collect();
    format!("unknown field `{}`, expected one of {}", name.escape_debug(), names.join(", "))
}

impl<E: Entity> IntoParams for ListParams<E> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        names::<E>().into_iter().map(parameter::<E>).collect()
    }
}

fn parameter<E: Entity>(name: &'static str) -> Parameter {
    let parameter = || ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::False);
    let described = |about: &str, schema: Object| parameter().description(Some(about)).schema(Some(schema));
    match name {
        "page" => described("Page number, from 1.", integer().minimum(Some(1)).build()),
        "size" => {
            let size = integer().minimum(Some(0)).maximum(Some(MAX_SIZE));
            described("Items per page; 0 = only the total; 100 when absent.", size.build())
        }
        "order_by" => {
            let about = "`column[ asc|desc]`, comma-separated; newest first when absent.";
            described(about, text().pattern(Some(order_pattern::<E>())).build())
        }
        "project_id" => described("Project, by id or name.", text().build()),
        "label" => {
            let about = "`key=value` that its labels must contain; may be repeated, and all must match.";
            parameter().description(Some(about)).schema(Some(ArrayBuilder::new().items(text())))
        }
        filter => {
            let column = filtered::<E>().find(|column| column.api_name == filter);
            let (about, schema) = column.map_or(("", text()), |column| {
                let values = column.values;
                let values = Some(values.iter().copied()).filter(|values| values.len() > 0);
                (column.filter.unwrap_or_default(), of_type(column.column_type).enum_values(values))
            });
            described(about, schema.build())
        }
    }
    .build()
}

fn order_pattern<E: Entity>() -> String {
    let columns = ordered::<E>().iter().map(|(name, _)| *name).collect::<Vec<_>>().join("|");
    let one = format!(" *({columns})( +([aA][sS][cC]|[dD][eE][sS][cC]))? *");
    format!("^{one}(,{one})*$")
}

fn of_type(column_type: ColumnType) -> ObjectBuilder {
    match column_type {
        ColumnType::Boolean => ObjectBuilder::new().schema_type(SchemaType::new(Type::Boolean)),
        ColumnType::Integer => integer(),
        ColumnType::Time => text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))),
        ColumnType::Text | ColumnType::Texts | ColumnType::Json => text(),
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::new(Type::String))
}

fn integer() -> ObjectBuilder {
    let format = SchemaFormat::KnownFormat(KnownFormat::Int64);
    ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)).format(Some(format))
}
