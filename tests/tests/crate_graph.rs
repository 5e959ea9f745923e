//! Dependencies point one way. Every normal dependency between our crates is in this list, or the test fails.
#![allow(clippy::unwrap_used, reason = "a test ends where its machine fails it")]

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// Crate and what it may depend on, without the prefix `ambient-`. Nothing but the binary depends on `api`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("wire", &[]),
    // What a runner is asked on users' behalf has the types that users see.
    ("runner-protocol", &["wire"]),
    // What PostgreSQL needs, whatever is stored in it.
    ("postgres", &[]),
    // What every listener needs, whatever it speaks.
    ("connections", &[]),
    ("persistence", &["domain", "postgres"]),
    ("snapshots", &["removal", "runner-protocol"]),
    ("live", &["domain", "wire", "runner-protocol", "persistence", "snapshots"]),
    ("actors", &["domain", "persistence", "live"]),
    ("engine", &["connections", "postgres"]),
    // Reads what is stored, and says it in the words of OpenTelemetry.
    ("telemetry", &["wire", "persistence"]),
    ("removal", &[]),
    ("compute", &["domain", "removal", "runner-protocol"]),
    ("runner", &["removal", "wire", "runner-protocol"]),
    ("cli", &["wire"]),
    (
        "workflows",
        &["domain", "wire", "runner-protocol", "persistence", "live", "actors", "compute", "engine", "snapshots"],
    ),
    (
        "api",
        &[
            "connections",
            "domain",
            "wire",
            "runner-protocol",
            "persistence",
            "live",
            "actors",
            "compute",
            "snapshots",
            "telemetry",
            "workflows",
        ],
    ),
    // Tests of whole servers remove what compute keeps of a data directory.
    ("tests", &["postgres", "compute", "wire"]),
    ("conformance", &["engine", "tests"]),
    // Stands for a provider of models, and knows nothing of us.
    ("scripted-model", &[]),
    // Measures what is there; nothing depends on it.
    ("benches", &["domain", "wire", "runner-protocol", "persistence", "live", "actors", "compute", "engine", "tests"]),
];
/// The composition root may depend on everything.
const BINARY: &str = "ambient";
/// What tests may depend on besides.
const TEST_SUPPORT: [&str; 3] = ["tests", "conformance", "scripted-model"];

fn short(name: &str) -> &str {
    name.strip_prefix("ambient-").unwrap_or(name)
}

fn is_allowed(from: &str, to: &str, kind: Option<&str>) -> bool {
    let listed = ALLOWED.iter().any(|(name, targets)| *name == from && targets.contains(&to));
    from == BINARY || listed || (kind == Some("dev") && TEST_SUPPORT.contains(&to))
}

fn workspace() -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn dependencies_between_our_crates_point_one_way() {
    let packages = workspace();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let from = short(package["name"].as_str().unwrap());
        for dependency in package["dependencies"].as_array().unwrap() {
            let (name, kind) = (dependency["name"].as_str().unwrap(), dependency["kind"].as_str());
            if ours.contains(name) && !is_allowed(from, short(name), kind) {
                wrong.push(format!("{from} -> {} ({})", short(name), kind.unwrap_or("normal")));
            }
        }
    }
    assert!(wrong.is_empty(), "not in the list of allowed edges: {wrong:#?}");
}

#[test]
fn every_crate_is_in_the_list() {
    let packages = workspace();
    let names = packages.iter().map(|package| short(package["name"].as_str().unwrap()));
    let unlisted: Vec<&str> =
        names.filter(|name| *name != BINARY && !ALLOWED.iter().any(|(listed, _)| listed == name)).collect();
    assert!(unlisted.is_empty(), "crates without a place in the graph: {unlisted:?}");
}
