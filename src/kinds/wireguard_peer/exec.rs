//! WireGuard peers in the kernel: listing and changing. The only file of this kind that may import `kernel`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Key, Seen, Spec, WireguardPeer};
use crate::apply::{Apply, ExecError};
use crate::kernel::wireguard::{self, Device, Peer, PeerChange, PeerTo};
use crate::kernel::{Kernel, KernelError};
use crate::kinds::wireguard::exec::ifindex;
use crate::kinds::{Change, Desired};
use crate::observe::{Observe, Round};

impl Observe for WireguardPeer {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut seen = BTreeMap::new();
        for (ifname, device) in round.wireguard()?.iter() {
            for (public_key, peer) in &device.peers {
                let key = Key { ifname: *ifname, public_key: *public_key };
                let wanted = desired.wireguard_peers.get(&key).map(|wanted| &wanted.spec);
                seen.insert(key, as_seen(peer, wanted));
            }
        }
        Ok(seen)
    }
}

fn as_seen(peer: &Peer, wanted: Option<&Spec>) -> Seen {
    let endpoint = match (peer.endpoint, wanted) {
        (Some(found), Some(spec))
            if found.port() == spec.endpoint.port() && spec.addresses.contains(&found.ip()) =>
        {
            Some(spec.endpoint)
        }
        (found, _) => found,
    };
    Seen {
        endpoint,
        keepalive_s: peer.keepalive_s,
        allowed_ips: peer.allowed_ips.clone(),
        preshared: peer.preshared,
    }
}

impl Apply for WireguardPeer {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let mut results = Vec::with_capacity(changes.len());
        for batch in changes.chunk_by(|a, b| a.key.ifname == b.key.ifname) {
            match of_device(kernel, batch) {
                Ok(outcomes) => results.extend(outcomes),
                Err(error) => results.extend(batch.iter().map(|_| Err(error.clone()))),
            }
        }
        results
    }
}

/// Changes peers of one device by what it has at this moment: what is as asked is not written.
fn of_device(
    kernel: &mut Kernel,
    batch: &[&Change<WireguardPeer>],
) -> Result<Vec<Result<(), ExecError>>, ExecError> {
    let ifindex = match ifindex(kernel, &batch[0].key.ifname) {
        // Gone with its peers.
        Err(_) if batch.iter().all(|change| change.spec().is_none()) => {
            return Ok(batch.iter().map(|_| Ok(())).collect());
        }
        other => other?,
    };
    let device = wireguard::device(kernel, ifindex)?.unwrap_or_default();
    let changes: Vec<PeerChange> = batch
        .iter()
        .map(|change| PeerChange {
            key: change.key.public_key,
            to: change.spec().map_or(PeerTo::Gone, |spec| difference(&device, change.key, spec)),
        })
        .collect();
    let outcomes = wireguard::change_peers(kernel, ifindex, &changes)?;
    let mut results: Vec<_> =
        outcomes.into_iter().map(|outcome| outcome.map_err(ExecError::from)).collect();
    // What one peer is to lose another may have been given just now.
    let (mut surplus, mut losers) = (BTreeSet::new(), Vec::new());
    let given: BTreeSet<IpNet> = batch
        .iter()
        .filter_map(|change| change.spec())
        .flat_map(|spec| spec.allowed_ips.iter().copied())
        .collect();
    for (index, change) in batch.iter().enumerate() {
        let (Some(spec), Some(peer)) = (change.spec(), device.peers.get(&change.key.public_key))
        else {
            continue;
        };
        let before = surplus.len();
        let not_asked = peer.allowed_ips.difference(&spec.allowed_ips);
        surplus.extend(not_asked.filter(|net| !given.contains(net)).copied());
        losers.extend((surplus.len() > before).then_some(index));
    }
    if !surplus.is_empty()
        && let Err(error) = wireguard::disallow(kernel, ifindex, &surplus)
    {
        let error = ExecError::from(error);
        losers.into_iter().for_each(|index| results[index] = Err(error.clone()));
    }
    Ok(results)
}

/// What a peer lacks of what is asked for.
fn difference(device: &Device, key: Key, spec: &Spec) -> PeerTo {
    let none = Peer::default();
    let there = device.peers.get(&key.public_key).unwrap_or(&none);
    let seen = as_seen(there, Some(spec));
    PeerTo::Be {
        endpoint: (seen.endpoint != Some(spec.endpoint)).then_some(spec.endpoint),
        keepalive_s: (seen.keepalive_s != spec.keepalive_s).then_some(spec.keepalive_s),
        unshare: seen.preshared,
        allow: spec.allowed_ips.difference(&seen.allowed_ips).copied().collect(),
    }
}
