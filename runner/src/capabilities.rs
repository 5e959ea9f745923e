//! Capabilities of this process, and of what it executes.

use rustix::{
    io::Errno,
    thread::{CapabilitySet, CapabilitySets, set_capabilities},
};

/// Limits what anything executed from now on can ever gain.
///
/// # Errors
/// A system error; `PERM` without SETPCAP, if nothing can be dropped.
pub(crate) fn bound(kept: CapabilitySet) -> rustix::io::Result<()> {
    for capability in (CapabilitySet::all() & !kept).iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // This kernel does not know it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lets executed programs keep these. Otherwise a process that is not root loses all of them on exec.
///
/// # Errors
/// A system error.
pub(crate) fn hand_on(needed: CapabilitySet) -> rustix::io::Result<()> {
    let sets = rustix::thread::capabilities(None)?;
    set_capabilities(None, CapabilitySets { inheritable: needed, ..sets })?;
    needed.iter().try_for_each(|capability| rustix::thread::configure_capability_in_ambient_set(capability, true))
}

/// Lets no executed program keep any.
///
/// # Errors
/// A system error.
pub(crate) fn keep_to_ourselves() -> rustix::io::Result<()> {
    match rustix::thread::clear_ambient_capability_set() {
        // This kernel does not know them: then there are none.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    let sets = rustix::thread::capabilities(None)?;
    set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..sets })
}
