//! Migrates a schema, with no more privileges than that takes: only reading if it is up to date.

use std::collections::HashMap;

use sqlx::{
    AssertSqlSafe, PgConnection,
    migrate::{Migrate as _, MigrateError, Migrator},
};

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Why a schema is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Nothing can be written.
    #[error("this PostgreSQL only reads (a standby, or set so): name its primary")]
    ReadOnly,
    /// The role lacks a privilege.
    #[error(
        "the role {role} may not bring the schema '{schema}' up to date ({reason}): run `ambient migrate` as its owner, and \
         let {role} use it (see the operations guide)"
    )]
    Privileges {
        /// Which schema.
        schema: &'static str,
        /// Which role.
        role: String,
        /// PostgreSQL's message.
        reason: String,
    },
    /// A migration failed, or the schema belongs to a newer release.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A schema with its own migrations, recorded in a table within it.
#[derive(Debug)]
pub struct Schema {
    name: &'static str,
    table: &'static str,
    migrator: Migrator,
}

impl Schema {
    /// Schema `name`, whose migrations are recorded in `table` (without the schema's name).
    #[must_use]
    pub const fn new(name: &'static str, table: &'static str, migrator: Migrator) -> Self {
        Self { name, table, migrator }
    }

    /// Applies what is missing. Several processes may call it at once. The connection is not usable for anything else afterwards: its
    /// limits are changed, and after a failure it may hold the lock that keeps others from migrating.
    ///
    /// # Errors
    /// See [`MigrationError`].
    pub async fn migrate(mut self, connection: &mut PgConnection) -> Result<(), MigrationError> {
        let sql = "select pg_is_in_recovery() or current_setting('transaction_read_only')::bool";
        if sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut *connection).await? {
            return Err(MigrationError::ReadOnly);
        }
        // A request's limits must not end a long migration.
        let limits = "set statement_timeout = 0; set lock_timeout = '60s'; set client_min_messages = warning";
        sqlx::raw_sql(limits).execute(&mut *connection).await?;
        match self.bring_up_to_date(connection).await {
            Err(error) if error.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE) => {
                let role = sqlx::query_scalar("select current_user::text").fetch_one(connection).await?;
                Err(MigrationError::Privileges { schema: self.name, role, reason: error.to_string() })
            }
            done => done,
        }
    }

    async fn bring_up_to_date(&mut self, connection: &mut PgConnection) -> Result<(), MigrationError> {
        // CREATE … IF NOT EXISTS needs the privilege to create even if there is nothing to create.
        if self.is_current(connection).await? {
            return Ok(());
        }
        let exists = "select exists (select from pg_namespace where nspname = $1)";
        if !sqlx::query_scalar::<_, bool>(exists).bind(self.name).fetch_one(&mut *connection).await? {
            self.migrator.create_schema(self.name);
        }
        self.migrator.dangerous_set_table_name(self.full_table());
        self.migrator.run_direct(None, connection, false).await?;
        Ok(())
    }

    fn full_table(&self) -> String {
        format!("{}.{}", self.name, self.table)
    }

    /// Whether every migration is applied as this program has it. An unknown one is an error.
    async fn is_current(&self, connection: &mut PgConnection) -> Result<bool, MigrationError> {
        let table = self.full_table();
        let exists = "select to_regclass($1) is not null";
        if !sqlx::query_scalar::<_, bool>(exists).bind(&table).fetch_one(&mut *connection).await? {
            return Ok(false);
        }
        let unfinished = format!("select count(*) from {table} where not success");
        if sqlx::query_scalar::<_, i64>(AssertSqlSafe(unfinished)).fetch_one(&mut *connection).await? > 0 {
            return Ok(false);
        }
        let applied = connection.list_applied_migrations(&table).await?;
        let known: HashMap<i64, _> = self.migrator.iter().map(|migration| (migration.version, migration)).collect();
        for one in &applied {
            let migration = known.get(&one.version).ok_or(MigrateError::VersionMissing(one.version))?;
            if migration.checksum != one.checksum {
                return Err(MigrateError::VersionMismatch(one.version).into());
            }
        }
        Ok(applied.len() == known.len())
    }
}

impl MigrationError {
    /// PostgreSQL's error code.
    fn code(&self) -> Option<String> {
        let source = match self {
            Self::Database(source) => source,
            Self::Migrate(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) => source,
            _ => return None,
        };
        Some(source.as_database_error()?.code()?.into_owned())
    }
}
