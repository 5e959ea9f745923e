//! The document for a Kind's routes: what `utoipa::path` says for other handlers, derived from the Kind's types.

use ambient_wire::{api::List, definition::Definition as Wire};
use axum::routing;
use utoipa::{
    IntoParams, IntoResponses, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, HttpMethod, Ref, RefOr, Required, ResponseBuilder, Responses, Schema,
        path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths},
        request_body::{RequestBody, RequestBodyBuilder},
        schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{Create, Patch, Served, handlers};
use crate::{
    authority::AppState,
    extract::VersionParams,
    list::ListParams,
    responses::{Changing, Creating, Reading},
    schema_rules::ID,
};

/// The five routes of a Kind.
pub(super) fn routes<S: Served>() -> OpenApiRouter<AppState> {
    let all = format!("/{}", S::Wire::PATH);
    let one = format!("{all}/{{{}}}", S::Wire::PARAM);
    let mut paths = (Paths::new(), Paths::new());
    paths.0.add_path_operation(&all, vec![HttpMethod::Get], list::<S>());
    paths.0.add_path_operation(&all, vec![HttpMethod::Post], create::<S>());
    paths.1.add_path_operation(&one, vec![HttpMethod::Get], get::<S>());
    paths.1.add_path_operation(&one, vec![HttpMethod::Patch], patch::<S>());
    paths.1.add_path_operation(&one, vec![HttpMethod::Delete], delete::<S>());
    let of_all = routing::get(handlers::list::<S>).post(handlers::create::<S>);
    let of_one = routing::get(handlers::get::<S>).patch(handlers::patch::<S>).delete(handlers::delete::<S>);
    OpenApiRouter::new().routes((schemas::<S>(), paths.0, of_all)).routes((Vec::new(), paths.1, of_one))
}

fn list<S: Served>() -> Operation {
    let about = format!("{} of the projects in which the caller has a role.", capital(&plural::<S>()));
    let list = format!("{}List", S::TITLE);
    operation::<S>(&format!("list{}", camel(S::Wire::PATH)), &about)
        .parameters(Some(ListParams::<S::Entity>::into_params(|| None)))
        .responses(responses::<Reading>("200", json("A page of them", &list)))
        .build()
}

fn create<S: Served>() -> Operation {
    let about = format!("Creates {}. Its name must be unique in the project.", one::<S>());
    operation::<S>(&format!("create{}", S::TITLE), &about)
        .request_body(Some(body(&Create::<S>::name())))
        .responses(responses::<Creating>("201", json("Created", S::TITLE)))
        .build()
}

fn get<S: Served>() -> Operation {
    let version = VersionParams::into_params(|| Some(ParameterIn::Query));
    operation::<S>(&format!("get{}", S::TITLE), &format!("{}.", capital(&one::<S>())))
        .parameter(id::<S>())
        .parameters(Some(version))
        .responses(responses::<Reading>("200", json("As it is, or as it was at the version", S::TITLE)))
        .build()
}

fn patch<S: Served>() -> Operation {
    operation::<S>(&format!("update{}", S::TITLE), &format!("Changes {} by a JSON merge patch.", one::<S>()))
        .parameter(id::<S>())
        .request_body(Some(body(&Patch::<S>::name())))
        .responses(responses::<Changing>("200", json("As it is afterwards", S::TITLE)))
        .build()
}

fn delete<S: Served>() -> Operation {
    operation::<S>(
        &format!("delete{}", S::TITLE),
        &format!(
            "Deletes {}. Its name becomes free; from then on it is not found, by further deletions either.",
            one::<S>()
        ),
    )
    .parameter(id::<S>())
    .responses(responses::<Changing>("204", ResponseBuilder::new().description("Deleted")))
    .build()
}

fn operation<S: Served>(id: &str, summary: &str) -> OperationBuilder {
    OperationBuilder::new().operation_id(Some(id)).tag(S::Wire::PATH).summary(Some(summary))
}

fn id<S: Served>() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).pattern(Some(ID));
    ParameterBuilder::new()
        .name(S::Wire::PARAM)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Id"))
        .schema(Some(schema))
        .build()
}

fn body(schema: &str) -> RequestBody {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
    RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True)).build()
}

fn json(about: &str, schema: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
    ResponseBuilder::new().description(about).content("application/json", content)
}

/// The success response, and the failures of a class of routes.
fn responses<F: IntoResponses>(status: &str, success: ResponseBuilder) -> Responses {
    let success = (status.to_owned(), RefOr::T(success.build()));
    F::responses().into_iter().chain([success]).collect()
}

/// Schemas of the Kind's types, and of what they consist of. The list refers to its items.
fn schemas<S: Served>() -> Vec<(String, RefOr<Schema>)> {
    let mut all = Vec::new();
    <S::Wire as ToSchema>::schemas(&mut all);
    <Create<S> as ToSchema>::schemas(&mut all);
    <Patch<S> as ToSchema>::schemas(&mut all);
    all.push((S::TITLE.to_owned(), S::Wire::schema()));
    all.push((Create::<S>::name().into_owned(), Create::<S>::schema()));
    all.push((Patch::<S>::name().into_owned(), Patch::<S>::schema()));
    let mut list = List::<S::Wire>::schema();
    if let RefOr::T(Schema::Object(list)) = &mut list {
        let items = ArrayBuilder::new().items(Ref::from_schema_name(S::TITLE)).description(Some("The items."));
        list.properties.insert("items".to_owned(), items.build().into());
    }
    all.push((format!("{}List", S::TITLE), list));
    all
}

/// "repository refs".
fn plural<S: Served>() -> String {
    S::Wire::PATH.replace('_', " ")
}

/// "a repository ref".
fn one<S: Served>() -> String {
    let word = S::KIND.replace('_', " ");
    let article = if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {word}")
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}

/// `RepositoryRefs` of `repository_refs`.
fn camel(path: &str) -> String {
    path.split('_').map(capital).collect()
}
