//! What every listener needs against peers that hold connections without making progress: slots, counted in total and per address, and a
//! socket that keeps its slot as long as it is open and disconnects a peer that reads nothing.

mod places;
mod socket;

pub use places::{Bounds, Place, Places};
pub use socket::Socket;
