//! Transactions whose `begin` always completes.

use sqlx::{PgPool, Postgres, Transaction};

/// Begins a transaction with `statement`, which starts with `begin`.
///
/// In its own task, because sqlx 0.9.0 (its issue 4393) returns a connection with an open transaction to the pool if
/// the caller goes away before `begin` is answered. Whoever got it next would work, and lock, inside a transaction that nobody
/// commits. So `begin` always completes; a transaction that nobody takes any more is rolled back.
#[allow(clippy::disallowed_methods, reason = "it comes to its end")]
pub(crate) async fn begin(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await });
    begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}
