//! A database with both schemas up to date, made once per server and set of migrations, that tests get a copy of: a copy takes a
//! fraction of the time that the migrations take.

use std::fmt::Write as _;

use ambient_postgres::Schema;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};

/// The schemas in the order in which a server brings them up to date, each with its table of migrations. One that differs from the
/// product's shows at once: the product then migrates the copy again, and fails.
fn schemas() -> [(&'static str, &'static str, Migrator); 2] {
    [
        ("ambient", "_migrations", sqlx::migrate!("../migrations")),
        ("engine", "_sqlx_migrations", sqlx::migrate!("../engine/migrations")),
    ]
}

/// Named by all migrations, so that builds of different releases share a server.
fn name() -> String {
    let mut hash = Sha256::new();
    for (schema, table, migrator) in schemas() {
        hash.update(schema);
        hash.update(table);
        migrator.iter().for_each(|migration| hash.update(&migration.checksum));
    }
    hash.finalize().iter().take(6).fold("ambient_template_".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Name of the template on `server`, which is made when it is not there. Any number of processes may ask at once.
pub(crate) async fn ready(server: &mut PgConnection, options: &PgConnectOptions) -> String {
    let name = name();
    if exists(server, &name).await {
        return name;
    }
    // Held by the session, and let go of below.
    let lock = "select pg_advisory_lock(hashtext($1))";
    sqlx::query(lock).bind(&name).execute(&mut *server).await.unwrap();
    if !exists(server, &name).await {
        make(server, options, &name).await;
    }
    let unlock = "select pg_advisory_unlock(hashtext($1))";
    sqlx::query(unlock).bind(&name).execute(&mut *server).await.unwrap();
    name
}

async fn exists(server: &mut PgConnection, name: &str) -> bool {
    let sql = "select exists (select from pg_database where datname = $1)";
    sqlx::query_scalar(sql).bind(name).fetch_one(server).await.unwrap()
}

/// Under another name until it is whole, so that what a killed process leaves behind is no template.
async fn make(server: &mut PgConnection, options: &PgConnectOptions, name: &str) {
    let unfinished = format!("{name}_unfinished");
    execute(server, format!("drop database if exists {unfinished} with (force)")).await;
    execute(server, format!("create database {unfinished}")).await;
    for (schema, table, migrator) in schemas() {
        let mut connection = PgConnection::connect_with(&options.clone().database(&unfinished)).await.unwrap();
        Schema::new(schema, table, migrator).migrate(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    // A database that somebody is connected to cannot be copied.
    execute(server, format!("alter database {unfinished} with allow_connections false")).await;
    execute(server, format!("alter database {unfinished} rename to {name}")).await;
}

async fn execute(server: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(server).await.unwrap();
}
