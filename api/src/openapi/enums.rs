//! Names of values: phases, statuses, roles, kinds. If a type defines them they are read from the type, so that a new variant gets into
//! the document by itself.

use ambient_domain::{
    project::{ProjectPhase, Role, SubjectType},
    session::{ConditionStatus, ConditionType, Phase},
};
use serde::Deserialize;
use serde_aux::serde_introspection::serde_introspect;
use serde_json::{Value, json};

use super::tree::{each_operation, property, schema_ref, schemas};
use crate::schema_rules::is_nullable;

/// A named enumeration.
struct Named {
    name: &'static str,
    description: &'static str,
    values: Vec<&'static str>,
    /// Properties that have one of the values: schema, property.
    places: &'static [(&'static str, &'static str)],
}

/// Names of a type's variants, as they are serialised.
pub(super) fn variants<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
    serde_introspect::<T>().to_vec()
}

fn enums() -> Vec<Named> {
    let named = |name, description, values, places| Named { name, description, values, places };
    let statuses = std::iter::once("PendingDispatch").chain(crate::routes::STATUSES).collect();
    vec![
        named("SessionPhase", "Phase of a session's life cycle.", variants::<Phase>(), &[("Session", "phase")]),
        named(
            "OutcomePhase",
            "Phases in which a run ends.",
            vec!["Stopped", "Completed", "Failed"],
            &[("SessionOutcome", "phase")],
        ),
        named("ConditionType", "What a condition is about.", variants::<ConditionType>(), &[("Condition", "type")]),
        named("ConditionStatus", "Whether it is true.", variants::<ConditionStatus>(), &[("Condition", "status")]),
        named(
            "RepoStatus",
            "State of a repository.",
            crate::representation::REPO_STATUSES.to_vec(),
            &[("SessionRepo", "status")],
        ),
        named("MessageRole", "Who speaks.", crate::conversation::ROLES.to_vec(), &[("Message", "role")]),
        named("ProjectStatus", "Whether a project is in use.", variants::<ProjectPhase>(), &[("Project", "status")]),
        named("ProjectRole", "What a member may do.", variants::<Role>(), &[("ProjectPermission", "role")]),
        named(
            "SubjectType",
            "Who a permission is for.",
            variants::<SubjectType>(),
            &[("ProjectPermission", "subject_type")],
        ),
        named(
            "EntityKind",
            "Kinds of entities.",
            crate::kinds::streams(),
            &[("Operation", "entity_kind"), ("VerifyDivergence", "kind"), ("VerifyRequest", "entity_kind")],
        ),
        named("ExecutionStatus", "State of an execution.", statuses, &[("WorkflowExecution", "status")]),
        named("ActivityState", "State of an activity.", vec!["Scheduled", "Started"], &[("PendingActivity", "state")]),
        named(
            "EntryKind",
            "Type of a directory entry.",
            vec!["file", "directory", "symlink", "other"],
            &[("Entry", "kind")],
        ),
        named("HealthStatus", "Whether all parts work.", vec!["ok", "unavailable"], &[("Health", "status")]),
    ]
}

/// Makes components of the enumerations, and refers to them wherever their values occur.
pub(super) fn name(document: &mut Value) {
    let enums = enums();
    for Named { name, description, values, places } in &enums {
        for (schema, name_of_property) in *places {
            if let Some(property) = property(document, schema, name_of_property) {
                refer(property, name);
            }
        }
        if let Some(schemas) = schemas(document) {
            schemas.insert((*name).to_owned(), json!({"type": "string", "description": description, "enum": values}));
        }
    }
    each_operation(document, |_, operation| {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
        for schema in parameters.filter_map(|parameter| parameter.get_mut("schema")) {
            if let Some(Named { name, .. }) = enums.iter().find(|named| schema["enum"] == json!(named.values)) {
                *schema = json!({"$ref": schema_ref(name)});
            }
        }
    });
}

/// In place of a text: the enumeration, or null if that is allowed.
fn refer(property: &mut Value, name: &str) {
    let reference = json!({"$ref": schema_ref(name)});
    let description = property["description"].take();
    *property = if is_nullable(property) {
        json!({"oneOf": [reference, {"type": "null"}], "description": description})
    } else {
        let mut reference = reference;
        reference["description"] = description;
        reference
    };
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use ambient_domain::{Entity as _, session::Session};

    use super::*;

    /// What is serialised for each variant, by `text`.
    fn written<T: DeserializeOwned>(text: impl Fn(T) -> String) -> Vec<(String, String)> {
        let read = |name: &&str| serde_json::from_value(json!(name)).unwrap();
        serde_introspect::<T>().iter().map(|name| ((*name).to_owned(), text(read(name)))).collect()
    }

    #[test]
    fn answers_write_variants_as_the_document_names_them() {
        let all = [
            written(|phase: Phase| phase.to_string()),
            written(|kind: ConditionType| format!("{kind:?}")),
            written(|status: ConditionStatus| format!("{status:?}")),
            written(|phase: ProjectPhase| format!("{phase:?}")),
            written(|role: Role| crate::representation::role(role).to_owned()),
            written(|of: SubjectType| crate::representation::subject_type(of).to_owned()),
        ];
        for (named, written) in all.into_iter().flatten() {
            assert_eq!(named, written);
        }
    }

    #[test]
    fn every_place_of_an_enumeration_exists_and_refers_to_it() {
        let mut document = crate::openapi();
        for Named { name, places, .. } in enums() {
            for (schema, of) in places {
                let property = property(&mut document, schema, of).unwrap_or_else(|| panic!("no {schema}.{of}"));
                assert!(property.to_string().contains(&schema_ref(name)), "{schema}.{of}: {property}");
            }
        }
    }

    #[test]
    fn the_filter_by_phase_knows_every_phase_and_that_there_may_be_none() {
        let filter: Vec<&str> = std::iter::once("New").chain(variants::<Phase>()).collect();
        let phase = Session::COLUMNS.iter().find(|column| column.name == "phase").unwrap();
        assert_eq!(phase.values, filter);
    }
}
