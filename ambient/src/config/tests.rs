use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt, path::Path};

use super::{ConfigError, ConfigFlags, Confinement, ServerConfig, keys};

fn resolve(flags: &ConfigFlags, variables: &[(&str, &str)]) -> Result<ServerConfig, ConfigError> {
    let home = [("HOME", "/nonexistent")];
    let pairs = home.iter().chain(variables).map(|(k, v)| (OsString::from(k), OsString::from(v)));
    ServerConfig::resolve(flags, pairs)
}

fn with_file(dir: &Path, text: &str) -> ConfigFlags {
    let path = dir.join("server.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    ConfigFlags { config: Some(path), ..ConfigFlags::default() }
}

fn message(result: Result<ServerConfig, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file =
        with_file(dir.path(), "permits = 1\nhost = \"file\"\nconfinement = \"off\"\nreadable_paths = [\"/opt\"]\n");
    let flags = ConfigFlags { permits: Some("3".into()), ..file };
    let config = resolve(&flags, &[("AMBIENT_PERMITS", "2"), ("AMBIENT_HOST", "environment")]).unwrap();
    assert_eq!((config.permits, config.host.as_str(), config.confinement), (3, "environment", Confinement::Off));
    assert_eq!(config.readable_paths, [Path::new("/opt")]);
    assert_eq!(config.listen.to_string(), "127.0.0.1:7080");
    assert_eq!(config.origins["permits"].to_string(), "--permits");
    assert_eq!(config.origins["host"].to_string(), "AMBIENT_HOST");
}

#[test]
fn every_setting_can_come_from_the_environment() {
    let values = [
        "postgresql://u@h/d",
        "[::1]:1",
        "true",
        "/d",
        "h",
        "json",
        "debug",
        "30000",
        "/a:/b",
        "/agents",
        "/types",
        "require",
        "github.com,*.crates.io",
        "/r",
        "/t",
        "temporal",
        "q",
        "7",
        "9",
        "m",
        "codex",
        "2",
        "1Gi",
        "100",
        "10Gi",
        "1000",
        "4",
        "8Gi",
        "200",
        "20Gi",
        "2000",
        "64Mi",
        "128Mi",
        "https://o/v1",
        "hunter2",
        "https://a",
        "hunter2",
        "https://g",
        "hunter2",
        "m:n",
        r#"{"m": {"input": 1, "output": 2.5}}"#,
        "EUR",
        "1000000",
        "9.99",
        "10.0.0.5:8000,[fd00::1]:80",
        "s3://bucket/p",
        "https://s3",
        "r",
        "k",
        "hunter2",
        "512Mi",
        "2Gi",
        "7",
        "30",
        "14",
        "2",
        "365",
        "http://c:4318",
        "a=hunter2",
        "0.5",
        "ours",
        "on",
        "cluster:7233",
        "n",
        "true",
        "/ca",
        "/cert",
        "/key",
        "name",
        "hunter2",
        "pinned",
        "d",
        "b",
    ];
    let variables: Vec<(String, &str)> =
        keys().map(|key| format!("AMBIENT_{}", key.to_uppercase())).zip(values).collect();
    let pairs: Vec<(&str, &str)> = variables.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let config = resolve(&ConfigFlags::default(), &pairs).unwrap();
    assert_eq!(config.origins.len(), keys().count());
    assert_eq!(config.readable_paths.len(), 2);
    let shown = config.to_redacted_toml();
    assert!(!shown.contains("hunter2"), "{shown}");
    let printed: toml::Table = shown.parse().unwrap();
    assert_eq!(printed.keys().collect::<Vec<_>>().len(), keys().count());
}

#[test]
fn a_mistake_is_an_error_that_names_setting_and_origin() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = message(resolve(&with_file(dir.path(), "lisen = \"127.0.0.1:1\"\n"), &[]));
    assert!(unknown.contains("server.toml") && unknown.contains("unknown key `lisen`"), "{unknown}");
    let syntax = message(resolve(&with_file(dir.path(), "host = \"a\"\ndatabase_url = hunter2\n"), &[]));
    assert!(syntax.contains("line 2") && !syntax.contains("hunter2"), "{syntax}");
    let kind = message(resolve(&with_file(dir.path(), "permits = \"7\"\n"), &[]));
    assert!(kind.starts_with("permits: ") && kind.contains("server.toml"), "{kind}");

    let cases = [
        ("AMBIENT_LISTEN", "localhost", "listen: "),
        ("AMBIENT_PERMITS", "0", "permits: "),
        ("AMBIENT_PERMITS", "many", "permits: "),
        ("AMBIENT_DATA_DIR", "here", "data_dir: "),
        ("AMBIENT_DATA_DIR", "/var/tmp/x", "data_dir: `/var/tmp/x` cannot be used by sessions"),
        ("AMBIENT_READABLE_PATHS", "/usr:opt", "readable_paths: "),
        ("AMBIENT_HOST", "a b", "host: "),
        ("AMBIENT_LOG_LEVEL", "info,=x=y", "log_level: "),
        ("AMBIENT_SESSION_UID_BASE", "0", "session_uid_base: "),
        ("AMBIENT_SESSION_UID_BASE", "50000", "session_uid_base: the 25000 ids from 50000 up must not contain 65534"),
        ("AMBIENT_CONFINEMENT", "maybe", "confinement: "),
        ("AMBIENT_SESSION_NETWORK", "none,Github.com", "session_network: allow[1] must be in lower case"),
        ("AMBIENT_ENGINE", "dbos", "engine: "),
        ("AMBIENT_TASK_QUEUE", "a b", "task_queue: "),
        ("AMBIENT_SESSION_CPU", "many", "session_cpu: must be a number of processors such as"),
        ("AMBIENT_SESSION_MEMORY", "1GB", "session_memory: must be a number of bytes such as"),
        ("AMBIENT_SESSION_PROCESSES", "1", "session_processes: "),
        ("AMBIENT_SESSION_MAX_OPEN_FILES", "1", "session_max_open_files: "),
        ("AMBIENT_DISK_RESERVE", "-1", "disk_reserve: "),
        ("AMBIENT_TEMPORAL_ADDRESS", "cluster", "temporal_address: "),
        ("AMBIENT_TEMPORAL_ADDRESS", "http://cluster:7233", "temporal_address: "),
        ("AMBIENT_RETENTION_DAYS", "0", "retention_days: "),
        ("AMBIENT_TEMPORAL_TLS_CERT", "/cert", "temporal_tls_cert: needs temporal_tls_key"),
        ("AMBIENT_TEMPORAL_TLS_CA", "ca", "temporal_tls_ca: "),
        ("AMBIENT_WORKER_VERSIONING", "yes", "worker_versioning: "),
        ("AMBIENT_DATABASE_URL", "mysql://u:hunter2@h/d", "database_url: "),
    ];
    for (variable, value, start) in cases {
        let text = message(resolve(&ConfigFlags::default(), &[(variable, value)]));
        assert!(text.starts_with(start) && text.contains(variable) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_public_address_needs_the_word_that_a_proxy_is_in_front() {
    let text = message(resolve(&ConfigFlags::default(), &[("AMBIENT_LISTEN", "0.0.0.0:80")]));
    assert!(text.starts_with("listen: ") && text.contains("behind_proxy = true"), "{text}");
    let both = [("AMBIENT_LISTEN", "0.0.0.0:80"), ("AMBIENT_BEHIND_PROXY", "true")];
    assert!(resolve(&ConfigFlags::default(), &both).is_ok());
}

#[test]
fn the_database_password_is_never_shown() {
    let url = "postgresql://ambient:hunter2@h/d?host=%2Frun&password=hunter2";
    let config = resolve(&ConfigFlags::default(), &[("AMBIENT_DATABASE_URL", url)]).unwrap();
    assert_eq!(config.require_database_url().unwrap().expose(), url);
    let shown = format!("{config:?}{}", config.to_redacted_toml());
    assert!(!shown.contains("hunter2") && shown.contains("ambient:redacted@h/d"), "{shown}");
}

#[test]
fn what_looks_like_a_mistake_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let flags = with_file(dir.path(), "database_url = \"postgresql://u:p@h/d\"\n");
    fs::set_permissions(flags.config.as_ref().unwrap(), fs::Permissions::from_mode(0o644)).unwrap();
    let config = resolve(&flags, &[("AMBIENT_LISTN", "x"), ("AMBIENT_TOKEN", "t"), ("AMBIENT_TEST_X", "y")]).unwrap();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings.iter().any(|w| w.contains("chmod 600")));
    assert!(config.warnings.iter().any(|w| w.contains("AMBIENT_LISTN")));
}

#[test]
fn a_server_without_a_database_says_how_to_name_one() {
    let config = resolve(&ConfigFlags::default(), &[]).unwrap();
    let text = config.require_database_url().unwrap_err().to_string();
    assert!(text.contains("AMBIENT_DATABASE_URL"), "{text}");
}

#[test]
fn a_sessions_default_is_never_above_its_maximum() {
    let lowered = resolve(&ConfigFlags::default(), &[("AMBIENT_SESSION_MAX_MEMORY", "64Mi")]).unwrap();
    assert_eq!(lowered.limits.session_memory.to_string(), "64Mi");
    let both = [("AMBIENT_SESSION_MAX_DISK", "1Gi"), ("AMBIENT_SESSION_DISK", "2Gi")];
    let text = message(resolve(&ConfigFlags::default(), &both));
    assert!(text.starts_with("session_disk: ") && text.contains("at most 1Gi"), "{text}");
    let half = resolve(&ConfigFlags::default(), &[]).unwrap().limits.session_memory.get();
    assert!(half > 64 << 20, "{half}");
}
