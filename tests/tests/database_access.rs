//! Servers and commands on a PostgreSQL that demands TLS, and as a role that owns nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use ambient_tests::{OwnPostgres, TestDatabase};
use serde_json::{Value, json};
use support::{Server, binary, clean_command, eventually, script};

/// An authority with a server's certificate for `localhost` and 127.0.0.1 and a client's for the role `app`, and another
/// authority that has signed nothing.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = Self(dir);
        for authority in ["ca", "other"] {
            made.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={authority} \
                 -keyout {authority}.key -out {authority}.pem"
            ));
        }
        fs::write(made.path("server.ext"), "subjectAltName=DNS:db.example,IP:127.0.0.1").unwrap();
        fs::write(made.path("client.ext"), "extendedKeyUsage=clientAuth").unwrap();
        for (name, subject) in [("server", "db.example"), ("client", "app")] {
            made.openssl(&format!(
                "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={subject} -keyout {name}.key \
                 -out {name}.csr"
            ));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext \
                 -out {name}.pem"
            ));
        }
        fs::set_permissions(made.path("client.key"), fs::Permissions::from_mode(0o600)).unwrap();
        made
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(self.0.path()).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

/// A PostgreSQL that takes TCP connections over TLS only: of `app` with a client's certificate, of others without.
async fn strict_postgres(certificates: &Certificates) -> OwnPostgres {
    let postgres = OwnPostgres::on_tcp();
    for (name, content) in [("server.crt", "server.pem"), ("server.key", "server.key"), ("root.crt", "ca.pem")] {
        postgres.give(name, &certificates.read(content));
    }
    let rules = "local all all trust\nhostssl all app 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 trust\n";
    postgres.give("pg_hba.conf", rules.as_bytes());
    let turn_on = ["alter system set ssl_ca_file = 'root.crt'", "alter system set ssl = on", "select pg_reload_conf()"];
    postgres.execute("postgres", &turn_on).await;
    postgres
}

/// URL over TCP.
fn tcp(postgres: &OwnPostgres, database: &TestDatabase, role: &str, host: &str, parameters: &str) -> String {
    format!("postgresql://{role}@{host}:{}/{}?{parameters}", postgres.port(), database.name())
}

fn ambient(url: &str, data_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = clean_command(binary("ambient"));
    command.args(arguments).env("AMBIENT_DATABASE_URL", url).env("AMBIENT_DATA_DIR", data_dir);
    command.output().unwrap()
}

#[track_caller]
fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What `/readyz` says of the database.
async fn database_check(server: &Server) -> Value {
    let ready = server.readiness().await.unwrap();
    ready.json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "database").unwrap().clone()
}

