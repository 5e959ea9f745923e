//! What values may be, matching the checks. The wire types are texts and numbers; which of those are refused is stated here, so
//! that the document allows nothing that is refused, and vice versa (`make contract`).

use ambient_domain::{name::MAX_REPOS, permission::MAX_RULES, project::SubjectType, retention::MOST_DAYS};
use ambient_wire::{git_url, model, name, network};
use ambient_workflows::{ENTITY_WORKFLOWS, PLATFORM_WORKFLOWS};
use serde_json::{Value, json};

use super::{enums, tree::operations};
use crate::schema_rules::{
    ID, SECONDS_INACTIVE, SECONDS_OF_RUN, TEXT, branch, labels, labels_patch, merge, named, pattern, variables,
    without_nul,
};

/// Folder in a repository.
const PLAYBOOK_PATH: &str = concat!(
    "^((?!(\\.{1,2}|\\.[gG][iI][tT])(/|$))[^/\\u0000\\n\\r]+",
    "(/(?!(\\.{1,2}|\\.[gG][iI][tT])(/|$))[^/\\u0000\\n\\r]+)*)?$"
);
/// One line of text.
const ONE_LINE: &str = "^[^\\u0000\\n\\r]*$";
/// A text that says something: not only white space, as defined by Unicode and Rust's `trim`, which differs from some dialects' `\s`.
const SAYS_SOMETHING: &str =
    "^[^\\u0000]*[^\\u0000\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000][^\\u0000]*$";
/// The rest of a path in the workspace: not absolute, no segment leads up, and a backslash is the start of an escape.
const BENEATH: &str = "(?!/)(?!(.*/)?\\.\\.(/|$))([^\\u0000\\\\]|\\\\\\\\|\\\\x[89a-fA-F][0-9a-fA-F])*$";
/// A commit, by any name.
const COMMIT: &str = "^[^-\\u0000\\n][^\\u0000\\n]*$";
/// An execution's: `workflow/entity/…`.
const EXECUTION_ID: &str = "^[!-~]{1,1000}$";
/// Schemas of request bodies.
const BODIES: [&str; 21] = [
    "EndRequest",
    "FileMove",
    "GitAbandon",
    "GitBranchCreate",
    "GitCommit",
    "GitPull",
    "GitPush",
    "GitSynchronize",
    "InterruptAnswer",
    "MessageCreate",
    "PermissionRule",
    "ProjectCreate",
    "ProjectPatch",
    "ProjectPermission",
    "ProjectSettings",
    "Repo",
    "RepoOutput",
    "SessionCreate",
    "SessionPatch",
    "SessionStart",
    "VerifyRequest",
];

/// Parts of requests that are one of several kinds; each has its own fields and no others.
const CLOSED: [&str; 5] = ["AttachmentFile", "AttachmentLink", "McpServerHttp", "McpServerSse", "McpServerStdio"];

/// Adds every constraint to the document.
pub(super) fn constrain(document: &mut Value) {
    for (schema, property, rules) in properties() {
        let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
        let place =
            schemas.and_then(|schemas| schemas.get_mut(schema)?.pointer_mut(&format!("/properties/{property}")));
        if let Some(place) = place {
            merge(place, &rules);
        }
    }
    for schema in BODIES {
        let place = format!("/components/schemas/{schema}/properties");
        let properties = document.pointer_mut(&place).and_then(Value::as_object_mut);
        properties.into_iter().flatten().for_each(|(_, property)| without_nul(property));
    }
    for schema in CLOSED {
        document["components"]["schemas"][schema]["additionalProperties"] = json!(false);
    }
    for resource in crate::routes::DEFINITIONS {
        crate::definitions::constrain(document, resource);
    }
    allow_list_needs_hosts(&mut document["components"]["schemas"]["Network"]);
    a_fork_is_named(&mut document["components"]["schemas"]["RepoOutput"]);
    what_is_not_pushed_is_not_pushed_automatically(&mut document["components"]["schemas"]["Repo"]);
    one_is_named(&mut document["components"]["schemas"]["ModelBudget"], ["tokens", "cost_micros"], "integer");
    one_is_named(&mut document["components"]["schemas"]["ModelSource"], ["base_url", "key_variable"], "string");
    batch_needs_a_prompt(&mut document["components"]["schemas"]["SessionCreate"]);
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    for (path, item) in paths {
        for (_, operation) in operations(item) {
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
            parameters.for_each(|parameter| constrain_parameter(path, parameter));
        }
    }
}

