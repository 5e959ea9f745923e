//! A single item without locks and verdicts beforehand: begin, write, commit.

use std::collections::BTreeSet;

use ambient_domain::{Entity, Guard, project::Project};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::{
    AppendItem, Failure, Verdict,
    transaction::{claimed, conflict, is_in, repeated},
    write::{self, LastSeqs, Unclaimed},
};

/// What an item relies on, if the statement that writes can check it all.
pub(super) fn relied_on(item: &AppendItem) -> Option<Unclaimed<'_>> {
    let [part] = &item.parts[..] else { return None };
    let mut projects = BTreeSet::new();
    for guard in &item.guards {
        match guard {
            // The row of a project is locked once only.
            Guard::ProjectActive { project_id } if part.kind != Project::KIND => projects.insert(project_id.as_str()),
            _ => return None,
        };
    }
    let records = item.idempotency.iter().collect();
    let claims = part.names.iter().any(|claim| claimed(claim).is_some());
    (!claims).then(|| Unclaimed { projects: projects.into_iter().collect(), records })
}

/// Writes an item of which nothing is known. None when it is not in, for whatever reason: nothing has changed then.
pub(super) async fn write(
    mut tx: Transaction<'static, Postgres>,
    item: &AppendItem,
    unclaimed: &Unclaimed<'_>,
) -> Result<Option<LastSeqs>, Failure> {
    let Some(last_seqs) = write::all(&mut tx, &[item], unclaimed).await? else {
        tx.rollback().await?;
        return Ok(None);
    };
    tx.commit().await.map_err(|error| Failure::InCommit(error.to_string()))?;
    Ok(Some(last_seqs))
}

/// The verdict on an item whose entity has moved on: versions only grow, so that no lock is needed to say so, and nobody waits
/// for one in order to learn it. None when it has not.
pub(super) async fn overtaken(pool: &PgPool, item: &AppendItem) -> Result<Option<Verdict>, Failure> {
    let [part] = &item.parts[..] else { return Ok(None) };
    let sql = format!("select version from {} where id = $1", part.table.name);
    let mut connection = pool.acquire().await?;
    let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).bind(&part.entity_id);
    let actual = query.fetch_optional(&mut *connection).await?.unwrap_or(0);
    if actual <= part.expected() {
        return Ok(None);
    }
    let is_in = is_in(&mut connection, item).await?;
    Ok(Some(if is_in { Ok(repeated()) } else { Err(conflict(part, actual)) }))
}
