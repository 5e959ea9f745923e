//! Transactions that are begun to the end.

use sqlx::{PgPool, Postgres, Transaction};

/// Begins a transaction with `statement`, which begins with `begin`.
///
/// In a task of its own, because sqlx 0.9.0 (its issue 4393) puts a connection back into the pool with an open transaction when
/// the caller goes away before `begin` is answered. Whoever got it next would work, and lock, in a transaction that nobody
/// commits. So `begin` always comes to its end; a transaction that nobody takes any more is rolled back.
#[allow(clippy::disallowed_methods, reason = "it comes to its end")]
pub(crate) async fn begin(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await });
    begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}
