//! What the machine and the database have to allow.

use ambient_tests::TestDatabase;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Failure;

/// 1,000 sockets here and in what is started here, with room.
pub(crate) const OPEN_FILES: u64 = 4_096;

/// Raises the limit of open files to what is needed, if it is lower; children inherit it.
pub(crate) fn raise_open_files(needed: u64) -> Result<(), Failure> {
    let files = most_open_files(needed)?;
    if files < needed {
        return Err(format!("needs {needed} open files, the hard limit is lower: raise `ulimit -Hn`").into());
    }
    Ok(())
}

/// Raises it to what is wanted, or as far as that is allowed; what it is then.
pub(crate) fn most_open_files(wanted: u64) -> Result<u64, Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if let Some(current) = current.filter(|current| *current < most) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum })
            .map_err(|error| format!("the limit of open files cannot be raised from {current} to {most}: {error}"))?;
    }
    Ok(most)
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
