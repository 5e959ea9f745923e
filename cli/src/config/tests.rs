use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::*;
use crate::Globals;

const TWO: &str = r#"
current_context = "local"
[contexts.local]
url = "http://127.0.0.1:7080"
token = "secret-local"
project = "local"
[contexts.far]
url = "http://ambient.example:80/base"
token = "secret-far"
"#;

fn file(directory: &Path, text: &str, mode: u32) -> Environment {
    let path = directory.join("config.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    Environment { config: Some(path), ..Environment::default() }
}

fn resolve(globals: &Globals, environment: &Environment) -> (String, Option<String>, Option<String>) {
    let target = Target::resolve(globals, environment).unwrap();
    (target.url.to_string(), target.token, target.project)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn flags_win_over_variables_and_variables_over_the_context() {
    let directory = tempfile::tempdir().unwrap();
    let mut environment = file(directory.path(), TWO, 0o600);
    let none = Globals::default();
    assert_eq!(
        resolve(&none, &environment),
        ("http://127.0.0.1:7080/".to_owned(), some("secret-local"), some("local"))
    );
    let far = Globals { context: some("far"), ..Globals::default() };
    assert_eq!(resolve(&far, &environment), ("http://ambient.example/base/".to_owned(), some("secret-far"), None));

    environment.token = some("from-variable");
    environment.project = some("variable");
    assert_eq!(resolve(&none, &environment).1, some("from-variable"));
    let flags = Globals { token: some("from-flag"), project: some("flag"), ..Globals::default() };
    assert_eq!(resolve(&flags, &environment), ("http://127.0.0.1:7080/".to_owned(), some("from-flag"), some("flag")));
}

#[test]
fn a_contexts_token_is_not_sent_to_another_server() {
    let directory = tempfile::tempdir().unwrap();
    let mut environment = file(directory.path(), TWO, 0o600);
    environment.url = some("http://elsewhere.example");
    assert_eq!(resolve(&Globals::default(), &environment), ("http://elsewhere.example/".to_owned(), None, None));
    environment.url = some("http://127.0.0.1:7080");
    assert_eq!(resolve(&Globals::default(), &environment).1, some("secret-local"));
}

#[test]
fn a_token_others_may_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o644, 0o640, 0o604] {
        let environment = file(directory.path(), TWO, mode);
        let error = Target::resolve(&Globals::default(), &environment).unwrap_err().to_string();
        assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod 600"), "{error}");
    }
    let environment = file(directory.path(), "[contexts.open]\nurl = \"http://x\"\n", 0o644);
    let open = Globals { context: some("open"), ..Globals::default() };
    assert_eq!(resolve(&open, &environment).0, "http://x/");
}

#[test]
fn what_is_wrong_is_named_and_never_shows_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let error = |text: &str, globals: &Globals| {
        let environment = file(directory.path(), text, 0o600);
        let error = Target::resolve(globals, &environment).unwrap_err().to_string();
        error.replace(directory.path().to_str().unwrap(), "")
    };
    let none = Globals::default();
    insta::assert_snapshot!(error("[contexts.a]\nurl='http://x'\ntoken = 'hush\n", &none), @"/config.toml: line 3: invalid literal string, expected `'`");
    insta::assert_snapshot!(error("colour = 1\n", &none), @"/config.toml: line 1: unknown field `colour`, expected `current_context` or `contexts`");
    insta::assert_snapshot!(error(TWO, &Globals { context: some("near"), ..Globals::default() }), @"no context 'near'; known contexts: far, local");
    insta::assert_snapshot!(error("", &none), @"no server is configured: run 'ambient up', or set AMBIENT_URL and AMBIENT_TOKEN");
    let url = |url: &str| error("", &Globals { url: some(url), ..Globals::default() });
    insta::assert_snapshot!(url("127.0.0.1:7080"), @"--url: '127.0.0.1:7080' is not a URL: relative URL without a base");
    insta::assert_snapshot!(url("https://x"), @"--url: https is not built in yet; use http to a server or proxy on this machine");
    insta::assert_snapshot!(url("ftp://x"), @"--url: must begin with http://, not ftp:");
    insta::assert_snapshot!(url("http://me:pw@x"), @"--url: must not contain credentials; use AMBIENT_TOKEN");
    assert_eq!(format!("{:?}", Context { url: String::new(), token: some("hush"), project: None }).find("hush"), None);
}

#[test]
fn the_file_is_where_the_variables_say() {
    let mut environment = Environment::default();
    assert!(matches!(environment.config_path(), Err(ConfigError::NoPlace)));
    environment.home = Some("/home/me".into());
    assert_eq!(environment.config_path().unwrap(), Path::new("/home/me/.config/ambient/config.toml"));
    environment.config_home = Some("/xdg".into());
    assert_eq!(environment.config_path().unwrap(), Path::new("/xdg/ambient/config.toml"));
    environment.config = Some("/own.toml".into());
    assert_eq!(environment.config_path().unwrap(), Path::new("/own.toml"));
}

#[test]
fn writing_a_context_keeps_the_others_and_closes_the_file_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/folder/config.toml");
    let context = |token: &str| Context { url: "http://127.0.0.1:1".to_owned(), token: some(token), project: None };
    write_context_at(&path, "first", context("one")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    write_context_at(&path, "second", context("two")).unwrap();

    let file = File::read(&path).unwrap();
    assert_eq!(
        (file.current_context.as_deref(), file.names()),
        (Some("second"), vec!["first".to_owned(), "second".to_owned()])
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing temporary is left");

    fs::write(&path, "not toml").unwrap();
    assert!(write_context_at(&path, "third", context("three")).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "not toml", "what is not understood is left alone");
}
