//! Installing agents, with a package manager that tries what it may not.

#![allow(clippy::unwrap_used, reason = "a test ends where its machine fails it")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// In place of npm: tells who it is, writes where it is told and elsewhere, and leaves odd things behind.
const NPM: &str = r#"#!/bin/sh
while [ "$1" != --prefix ]; do shift; done
tree=$2; secret=SECRET; outside=OUTSIDE
mkdir -p "$tree/node_modules/tool/bin"
cd "$tree/node_modules/tool"
id -u > user
cat "$secret" > secret 2>/dev/null
echo changed > "$outside" 2>/dev/null
env > environment
cat "$HOME/.npmrc" > npmrc
printf '#!/bin/sh\necho tool\n' > bin/tool
chmod 4777 bin/tool
chmod 666 user
ln -s /etc/hostname away
ln -s tool bin/link
mkfifo pipe
echo x > twice; ln twice again
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new(npm: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.open(place.0.path(), 0o755);
        for folder in ["bin", "data", "agents", "home"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        fs::write(place.path("data/secret"), "the server's").unwrap();
        fs::write(place.path("outside"), "as it was").unwrap();
        place.open(&place.path("outside"), 0o666);
        fs::write(place.path("home/.npmrc"), "registry = of the operator\n").unwrap();
        place.open(&place.path("home"), 0o700);
        let npm = npm.replace("SECRET", &place.text("data/secret")).replace("OUTSIDE", &place.text("outside"));
        for (name, text) in [("npm", npm.as_str()), ("node", "#!/bin/sh\n")] {
            fs::write(place.path("bin").join(name), text).unwrap();
            place.open(&place.path("bin").join(name), 0o755);
        }
        let entry = "[tool]\ntitle = \"A tool\"\ncommand = [\"{install}/bin/tool\"]\n\
                     install = { npm = \"tool\", version = \"1.0.0\", binary = \"bin/tool\" }\n";
        fs::write(place.path("types.toml"), entry).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn open(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn install(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ambient"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AMBIENT_")) {
            command.env_remove(name);
        }
        command.args(["agent-type", "install", "tool"]).env("AMBIENT_SERVER_CONFIG", "/dev/null");
        command.env("AMBIENT_DATA_DIR", self.path("data")).env("AMBIENT_AGENTS_DIR", self.path("agents"));
        command.env("AMBIENT_AGENT_TYPES_FILE", self.path("types.toml")).env("AMBIENT_OPENAI_KEY_FILE", "/nowhere");
        command.env("HOME", self.path("home")).env_remove("npm_config_userconfig");
        let path = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths([self.path("bin")].into_iter().chain(std::env::split_paths(&path))).unwrap();
        command.env("PATH", path).output().unwrap()
    }
}

#[test]
fn a_package_manager_may_write_its_folder_and_what_it_leaves_is_the_servers() {
    let place = Place::new(NPM);
    let done = place.install();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let tree = place.path("agents/tool-1.0.0");
    let tool = tree.join("node_modules/tool");
    let read = |name: &str| fs::read_to_string(tool.join(name)).unwrap();
    let us = fs::metadata(place.path("data")).unwrap().uid();
    assert_eq!(read("npmrc"), "registry = of the operator\n");
    assert_eq!(read("secret"), "", "the data directory is not in sight");
    assert_eq!(fs::read_to_string(place.path("outside")).unwrap(), "as it was");
    assert!(!read("environment").contains("AMBIENT_"));
    if us == 0 {
        // 40,000 and 25,000 for sessions, then the one that reads snapshots.
        assert_eq!(read("user"), "65001\n");
    }
    let about = |name: &str| fs::symlink_metadata(tool.join(name)).unwrap();
    assert!([".", "user", "bin", "bin/tool", "bin/link"].iter().all(|name| about(name).uid() == us));
    assert_eq!((about("bin/tool").mode() & 0o7777, about("bin").mode() & 0o7777), (0o755, 0o755));
    assert!(["away", "pipe"].iter().all(|name| fs::symlink_metadata(tool.join(name)).is_err()));
    let names = ["twice", "again"].iter().filter(|name| fs::symlink_metadata(tool.join(name)).is_ok()).count();
    assert_eq!(names, 1, "nothing has a second name");
    let left: Vec<_> = fs::read_dir(place.path("agents")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the lock and the tool: {left:?}");

    let again = place.install();
    assert!(String::from_utf8_lossy(&again.stdout).contains("is installed already"));
}

#[test]
fn a_package_manager_that_fails_leaves_nothing_and_its_words_are_told() {
    let place = Place::new("#!/bin/sh\necho no such package >&2; exit 7\n");
    let done = place.install();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && told.contains("tool@1.0.0") && told.contains("no such package"), "{told}");
    assert_eq!(fs::read_dir(place.path("agents")).unwrap().count(), 1, "the lock");
}
