//! The modules of the engine use each other in one direction: the list in the head of `src/lib.rs` is the law.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The lines of the list, each with the modules it names.
fn order(root: &Path) -> Vec<Vec<String>> {
    let lib = fs::read_to_string(root.join("lib.rs")).unwrap();
    let lines = lib.lines().filter_map(|line| line.strip_prefix("//! * "));
    lines.map(|line| names(line.split(": ").next().unwrap())).collect()
}

/// What stands between backticks.
fn names(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The name of a source file's or a folder's module.
fn module(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    fs::read_dir(path).unwrap().flat_map(|entry| sources(&entry.unwrap().path())).collect()
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

/// The first names of every path that begins at the root of the crate.
fn used(code: &str) -> BTreeSet<String> {
    let paths = code.split("crate::").skip(1);
    paths
        .flat_map(|path| if let Some(group) = path.strip_prefix('{') { grouped(group) } else { vec![name(path)] })
        .collect()
}

fn name(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names of a group of paths, up to its closing brace.
fn grouped(group: &str) -> Vec<String> {
    let (mut depth, mut found, mut begins) = (0_i32, Vec::new(), true);
    for (position, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                found.push(name(&group[position..]));
                begins = false;
            }
            _ => {}
        }
    }
    found
}

/// Module, and every other module that it uses.
fn uses(root: &Path) -> Vec<(String, BTreeSet<String>)> {
    let (_, tests) = code(&root.join("lib.rs"));
    let tops = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let tops = tops.filter(|top| module(top) != "lib" && !tests.contains(&module(top)));
    let of = |top: PathBuf| {
        let files: Vec<_> = sources(&top).into_iter().map(|path| (module(&path), code(&path))).collect();
        let tests: Vec<_> = files.iter().flat_map(|(_, (_, tests))| tests.clone()).collect();
        let kept = files.iter().filter(|(name, _)| !tests.contains(name));
        let mut all: BTreeSet<String> = kept.flat_map(|(_, (code, _))| used(code)).collect();
        all.remove(&module(&top));
        (module(&top), all)
    };
    tops.map(of).collect()
}

#[test]
fn modules_use_only_those_above_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let order = order(&root);
    let line = |name: &String| order.iter().position(|line| line.contains(name));
    let mut wrong = Vec::new();
    let uses = uses(&root);
    assert!(uses.iter().any(|(name, used)| name == "rpc" && used.contains("engine")), "nothing is read: {uses:?}");
    for (name, used) in &uses {
        let Some(own) = line(name) else {
            wrong.push(format!("{name} is not in the list"));
            continue;
        };
        // What is named through the root of the crate is in no line.
        let bad = used.iter().filter(|other| line(other).is_none_or(|theirs| theirs >= own));
        wrong.extend(bad.map(|other| format!("{name} -> {other}")));
    }
    assert!(wrong.is_empty(), "against the order in src/lib.rs: {wrong:#?}");
}

#[test]
fn the_list_names_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let there: BTreeSet<String> = uses(&root).into_iter().map(|(name, _)| name).collect();
    let listed: Vec<String> = order(&root).concat();
    let gone: Vec<_> = listed.iter().filter(|name| !there.contains(*name)).collect();
    assert!(gone.is_empty(), "no such modules: {gone:?}");
    assert_eq!(listed.len(), there.len(), "listed twice, or not at all");
}
