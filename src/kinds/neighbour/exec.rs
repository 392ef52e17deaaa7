//! Neighbour entries in the kernel: listing and changing. The only file of this kind that may import
//! `kernel`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Key, Neighbour, Seen};
use crate::apply::{Apply, ExecError};
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{Action, Change, Desired, owner};
use crate::net::{IfName, Mac, Netns};
use crate::observe::{Observe, Round};

impl Observe for Neighbour {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let names = round.names(&Netns::HOST)?;
        let mut seen = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetNeighbour(request);
            for message in round.dump(&Netns::HOST, "list neighbours", &request)? {
                let RouteNetlinkMessage::NewNeighbour(message) = message else { continue };
                let Some((key, found)) = decode(&message, &names) else { continue };
                // What the kernel resolved by itself is no obstacle: it is replaced.
                if found.owned || (found.permanent && desired.neighbours.contains_key(&key)) {
                    seen.insert(key, found);
                }
            }
        }
        Ok(seen)
    }
}

fn decode(message: &NeighbourMessage, names: &BTreeMap<u32, IfName>) -> Option<(Key, Seen)> {
    let (mut address, mut mac, mut owned) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::from(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::from(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            NeighbourAttribute::Protocol(protocol) => {
                owned = u8::from(*protocol) == owner::PROTOCOL;
            }
            _ => {}
        }
    }
    let key = Key { ifname: *names.get(&message.header.ifindex)?, address: address? };
    let permanent = message.header.state == NeighbourState::Permanent;
    Some((key, Seen { owned, mac, permanent }))
}

impl Apply for Neighbour {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let mut round = Round::new(kernel);
        let names = match round.names(&Netns::HOST) {
            Ok(names) => names,
            Err(error) => return vec![Err(ExecError::from(error)); changes.len()],
        };
        let indexes: BTreeMap<IfName, u32> = names.into_iter().map(|(i, name)| (name, i)).collect();
        let requests = changes.iter().map(|change| {
            // Index 0 is answered with an error, which says that the device is gone.
            let message = message(change, indexes.get(&change.key.ifname).copied().unwrap_or(0));
            match change.action {
                Action::Delete { .. } => (RouteNetlinkMessage::DelNeighbour(message), 0),
                // The kernel may have resolved the address: its entry becomes ours.
                _ => (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE),
            }
        });
        let outcomes =
            crate::apply::send(kernel, &Netns::HOST, "change a neighbour", requests.collect());
        changes
            .iter()
            .zip(outcomes)
            .map(|(change, outcome)| match (&change.action, outcome) {
                (Action::Delete { .. }, Err(e)) if gone(e.errno()) => Ok(()),
                (_, outcome) => outcome,
            })
            .collect()
    }
}

fn gone(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::ENOENT | libc::EINVAL | libc::ENODEV))
}

fn message(change: &Change<Neighbour>, ifindex: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::Permanent;
    let (family, address) = match change.key.address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.attributes = vec![
        NeighbourAttribute::Destination(address),
        NeighbourAttribute::Protocol(RouteProtocol::from(owner::PROTOCOL)),
    ];
    if let Some(spec) = change.spec() {
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(spec.mac.0.to_vec()));
    }
    message
}
