//! Git LFS without git: pointers, content kept by its hash, and the program that fetches and gives it.
//!
//! The program is this one again, run in the place of a command with the rights that git would have ([`crate::confine`]): it is told
//! what to do on standard input, and knows nothing of the session. What it is asked for is the matter of `git/large_files`.

mod batch;
mod https;
pub(crate) mod pointer;
pub(crate) mod program;
pub(crate) mod store;
