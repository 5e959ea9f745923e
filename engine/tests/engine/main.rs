//! The engine under the unmodified SDK: client, worker and replayer, on a real Postgres.
#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::panic, clippy::large_futures, reason = "a test")]

mod basics;
mod cli;
mod connections;
mod eager;
mod flows;
mod harness;
mod integrity;
mod killed;
mod lifecycle;
mod listing;
mod protocol;
mod recovery;
mod replay;
mod reset;
mod served;
mod updates;
mod visibility;
