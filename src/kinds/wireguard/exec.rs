//! WireGuard devices in the kernel: what they are, and changing it. The only file of this kind that may import
//! `kernel`.

use std::collections::BTreeMap;
use std::path::Path;

use super::{PrivateKey, Seen, Spec, Wireguard};
use crate::apply::{Apply, ExecError};
use crate::kernel::wireguard::{self, Device, DeviceChange};
use crate::kernel::{Kernel, KernelError, private_key};
use crate::kinds::link::KIND_WIREGUARD;
use crate::kinds::{Change, Desired, Kind};
use crate::net::{IfName, Netns};
use crate::observe::{Observe, Round};

impl Observe for Wireguard {
    fn list(
        round: &mut Round<'_>,
        desired: &Desired,
    ) -> Result<BTreeMap<IfName, Seen>, KernelError> {
        let mut seen = BTreeMap::new();
        for (ifname, device) in round.wireguard()?.iter() {
            let wanted = desired.wireguards.get(ifname).map(|wanted| &wanted.spec);
            seen.insert(*ifname, as_seen(device, wanted));
        }
        Ok(seen)
    }
}

fn as_seen(device: &Device, wanted: Option<&Spec>) -> Seen {
    // What is wrong with the file is said where it is asked for.
    let read = |spec: &Spec| private_key::read(Path::new(&*spec.key_file)).ok().flatten();
    let of_file = wanted.and_then(read).map(|key| key.public());
    let private_key = match device.public_key {
        None => PrivateKey::Missing,
        key if key == of_file => PrivateKey::OfFile,
        Some(_) => PrivateKey::Another,
    };
    Seen { private_key, port: device.port, fwmark: device.fwmark }
}

/// The ifindex of a device of ours.
///
/// # Errors
/// There is none of that name, or it is somebody else's.
pub(in crate::kinds) fn ifindex(kernel: &mut Kernel, ifname: &IfName) -> Result<u32, ExecError> {
    let mut round = Round::new(kernel);
    let links = round.links(&Netns::HOST)?;
    let link = links.iter().find(|link| link.ifname == *ifname);
    match link {
        Some(link) if link.owned() && link.kind == KIND_WIREGUARD => Ok(link.ifindex),
        Some(_) => Err(ExecError::refused(format!("our link {ifname}"), "somebody else's")),
        None => Err(ExecError::refused(format!("our link {ifname}"), "no such link")),
    }
}

impl Apply for Wireguard {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        changes.iter().map(|change| one(kernel, change)).collect()
    }
}

/// Writes what differs: whoever is given a private key, even the same one, begins all sessions anew.
fn one(kernel: &mut Kernel, change: &Change<Wireguard>) -> Result<(), ExecError> {
    let Some(spec) = change.spec() else { return Ok(()) };
    let ifindex = ifindex(kernel, &change.key)?;
    let path = Path::new(&*spec.key_file);
    let key = private_key::read(path)?
        .ok_or_else(|| ExecError::refused(format!("a private key in {}", spec.key_file), "none"))?;
    let wanted = Wireguard::realise(&change.key, spec);
    let device = wireguard::device(kernel, ifindex)?.unwrap_or_default();
    let has_key = device.public_key == Some(key.public());
    let change = DeviceChange {
        private_key: (!has_key).then_some(&key),
        port: (device.port != wanted.port).then_some(wanted.port),
        fwmark: (device.fwmark != wanted.fwmark).then_some(wanted.fwmark),
    };
    wireguard::change(kernel, ifindex, &change).map_err(|error| explained(error.into(), spec))
}

/// The error, and what it may mean.
fn explained(error: ExecError, spec: &Spec) -> ExecError {
    if error.errno() != Some(libc::EADDRINUSE) {
        return error;
    }
    let port = spec.port;
    let error = format!(
        "{error}: UDP port {port} is in use on this host; end what has it (`ss -lunp`), or set port of \
         [encryption] on every node"
    );
    ExecError::Failed { error, errno: Some(libc::EADDRINUSE) }
}
