//! Examples: for every request body, and for the responses that people look at first. They are in `examples.json`, by schema; a wire
//! type may also have its own (`#[schema(example = …)]`).

use serde_json::{Map, Value, json};

use super::tree::schemas;

const EXAMPLES: &str = include_str!("examples.json");

fn examples() -> Map<String, Value> {
    // Compiled into the program; a test reads it.
    serde_json::from_str(EXAMPLES).unwrap_or_default()
}

/// Adds each example to its schema.
pub(super) fn add(document: &mut Value) {
    let Some(schemas) = schemas(document) else { return };
    for (schema, example) in examples() {
        if let Some(schema) = schemas.get_mut(&schema) {
            schema["examples"] = json!([example]);
        }
    }
}

#[cfg(test)]
mod tests {
    use ambient_wire::{error, execution, git, interrupt, live, operation, permission, project, repo, session};
    use serde::{Serialize, de::DeserializeOwned};

    use super::*;

    /// The example loses nothing when it is parsed by its type.
    fn is_of<T: Serialize + DeserializeOwned>(example: &Value) -> bool {
        let read: T = serde_json::from_value(example.clone()).unwrap();
        let written = serde_json::to_value(read).unwrap();
        example.as_object().unwrap().iter().all(|(key, value)| written[key] == *value)
    }

    #[test]
    fn every_example_is_of_its_type() {
        for (schema, example) in examples() {
            let fits = match schema.as_str() {
                "ApiError" => is_of::<error::Error>(&example),
                "EndRequest" => is_of::<execution::EndRequest>(&example),
                "Event" => is_of::<live::Event>(&example),
                "FileMove" => is_of::<ambient_wire::content::FileMove>(&example),
                "GitAbandon" => is_of::<ambient_wire::git_merge::GitAbandon>(&example),
                "GitPull" => is_of::<ambient_wire::git_merge::GitPull>(&example),
                "GitSynchronize" => is_of::<ambient_wire::git_merge::GitSynchronize>(&example),
                "GitBranchCreate" => is_of::<ambient_wire::git_history::GitBranchCreate>(&example),
                "GitCommit" => is_of::<git::GitCommit>(&example),
                "GitPush" => is_of::<git::GitPush>(&example),
                "Interrupt" => is_of::<interrupt::Interrupt>(&example),
                "InterruptAnswer" => is_of::<permission::InterruptAnswer>(&example),
                "Message" => is_of::<session::Message>(&example),
                "MessageCreate" => is_of::<session::MessageCreate>(&example),
                "Playbook" => is_of::<ambient_wire::playbook::Playbook>(&example),
                "PlaybookMetadata" => is_of::<ambient_wire::playbook::PlaybookMetadata>(&example),
                "Project" => is_of::<project::Project>(&example),
                "ProjectCreate" => is_of::<project::ProjectCreate>(&example),
                "ProjectPatch" => is_of::<project::ProjectPatch>(&example),
                "ProjectPermission" => is_of::<project::ProjectPermission>(&example),
                "Repo" => is_of::<repo::Repo>(&example),
                "RepoOutput" => is_of::<repo::RepoOutput>(&example),
                "RunAgentInput" => is_of::<ambient_wire::agui::RunAgentInput>(&example),
                "Session" => is_of::<session::Session>(&example),
                "SessionCreate" => is_of::<session::SessionCreate>(&example),
                "SessionPatch" => is_of::<session::SessionPatch>(&example),
                "SessionStart" => is_of::<session::SessionStart>(&example),
                "SessionStop" => is_of::<session::SessionStop>(&example),
                "SignalRequest" => is_of::<execution::SignalRequest>(&example),
                "VerifyRequest" => is_of::<operation::VerifyRequest>(&example),
                "WorkflowExecution" => is_of::<execution::WorkflowExecution>(&example),
                other => panic!("{other} has an example, but no type here"),
            };
            assert!(fits, "{schema}");
        }
    }

    #[test]
    fn every_body_has_an_example() {
        let mut document = crate::openapi();
        let mut bodies = Vec::new();
        super::super::each_operation(&mut document, |path, operation| {
            if let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema/$ref") {
                bodies.push((path.to_owned(), schema.as_str().unwrap().to_owned()));
            }
        });
        assert!(bodies.len() > 10);
        for (path, reference) in bodies {
            let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
            let has_one = schema["examples"].is_array() || schema["example"].is_object();
            assert!(has_one, "{path}: {reference}");
        }
    }
}
