//! Addresses in the kernel: listing and changing. The only file of this kind that may import
//! `kernel`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Address, Key, Seen};
use crate::apply::{Apply, ExecError};
use crate::kernel::netlink::Request;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{Action, Change, Desired, owner};
use crate::net::{IfName, Netns};
use crate::observe::{Observe, Round, namespaces};

/// `INFINITY_LIFE_TIME` (net/addrconf.h).
const FOR_EVER: u32 = u32::MAX;

impl Observe for Address {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut seen = BTreeMap::new();
        for netns in namespaces(desired) {
            let links = round.links(&netns)?;
            let on_ours = |ifname| links.iter().any(|link| link.ifname == ifname && link.owned());
            for (ifname, address, mut found) in addresses(round, &netns)? {
                let key = Key { netns: netns.clone(), ifname, address };
                // Who gives one of ours an end takes the mark away with it.
                if found.expires && desired.addresses.contains_key(&key) && on_ours(ifname) {
                    found.owned = true;
                }
                if found.owned || desired.addresses.contains_key(&key) {
                    seen.insert(key, found);
                }
            }
        }
        Ok(seen)
    }
}

/// All addresses of a namespace: device, address with prefix length, and what is said of it.
///
/// # Errors
/// The dump fails.
pub fn addresses(
    round: &mut Round<'_>,
    netns: &Netns,
) -> Result<Vec<(IfName, IpNet, Seen)>, KernelError> {
    let names = round.names(netns)?;
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let messages = round.dump(netns, "list addresses", &request)?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => decode(message, &names),
            _ => None,
        })
        .collect())
}

fn decode(
    message: &AddressMessage,
    names: &BTreeMap<u32, IfName>,
) -> Option<(IfName, IpNet, Seen)> {
    let (mut local, mut address) = (None, None);
    let mut seen = Seen { owned: false, expires: false };
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Protocol(protocol) => {
                seen.owned = u8::from(*protocol) == owner::PROTOCOL;
            }
            AddressAttribute::CacheInfo(info) => {
                seen.expires = [info.ifa_valid, info.ifa_preferred].iter().any(|t| *t != FOR_EVER);
            }
            _ => {}
        }
    }
    // On a point-to-point device `Address` is the far end.
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some((*names.get(&message.header.index)?, address, seen))
}

impl Apply for Address {
    fn exec(kernel: &mut Kernel, changes: &[&Change<Self>]) -> Vec<Result<(), ExecError>> {
        let mut results: Vec<Result<(), ExecError>> = changes.iter().map(|_| Ok(())).collect();
        for (netns, indexes) in crate::apply::by_netns(changes, |key| &key.netns) {
            let listed = listed(kernel, netns);
            let (mut requests, mut order) = (Vec::new(), Vec::new());
            for index in indexes {
                match listed
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|(names, there)| request(changes[index], names, there))
                {
                    Ok(None) => {}
                    Ok(Some(request)) => {
                        requests.push(request);
                        order.push(index);
                    }
                    Err(error) => results[index] = Err(error),
                }
            }
            let outcomes = crate::apply::send(kernel, netns, "change an address", requests);
            for (index, outcome) in order.into_iter().zip(outcomes) {
                results[index] = outcome;
            }
        }
        results
    }
}

/// What one address op expects to find, read again: interface indexes, and the addresses that are
/// there.
type Listed = (BTreeMap<IfName, u32>, BTreeMap<(IfName, IpNet), Seen>);

fn listed(kernel: &mut Kernel, netns: &Netns) -> Result<Listed, ExecError> {
    let mut round = Round::new(kernel);
    let names = round.names(netns).map_err(ExecError::from)?;
    let there = addresses(&mut round, netns).map_err(ExecError::from)?;
    Ok((
        names.into_iter().map(|(index, name)| (name, index)).collect(),
        there.into_iter().map(|(ifname, address, seen)| ((ifname, address), seen)).collect(),
    ))
}

/// The message for a change, or nothing if it is done already.
fn request(
    change: &Change<Address>,
    names: &BTreeMap<IfName, u32>,
    there: &BTreeMap<(IfName, IpNet), Seen>,
) -> Result<Option<Request>, ExecError> {
    let Key { ifname, address, .. } = &change.key;
    let found = there.get(&(*ifname, *address));
    let removal = matches!(change.action, Action::Delete { .. });
    let Some(ifindex) = names.get(ifname) else {
        return if removal {
            Ok(None)
        } else {
            Err(ExecError::refused(ifname.to_string(), "no such device"))
        };
    };
    let message = message(*address, *ifindex);
    match (removal, found) {
        (true, None) => Ok(None),
        (false, Some(seen)) if change.expects().is_none() || !seen.expires => Ok(None),
        // Gives it the lifetimes of the message, which has none, so it stays for ever.
        (false, Some(_)) => Ok(Some((RouteNetlinkMessage::NewAddress(message), NLM_F_REPLACE))),
        (true, Some(seen)) if !seen.owned => {
            Err(ExecError::refused("an address of ours", "a foreign one"))
        }
        // On a removal the bit of EXCL would mean NLM_F_BULK.
        (true, Some(_)) => Ok(Some((RouteNetlinkMessage::DelAddress(message), 0))),
        (false, None) => {
            Ok(Some((RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)))
        }
    }
}

fn message(address: IpNet, ifindex: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
        AddressAttribute::Protocol(AddressProtocol::from(owner::PROTOCOL)),
    ];
    if address.addr().is_ipv6() {
        // Nobody else can have the address: no need to wait for duplicate address detection.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}
