//! What every listener needs against peers that take without giving: places, counted in all and per address, and a socket that
//! keeps its place for as long as it lives and has no patience with a peer that takes nothing.

mod places;
mod socket;

pub use places::{Bounds, Place, Places};
pub use socket::Socket;