#[tokio::test]
async fn a_postgresql_that_demands_tls_is_used_and_one_that_is_not_the_right_one_is_refused() {
    let certificates = Certificates::new();
    let postgres = strict_postgres(&certificates).await;
    let database = postgres.database().await;
    let (ca, other) = (certificates.path("ca.pem"), certificates.path("other.pem"));
    let url = |role: &str, host: &str, parameters: &str| tcp(&postgres, &database, role, host, parameters);
    let verified = format!("sslmode=verify-full&sslrootcert={}", ca.display());
    let good = url("ambient", "127.0.0.1", &verified);
    let dir = support::short_dir();
    let migrate = |url: &str| ambient(url, dir.path(), &["migrate"]);
    // The server may take a moment to read its settings again.
    eventually("TLS is on", async || migrate(&good).status.success().then_some(())).await;

    let wrong_authority = format!("sslmode=verify-full&sslrootcert={}", other.display());
    let same_by_require = format!("sslmode=require&sslrootcert={}", other.display());
    let key = certificates.path("client.key").display().to_string();
    let own = format!("{verified}&sslcert={}&sslkey={key}", certificates.path("client.pem").display());
    for (refused, why) in [
        (url("ambient", "127.0.0.1", &wrong_authority), "certificate"),
        (url("ambient", "127.0.0.1", &same_by_require), "certificate"),
        // The right authority, and a name that the certificate has not.
        (url("ambient", "localhost", &verified), "certificate"),
        (url("ambient", "127.0.0.1", "sslmode=disable"), "pg_hba.conf"),
        (url("ambient", "127.0.0.1", "sslmode=verify_full"), "sslmode must be"),
        (url("ambient", "127.0.0.1", "sslmode=require&channel_binding=require"), "channel_binding"),
        (url("app", "127.0.0.1", &verified), "certificate"),
    ] {
        let output = migrate(&refused);
        let said = text(&output);
        assert!(!output.status.success() && said.contains(why), "{refused}: {said}");
    }
    // What is not verified says so, and what is encrypted is not warned of.
    let doctor = text(&ambient(&url("ambient", "127.0.0.1", "sslmode=prefer"), dir.path(), &["doctor"]));
    assert!(doctor.contains("TLSv1.3") && doctor.contains("server not verified"), "{doctor}");

    postgres.execute("postgres", &["create role app login"]).await;
    grant(&postgres, database.name(), "app").await;
    let by_certificate = url("app", "127.0.0.1", &own);
    let output = migrate(&by_certificate);
    assert!(output.status.success(), "{}", text(&output));

    let mut server = Server::at(&good, "one");
    server.restart().await;
    let check = database_check(&server).await;
    assert!(check["reason"].as_str().unwrap().contains("server verified"), "{check}");
    server.project("tls").await;
    let id = server.session(json!({"project_id": "tls", "interactive": false, "prompt": script("echo began")})).await;
    server.phase(&id, "Completed").await;
    // Every connection: of the pool, the listener, the engine's lanes and its lease.
    let plain = "do $$ begin if exists (select from pg_stat_ssl s join pg_stat_activity a using (pid)
                 where a.datname = current_database() and a.client_addr is not null and not s.ssl)
                 then raise exception 'a connection is not encrypted'; end if; end $$";
    postgres.execute(database.name(), &[plain]).await;
    for arguments in [&["engine", "check"][..], &["replay", "check"]] {
        let output = ambient(&good, dir.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let said = text(&migrate(&by_certificate));
    assert!(said.contains("others may read it"), "{said}");
}

/// What the operations guide says a role of the server's own needs.
async fn grant(postgres: &OwnPostgres, database: &str, role: &str) {
    let rights = [
        format!("grant usage on schema ambient, engine to {role}"),
        format!("grant select, insert, update, delete on all tables in schema ambient, engine to {role}"),
        format!("grant usage on all sequences in schema ambient, engine to {role}"),
    ];
    postgres.execute(database, &rights.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn a_role_that_may_create_nothing_runs_a_server_on_schemas_that_are_there() {
    let postgres = OwnPostgres::start();
    let database = postgres.database().await;
    let as_runtime = database.url().replace("//ambient@", "//runtime@");
    let dir = support::short_dir();
    postgres.execute("postgres", &["create role runtime login"]).await;
    let output = ambient(&as_runtime, dir.path(), &["migrate"]);
    let said = text(&output);
    assert!(!output.status.success() && said.contains("runtime") && said.contains("ambient migrate"), "{said}");

    assert!(ambient(&database.url(), dir.path(), &["migrate"]).status.success());
    let said = text(&ambient(&as_runtime, dir.path(), &["migrate"]));
    assert!(said.contains("permission denied"), "without any right: {said}");
    grant(&postgres, database.name(), "runtime").await;
    let output = ambient(&as_runtime, dir.path(), &["migrate"]);
    assert!(output.status.success(), "{}", text(&output));

    let mut server = Server::at(&as_runtime, "one");
    server.restart().await;
    server.project("roles").await;
    let id = server.session(json!({"project_id": "roles", "interactive": false, "prompt": script("echo began")})).await;
    server.phase(&id, "Completed").await;
    server.verified().await;
}

#[tokio::test]
async fn a_postgresql_that_only_reads_is_named_as_such() {
    let postgres = OwnPostgres::start();
    let database = postgres.database().await;
    let dir = support::short_dir();
    assert!(ambient(&database.url(), dir.path(), &["migrate"]).status.success());
    // A standby: it recovers for as long as nobody promotes it.
    postgres.kill_9();
    postgres.give("standby.signal", b"");
    postgres.start_again();
    let url = database.url();
    for arguments in [&["migrate"][..], &["server", "--listen", "127.0.0.1:0"]] {
        let output = ambient(&url, dir.path(), arguments);
        let said = text(&output);
        assert!(!output.status.success() && said.contains("only reads") && said.contains("primary"), "{said}");
    }
    let output = ambient(&url, dir.path(), &["replay", "check"]);
    assert!(output.status.success(), "what only reads may: {}", text(&output));
}
