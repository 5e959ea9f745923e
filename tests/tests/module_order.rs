//! The modules of a folder use each other in one direction: where its head has a list of them, the list is the law.
//!
//! Only paths are checked; a method that one module gives to another's type is not.
#![allow(clippy::unwrap_used, reason = "a test ends where its machine fails it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The text above a list.
const MARK: &str = "a module uses those on the lines above its own";
/// Heads that must have one.
const HELD: [&str; 9] = [
    "actors/src/lib.rs",
    "api/src/authority/mod.rs",
    "api/src/lib.rs",
    "compute/src/local/mod.rs",
    "engine/src/lib.rs",
    "runner/src/git/mod.rs",
    "runner/src/main.rs",
    "telemetry/src/lib.rs",
    "workflows/src/lib.rs",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All source files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    all.sort();
    all
}

/// Heads of modules that have a list.
fn heads() -> Vec<PathBuf> {
    let crates = fs::read_dir(workspace()).unwrap().map(|entry| entry.unwrap().path().join("src"));
    let files = crates.filter(|folder| folder.is_dir()).flat_map(|folder| sources(&folder));
    files.filter(|file| fs::read_to_string(file).unwrap().contains(MARK)).collect()
}

/// The lines of the list, each with the modules it names.
fn order(head: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(head).unwrap();
    let lines = text.lines().skip_while(|line| !line.contains(MARK)).filter_map(|line| line.strip_prefix("//! * "));
    let names =
        |line: &str| line.split(": ").next().unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect();
    lines.map(names).collect()
}

/// The name by which a file's folder knows it, or the folder's own if the file is its head.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

fn is_head(path: &Path) -> bool {
    ["lib", "main", "mod"].contains(&stem(path).as_str())
}

/// The path of a file's module from the root of its crate.
fn module(root: &Path, file: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        file.strip_prefix(root).unwrap().iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.pop();
    if !is_head(file) {
        parts.push(stem(file));
    }
    parts
}

/// The code of a file, without comments and tests (which come last), and the modules in it that are tests.
fn code(path: &Path) -> (String, Vec<String>) {
    let (mut code, mut tests, mut in_test) = (String::new(), Vec::new(), false);
    for line in fs::read_to_string(path).unwrap().lines() {
        let declared = line.strip_prefix("mod ").filter(|_| in_test);
        if declared.is_some_and(|name| name.ends_with('{')) {
            break;
        }
        tests.extend(declared.map(|name| name.trim_end_matches(';').to_owned()));
        in_test = line == "#[cfg(test)]";
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    (code, tests)
}

/// Every path in the code that starts in the crate, split into parts.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !(before.is_alphanumeric() || matches!(before, '_' | ':')) {
                expand(vec![root.trim_end_matches(':').to_owned()], &code[at + root.len()..], &mut found);
            }
        }
    }
    found
}

/// Follows a path, and each of a group.
fn expand(mut path: Vec<String>, rest: &str, found: &mut Vec<Vec<String>>) {
    let rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        return members(group).into_iter().for_each(|member| expand(path.clone(), member, found));
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let after = &rest[name.len()..];
    path.extend((!name.is_empty()).then_some(name));
    match after.strip_prefix("::") {
        Some(after) if after.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '{')) => {
            expand(path, after, found);
        }
        _ => found.push(path),
    }
}

/// The members of a group, up to its closing brace.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut members) = (0_i32, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                members.extend(Some(&group[begin..at]).filter(|member| !member.trim().is_empty()));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members
}

/// A path from the root of the crate.
fn absolute(own: &[String], path: &[String]) -> Vec<String> {
    let mut whole = if path[0] == "crate" { Vec::new() } else { own.to_owned() };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(whole.pop()),
            _ => whole.push(part.clone()),
        }
    }
    whole
}

/// What is wrong in one folder.
fn wrong(head: &Path) -> Vec<String> {
    let (folder, order) = (head.parent().unwrap(), order(head));
    let root = folder.ancestors().find(|folder| folder.ends_with("src")).unwrap();
    let (head_code, tests) = code(head);
    let prefix = module(root, head);
    // What a head only re-exports is named where it is.
    let passed_on: BTreeSet<String> = paths(&head_code).into_iter().filter_map(|mut path| path.pop()).collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let (name, files) = (stem(&entry), if entry.is_dir() { sources(&entry) } else { vec![entry.clone()] });
        if entry == head || files.is_empty() || is_head(&entry) || tests.contains(&name) {
            continue;
        }
        let of_tests: BTreeSet<String> = files.iter().flat_map(|file| code(file).1).collect();
        let used = uses.entry(name).or_default();
        for file in files.iter().filter(|file| is_head(file) || !of_tests.contains(&stem(file))) {
            let own = module(root, file);
            let all = paths(&code(file).0).into_iter().map(|path| absolute(&own, &path));
            used.extend(all.filter_map(|path| path.strip_prefix(prefix.as_slice())?.first().cloned()));
        }
    }
    let line = |name: &String| order.iter().position(|line| line.contains(name));
    let mut wrong = Vec::new();
    for (name, used) in &uses {
        let Some(own) = line(name) else {
            wrong.push(format!("{name} is not in the list"));
            continue;
        };
        for other in used.iter().filter(|other| *other != name) {
            match line(other) {
                Some(theirs) if theirs < own => {}
                Some(_) => wrong.push(format!("{name} -> {other}")),
                None if passed_on.contains(other) => wrong.push(format!("{name} -> {other}, by way of the head")),
                None => {}
            }
        }
    }
    let listed = order.concat();
    wrong.extend(listed.iter().filter(|name| !uses.contains_key(*name)).map(|name| format!("there is no {name}")));
    if listed.len() != uses.len() {
        wrong.push("a module is listed twice, or not at all".to_owned());
    }
    wrong
}

#[test]
fn modules_use_only_those_above_them() {
    let all: BTreeMap<PathBuf, Vec<String>> = heads().into_iter().map(|head| (head.clone(), wrong(&head))).collect();
    let wrong: Vec<_> = all.iter().filter(|(_, wrong)| !wrong.is_empty()).collect();
    assert!(wrong.is_empty(), "against the order in the head: {wrong:#?}");
}

#[test]
fn the_heads_that_must_have_a_list_have_one() {
    let heads = heads();
    let lost: Vec<_> = HELD.iter().filter(|head| !heads.contains(&workspace().join(head))).collect();
    assert!(lost.is_empty(), "without a list: {lost:?}");
}

#[test]
fn paths_are_followed_into_groups() {
    let found = paths("use crate::{\n    a::{self, B},\n    c,\n};\nfn f() { super::d::e(); some_crate::x(); }");
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["crate::a::self", "crate::a::B", "crate::c", "super::d::e"]);
}
