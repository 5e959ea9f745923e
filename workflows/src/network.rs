//! What a session's agent may reach of the network, from what people say to what runners are told.

use ambient_domain::network::{Network, NetworkMode};
use ambient_wire::network as wire;

/// In the form of the API and of runners.
#[must_use]
pub fn network(said: &Network) -> wire::Network {
    let mode = match said.mode {
        NetworkMode::Open => wire::NetworkMode::Open,
        NetworkMode::None => wire::NetworkMode::None,
        NetworkMode::AllowList => wire::NetworkMode::AllowList,
    };
    wire::Network { mode, allow: said.allow.clone() }
}
