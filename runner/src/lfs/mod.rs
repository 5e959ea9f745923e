//! Git LFS without git: pointers, content stored by hash, and the program that fetches and serves it.
//!
//! The program is this one again, run in place of a command with the rights that git would have ([`crate::confine`]): it gets
//! its task on standard input, and knows nothing about the session. What to ask for is up to `git/large_files`.

mod batch;
mod https;
pub(crate) mod pointer;
pub(crate) mod program;
pub(crate) mod store;
