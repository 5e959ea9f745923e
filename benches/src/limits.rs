//! What the machine and the database have to allow.

use ambient_tests::TestDatabase;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Failure;

/// 1,000 sockets here and in what is started here, with room.
const OPEN_FILES: u64 = 4_096;

/// Raises the limit of open files; children inherit it.
pub(crate) fn raise_open_files() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= OPEN_FILES) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < OPEN_FILES) {
        return Err(format!("needs {OPEN_FILES} open files, the hard limit is lower: raise `ulimit -Hn`").into());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(OPEN_FILES), maximum: limit.maximum })?)
}

/// Figures of a database that may forget what it has acknowledged say nothing.
pub(crate) async fn check_durability() -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let sql = "select name || ' = ' || setting from pg_settings
               where name in ('fsync', 'synchronous_commit', 'full_page_writes') and setting <> 'on' limit 1";
    let off: Option<String> = sqlx::query_scalar(sql).fetch_optional(&pool).await?;
    pool.close().await;
    off.map_or(Ok(()), |setting| Err(format!("the database must be durable, and has {setting}").into()))
}
