//! The snapshot store: packs of what sessions' repositories were at the end of their turns, in a folder of the server or in an
//! S3-compatible store, so that nobody needs a workspace to look at them.
//!
//! A pack's key is made of ids and of what it holds, so writing it again is harmless:
//! * `{project}/bases/{commit}.pack`: the files of a commit that was cloned, shared by the project's sessions;
//! * `{project}/sessions/{session}/{sha256}.pack`: what a turn added.
//!
//! What is stored is hostile: [`Reader`] lets git look at it only in a folder that is thrown away, confined, for a bounded time.
//!
//! Which module may use which: a module uses those on the lines above its own, and nothing else (`tests/tests/module_order.rs` reads this list).
//!
//! * `error`, `scratch`: what can go wrong; folders for what is on its way
//! * `key`: names of packs
//! * `transport`: HTTP to an S3-compatible store
//! * `place`: where the store is
//! * `store`: packs in it
//! * `reader`: what they hold

mod error;
mod key;
mod place;
mod reader;
mod scratch;
mod store;
mod transport;

pub use error::StoreError;
pub use key::{Key, is_commit, is_pack};
pub use place::{Place, S3};
pub use reader::{Found, ReadError, Reader, ReaderOptions, Stored};
pub use store::{Incoming, Limits, SessionPacks, SnapshotStore};
