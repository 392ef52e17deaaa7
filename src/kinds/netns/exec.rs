//! Namespaces of ours on the machine: listing and changing. The only file of this kind that may import
//! `kernel`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Netns, Seen, State};
use crate::apply::{Apply, ExecError};
use crate::kernel::namespace::{self, Place};
use crate::kernel::{Kernel, KernelError, netns};
use crate::kinds::{Action, Change, Desired};
use crate::net;
use crate::observe::{Observe, Round};

impl Observe for Netns {
    fn list(
        round: &mut Round<'_>,
        desired: &Desired,
    ) -> Result<BTreeMap<net::Netns, Seen>, KernelError> {
        let folder = round.kernel.namespaces();
        let failed = |source| KernelError::File { operation: "list", path: folder.clone(), source };
        let mut seen = BTreeMap::new();
        for (path, place) in namespace::list(&folder).map_err(failed)? {
            let Some(path) = path.to_str() else { continue };
            let (key, state) = (net::Netns::at(path), state(&place)?);
            if state != State::Foreign || desired.namespaces.contains_key(&key) {
                seen.insert(key, Seen { state });
            }
        }
        Ok(seen)
    }
}

fn state(place: &Place) -> Result<State, KernelError> {
    Ok(match place {
        Place::Network(identity) if is_nodes(identity)? => State::Node,
        Place::Network(_) => State::Apart,
        Place::OtherNamespace => State::OtherKind,
        Place::Empty => State::Empty,
        Place::Foreign(_) => State::Foreign,
    })
}

/// Whether a namespace is the node's own, or that of process 1, which is as bad.
fn is_nodes(identity: &netns::Identity) -> Result<bool, KernelError> {
    let own = netns::own_identity();
    let own = own.map_err(|source| KernelError::Netns { netns: net::Netns::HOST, source })?;
    let machines = netns::open("/proc/1/ns/net").and_then(|file| netns::identity(&file));
    Ok(*identity == own || machines.is_ok_and(|machines| *identity == machines))
}

impl Apply for Netns {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        changes.iter().map(|change| exec(kernel, change)).collect()
    }
}

fn exec(kernel: &mut Kernel, change: &Change<Netns>) -> Result<(), ExecError> {
    let path = Path::new(change.key.path().unwrap_or_default());
    let failed = |operation: &'static str| {
        let path = path.to_path_buf();
        move |source: io::Error| KernelError::File { operation, path, source }
    };
    let place = namespace::look(path).map_err(failed("look at"))?;
    let found = place.as_ref().map(state).transpose()?;
    if change.spec().is_some() && found == Some(State::Apart) {
        return Ok(());
    }
    match (found, change.expects()) {
        (Some(found), Some(seen)) if found == seen.state => {}
        (Some(found), None) => return Err(ExecError::refused("nothing", found.to_string())),
        (Some(found), Some(seen)) => {
            return Err(ExecError::refused(seen.state.to_string(), found.to_string()));
        }
        // Making it in an empty place is right in any case, and so is nothing to remove.
        (None, _) => {}
    }
    kernel.writes += 1;
    kernel.forget(&change.key);
    if !matches!(change.action, Action::Create { .. }) {
        namespace::remove(path).map_err(failed("remove the network namespace"))?;
    }
    if change.spec().is_some() {
        namespace::make(path).map_err(failed("make the network namespace"))?;
    }
    Ok(())
}