fn properties() -> Vec<(&'static str, &'static str, Value)> {
    let text = json!({"pattern": TEXT});
    let repo_name = json!({"pattern": "^(?!status$)[A-Za-z0-9_][A-Za-z0-9._-]*$", "minLength": 1, "maxLength": 100});
    let any_repo = pattern("^[A-Za-z0-9_][A-Za-z0-9._-]*$", 100);
    let (value, note) = (json!({"pattern": name::value_pattern()}), json!({"pattern": TEXT}));
    let seconds = |least: i64, most: i64| json!({"minimum": least, "maximum": most});
    let days = seconds(0, i64::from(MOST_DAYS));
    let timeout = seconds(SECONDS_OF_RUN.0, SECONDS_OF_RUN.1);
    let inactivity = seconds(SECONDS_INACTIVE.0, SECONDS_INACTIVE.1);
    let project_name =
        json!({"pattern": "^(?!default$|kube-|openshift)[a-z][a-z0-9-]*[a-z0-9]$", "minLength": 2, "maxLength": 63});
    let file = json!({"pattern": format!("^(?![./]*$){BENEATH}"), "minLength": 1});
    let mut all = vec![
        ("FileMove", "from", file.clone()),
        ("FileMove", "to", file),
        ("ProjectCreate", "name", project_name),
        ("ProjectSettings", "llm_model", named(200)),
        ("ProjectSettings", "inactivity_timeout", inactivity.clone()),
        ("ProjectSettings", "agent_type", named(100)),
        ("ProjectSettings", "mcp_servers", json!({"maxItems": 20})),
        ("ProjectSettings", "setup_script", text.clone()),
        ("Retention", "event_days", days.clone()),
        ("Retention", "workspace_days", days.clone()),
        ("Retention", "snapshot_days", days),
        ("ProjectPermission", "subject_name", named(200)),
        ("Repo", "name", repo_name),
        ("Repo", "url", pattern(git_url::PATTERN, git_url::MAX)),
        ("Repo", "branch", branch()),
        ("Playbook", "git_url", pattern(git_url::PATTERN, git_url::MAX)),
        ("Playbook", "branch", branch()),
        ("Playbook", "path", json!({"pattern": PLAYBOOK_PATH, "maxLength": 1000})),
        ("RepoOutput", "target_repo", pattern(git_url::PATTERN, git_url::MAX)),
        ("RepoOutput", "target_branch", branch()),
        ("SessionCreate", "project_id", pattern("^[A-Za-z0-9-]+$", 63)),
        ("SessionCreate", "agent_id", json!({"pattern": ID})),
        ("SessionCreate", "agent_type", named(100)),
        ("SessionCreate", "agent_mode", named(200)),
        ("SessionPatch", "agent_mode", named(200)),
        ("AgentCommand", "program", json!({"pattern": SAYS_SOMETHING, "maxLength": 1000})),
        (
            "AgentCommand",
            "args",
            json!({"maxItems": 100, "items": {"type": "string", "pattern": TEXT, "maxLength": 1000}}),
        ),
        ("AgentCommand", "directory", pattern("^(?!/)(?!(.*/)?\\.\\.(/|$))[^\\u0000\\n]+$", 1000)),
        ("SessionCreate", "parent_session_id", json!({"pattern": ID})),
        ("McpServerStdio", "name", named(100)),
        ("McpServerStdio", "command", pattern("^(?=.*\\S)[^\\u0000\\n\\r]*$", 1000)),
        (
            "McpServerStdio",
            "args",
            json!({"maxItems": 100, "items": {"type": "string", "pattern": ONE_LINE, "maxLength": 1000}}),
        ),
        (
            "McpServerStdio",
            "env",
            merged(
                variables(),
                &json!({"propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}, "additionalProperties": {"pattern": ONE_LINE}}),
            ),
        ),
        ("SessionStart", "prompt", text.clone()),
        ("MessageCreate", "text", text.clone()),
        ("MessageCreate", "attachments", json!({"maxItems": 10})),
        ("AttachmentFile", "path", pattern("^(?!/)(?!(.*/)?\\.\\.(/|$))(?![./]*$)[^\\u0000\\n\\r]+$", 1000)),
        ("AttachmentLink", "uri", pattern("^[A-Za-z][A-Za-z0-9+.-]*:[^\\s\\u0000]+$", 1000)),
        ("AttachmentLink", "name", pattern("^[^\\u0000\\n\\r]+$", 50)),
        ("GitAbandon", "repo", any_repo.clone()),
        ("GitPull", "repo", any_repo.clone()),
        ("GitPull", "branch", branch()),
        ("GitSynchronize", "repo", any_repo.clone()),
        ("GitSynchronize", "branch", branch()),
        ("GitBranchCreate", "repo", any_repo.clone()),
        ("GitBranchCreate", "name", branch()),
        ("GitBranchCreate", "from", pattern(COMMIT, 255)),
        ("GitCommit", "repo", any_repo.clone()),
        ("GitCommit", "message", json!({"pattern": SAYS_SOMETHING})),
        ("GitPush", "repo", any_repo),
        ("GitPush", "branch", branch()),
        ("InterruptAnswer", "message", json!({"pattern": SAYS_SOMETHING})),
        ("FeedbackPayload", "messageId", pattern(ONE_LINE, 256)),
        ("FeedbackPayload", "reason", pattern(ONE_LINE, 256)),
        ("FeedbackPayload", "comment", json!({"pattern": TEXT, "maxLength": 4096})),
        ("PermissionRule", "command", json!({"pattern": SAYS_SOMETHING})),
        ("PermissionRule", "path", json!({"pattern": SAYS_SOMETHING})),
        ("Network", "allow", allow_list()),
        ("ModelRules", "allowed", models()),
        ("ModelSource", "base_url", pattern(model::BASE_URL_PATTERN, model::MAX_BASE_URL)),
        ("ModelSource", "key_variable", pattern("^[A-Za-z_][A-Za-z0-9_]*$", 128)),
        ("Permissions", "rules", json!({"maxItems": MAX_RULES})),
        ("Permissions", "timeout", seconds(0, SECONDS_OF_RUN.1)),
        ("SignalRequest", "signal", named(200)),
        ("VerifyRequest", "entity_id", json!({"pattern": TEXT})),
    ];
    // Left open by the types, but never anything else. The input of a signal, and of an agent's tool, may be any JSON.
    let objects = json!({"type": "array", "items": {"type": "object"}});
    all.extend([
        ("Event", "data", json!({"type": "object"})),
        ("HistoryEvent", "attributes", json!({"type": "object"})),
        ("Operation", "input", json!({"type": "object"})),
        ("Operation", "events", objects),
        ("Operation", "context", json!({"type": "object"})),
        ("ServerFrameSnapshot", "data", json!({"type": "object"})),
        ("RunnerEventAgentStarted", "offers", json!({"type": "object"})),
        ("RunnerEventAgentContent", "content", json!({"type": "object"})),
        ("ToolContentOther", "content", json!({"type": "object"})),
    ]);
    for (schema, labels) in [("ProjectCreate", labels as fn(&Value) -> Value), ("ProjectPatch", labels_patch)] {
        let display_name = format!("^$|{}", name::pattern());
        all.extend([
            (schema, "display_name", json!({"pattern": display_name, "maxLength": name::MAX})),
            (schema, "description", text.clone()),
            (schema, "prompt", text.clone()),
            (schema, "environment_variables", variables()),
            (schema, "labels", labels(&value)),
            (schema, "annotations", labels(&note)),
        ]);
    }
    for schema in ["ModelLimits", "ModelBudget"] {
        let amount = json!({"maximum": model::MAX_LIMIT});
        all.extend([(schema, "tokens", amount.clone()), (schema, "cost_micros", amount)]);
    }
    for schema in ["McpServerHttp", "McpServerSse"] {
        let headers = json!({
            "maxProperties": 100, "propertyNames": {"pattern": "^[A-Za-z0-9-]+$", "maxLength": 100},
            "additionalProperties": {"pattern": ONE_LINE},
        });
        all.extend([
            (schema, "name", named(100)),
            (schema, "url", pattern("^https?://[^\\s/\\u0000][^\\s\\u0000]*$", 1000)),
            (schema, "headers", headers),
        ]);
    }
    for schema in ["SessionCreate", "SessionPatch", "AgentCreate", "AgentPatch"] {
        all.extend([(schema, "mcp_servers", json!({"maxItems": 20})), (schema, "setup_script", text.clone())]);
    }
    for (schema, labels) in [("SessionCreate", labels as fn(&Value) -> Value), ("SessionPatch", labels_patch)] {
        all.extend([
            (schema, "name", named(name::MAX)),
            (schema, "prompt", text.clone()),
            (schema, "repos", json!({"maxItems": MAX_REPOS})),
            (schema, "main_repo_index", json!({"minimum": 0, "maximum": MAX_REPOS - 1})),
            (schema, "timeout", timeout.clone()),
            (schema, "inactivity_timeout", inactivity.clone()),
            (
                schema,
                "agent_options",
                json!({"maxProperties": 50, "propertyNames": named(200), "additionalProperties": named(200)}),
            ),
            (schema, "llm_model", named(200)),
            (schema, "llm_temperature", json!({"minimum": 0, "maximum": 2})),
            (schema, "llm_max_tokens", json!({"minimum": 1, "maximum": 10_000_000})),
            (schema, "environment_variables", variables()),
            (schema, "labels", labels(&value)),
            (schema, "annotations", labels(&note)),
        ]);
    }
    all
}

fn merged(mut rules: Value, more: &Value) -> Value {
    merge(&mut rules, more);
    rules
}

fn models() -> Value {
    let name =
        json!({"type": "string", "pattern": "^[A-Za-z0-9._:/-]+$", "minLength": 1, "maxLength": model::MAX_MODEL});
    json!({"maxItems": model::MAX_ALLOWED, "items": name})
}

fn allow_list() -> Value {
    let entry = json!({"type": "string", "pattern": network::PATTERN, "maxLength": network::MAX_ENTRY});
    json!({"maxItems": network::MOST_ALLOWED, "items": entry})
}

/// A list with that mode, and with no other.
fn allow_list_needs_hosts(network: &mut Value) {
    network["if"] = json!({"properties": {"mode": {"const": "allow_list"}}});
    network["then"] = json!({"properties": {"allow": {"minItems": 1}}, "required": ["allow"]});
    network["else"] = json!({"properties": {"allow": {"maxItems": 0}}});
}

/// A fork has a URL, nothing else has; and where nothing is pushed there is no branch.
fn a_fork_is_named(output: &mut Value) {
    let goes_to = |which: &str| json!({"properties": {"push_to": {"const": which}}, "required": ["push_to"]});
    let absent = |field: &str| json!({"properties": {field: {"type": "null"}}});
    output["allOf"] = json!([
        {"if": goes_to("fork"),
         "then": {"properties": {"target_repo": {"type": "string"}}, "required": ["target_repo"]},
         "else": absent("target_repo")},
        {"if": goes_to("none"), "then": absent("target_branch")},
    ]);
}

fn what_is_not_pushed_is_not_pushed_automatically(repo: &mut Value) {
    let none = json!({"properties": {"push_to": {"const": "none"}}, "required": ["push_to"]});
    repo["if"] = json!({"properties": {"output": none}, "required": ["output"]});
    repo["then"] = json!({"properties": {"auto_push": {"const": false}}});
}

/// At least one of two fields, and not as null.
fn one_is_named(schema: &mut Value, [one, other]: [&str; 2], kind: &str) {
    let named = |field: &str| json!({"properties": {field: {"type": kind}}, "required": [field]});
    schema["if"] = named(one);
    schema["else"] = named(other);
}

/// Interactive, or with a prompt.
fn batch_needs_a_prompt(create: &mut Value) {
    let batch = json!({"properties": {"interactive": {"const": false}}, "required": ["interactive"]});
    let prompt =
        json!({"properties": {"prompt": {"type": "string", "pattern": SAYS_SOMETHING}}, "required": ["prompt"]});
    create["if"] = batch;
    create["then"] = prompt;
}

fn constrain_parameter(path: &str, parameter: &mut Value) {
    let (name, place) = (parameter["name"].as_str().unwrap_or_default(), parameter["in"].as_str().unwrap_or_default());
    let rules = match (place, name) {
        ("path", "session_id" | "operation_id") | ("query", "session_id") => json!({"pattern": ID}),
        ("path" | "query", "project_id") => pattern("^[A-Za-z0-9-]+$", 63),
        // The example shows that it contains slashes.
        ("path", "execution_id") => {
            json!({"pattern": EXECUTION_ID, "example": "session-start/3MPRBY3LpC4o66HBKBbrVbd0zsU/1.1"})
        }
        ("path", "error_id") => json!({"pattern": "^[0-9]{1,3}$"}),
        // A different route.
        ("path", "name") => json!({"pattern": "^(?!status$)[A-Za-z0-9_][A-Za-z0-9._-]*$", "maxLength": 100}),
        // A file beneath the workspace, so not the workspace itself.
        ("path", "path") => {
            json!({"pattern": format!("^(?![./]*$){BENEATH}"), "minLength": 1, "example": "src/main.rs"})
        }
        // Nothing goes into git's own folder.
        ("query", "path") if path.ends_with("/upload_file") => {
            let beneath = format!("^(?![./]*$)(?!(.*/)?\\.[gG][iI][tT](/|$))(?!.*[^/]{{256}}){BENEATH}");
            json!({"pattern": beneath, "minLength": 1, "example": "docs/spec.pdf"})
        }
        // So is a part of a repository.
        ("query", "path")
            if path.ends_with("/workspace_file") || path.contains("/git/") || path.contains("/turns/") =>
        {
            json!({"pattern": format!("^(?![./]*$){BENEATH}"), "minLength": 1, "example": "src/main.rs"})
        }
        ("query", "path") => json!({"pattern": format!("^{BENEATH}")}),
        ("query", "repo") => pattern("^[A-Za-z0-9_][A-Za-z0-9._-]*$", 100),
        ("query", "branch") if path.ends_with("/git/merge-status") => branch(),
        ("query", "base" | "ref") => pattern(COMMIT, 255),
        ("query", "after") if path.ends_with("/git/log") => {
            json!({"pattern": "^([0-9a-f]{40}|[0-9a-f]{64})\\.[0-9]{1,6}$"})
        }
        ("query", "entity_kind") => json!({"enum": crate::kinds::all()}),
        ("query", "order") => json!({"enum": ["asc", "desc"]}),
        ("query", "subject_type") => json!({"enum": enums::variants::<SubjectType>()}),
        ("query", "workflow") => {
            json!({"enum": ENTITY_WORKFLOWS.iter().chain(&PLATFORM_WORKFLOWS).collect::<Vec<_>>()})
        }
        ("query", "status") if path.ends_with("/workflow_executions") => json!({"enum": crate::routes::STATUSES}),
        ("query", "label") => {
            let item = json!({"type": "string", "pattern": "^[^=\\u0000]+=[^\\u0000]*$"});
            json!({"items": item, "maxItems": crate::list::MAX_LABELS})
        }
        ("query", "after") if path.ends_with("/operations") => json!({"pattern": "^[0-9]{1,18}\\.[0-9]{1,18}$"}),
        ("query", "page") => json!({"maximum": crate::list::MAX_PAGE}),
        // A place in the events that are made of the log's.
        ("header", "Last-Event-ID") | ("query", "after_seq") if path.ends_with("/agui/events") => {
            json!({"pattern": "^(0|[1-9][0-9]{0,17}(\\.[0-9]{1,6})?)$"})
        }
        ("header", "Last-Event-ID") => json!({"minimum": 0, "maximum": 999_999_999_999_999_999_i64}),
        ("header", "If-Match") if path.contains("/workspace") => {
            json!({"type": "string", "pattern": "^(\\*|\"[0-9a-f]{64}\")$"})
        }
        // Not a constant: a generator of clients has none in headers.
        ("header", "If-None-Match") => json!({"type": "string", "pattern": "^\\*$"}),
        ("header", "Range") => json!({"pattern": "^bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})$"}),
        _ => json!({}),
    };
    let schema = &mut parameter["schema"];
    merge(schema, &rules);
    without_nul(schema);
    // An absent value is left out: a parameter is never the text `null`.
    let types = schema["type"]
        .as_array()
        .map(|types| types.iter().filter(|one| **one != json!("null")).cloned().collect::<Vec<_>>());
    if let Some([one]) = types.as_deref() {
        schema["type"] = one.clone();
    }
    let whole = schema["type"] == "integer" && schema.get("maximum").is_none();
    if whole {
        schema["maximum"] = json!(i64::MAX);
    }
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
}
