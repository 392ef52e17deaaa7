//! Addresses in the kernel: listing and changing. The only file of this kind that may import
//! `kernel`.

use std::collections::BTreeMap;
use std::net::IpAddr;

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

/// Flags that ours don't have, as iproute2 calls them. One that duplicate address detection failed for is no
/// address.
const NOT_OURS: [(AddressFlags, &str); 5] = [
    (AddressFlags::Noprefixroute, "noprefixroute"),
    (AddressFlags::Homeaddress, "home"),
    (AddressFlags::Managetempaddr, "mngtmpaddr"),
    (AddressFlags::Mcautojoin, "autojoin"),
    (AddressFlags::Dadfailed, "dadfailed"),
];

impl Observe for Address {
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<BTreeMap<Key, Seen>, KernelError> {
        let mut seen = BTreeMap::new();
        for netns in namespaces(desired) {
            let links = round.links(&netns)?;
            let ends = round.ends(&netns, desired)?;
            let on_ours = |ifname| links.iter().any(|link| link.ifname == ifname && link.owned());
            for (ifname, address, Found { seen: mut found, .. }) in addresses(round, &netns)? {
                let key = Key { netns: netns.clone(), ifname, address };
                found.owned &= ends.as_ref().is_none_or(|ends| ends.contains(&ifname));
                // Who alters one of ours takes the mark away with it.
                if found.is_altered() && desired.addresses.contains_key(&key) && on_ours(ifname) {
                    found.owned = true;
                }
                if found.owned || desired.addresses.contains_key(&key) {
                    let best = seen.entry(key).or_insert_with(|| found.clone());
                    // With another far end it is there twice.
                    if best.is_altered() {
                        *best = found;
                    }
                }
            }
        }
        Ok(seen)
    }
}

/// An address as the kernel has it.
#[derive(Debug, Clone)]
pub struct Found {
    pub seen: Seen,
    /// The far end's address, which is its own where there is no such end.
    far_end: IpAddr,
}

impl Seen {
    fn is_altered(&self) -> bool {
        self.expires || !self.altered.is_empty()
    }
}

/// All addresses of a namespace: device, address with prefix length, and what is said of it.
///
/// # Errors
/// The dump fails.
pub fn addresses(
    round: &mut Round<'_>,
    netns: &Netns,
) -> Result<Vec<(IfName, IpNet, Found)>, KernelError> {
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
) -> Option<(IfName, IpNet, Found)> {
    let (mut local, mut address) = (None, None);
    let mut seen = Seen { owned: false, expires: false, altered: String::new() };
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
    let (own, far_end) = (local.or(address)?, address.or(local)?);
    seen.altered = altered(message, (far_end != own).then_some(far_end));
    let net = IpNet::new(own, message.header.prefix_len).ok()?;
    Some((*names.get(&message.header.index)?, net, Found { seen, far_end }))
}

/// [`Seen::altered`]. Labels are but names.
fn altered(message: &AddressMessage, far_end: Option<IpAddr>) -> String {
    let mut words: Vec<String> =
        far_end.map(|far_end| format!("peer {far_end}")).into_iter().collect();
    // Of IPv6, the address itself says the scope.
    if message.header.family == AddressFamily::Inet
        && message.header.scope != AddressScope::Universe
    {
        words.push(match message.header.scope {
            AddressScope::Link => "scope link".into(),
            AddressScope::Host => "scope host".into(),
            scope => format!("scope {}", u8::from(scope)),
        });
    }
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Broadcast(address) => words.push(format!("broadcast {address}")),
            AddressAttribute::RoutePriority(metric) => words.push(format!("metric {metric}")),
            AddressAttribute::Flags(flags) => {
                let named = NOT_OURS.iter().filter(|(flag, _)| flags.contains(*flag));
                words.extend(named.map(|(_, name)| (*name).to_string()));
            }
            _ => {}
        }
    }
    words.join(" ")
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
                    .and_then(|(names, there)| requests_of(changes[index], names, there))
                {
                    Ok(several) => {
                        order.extend(several.iter().map(|_| index));
                        requests.extend(several);
                    }
                    Err(error) => results[index] = Err(error),
                }
            }
            let outcomes = crate::apply::send(kernel, netns, "change an address", requests);
            for (index, outcome) in order.into_iter().zip(outcomes) {
                results[index] = results[index].clone().and(outcome);
            }
        }
        results
    }
}

/// What one address op expects to find, read again: interface indexes, and the addresses that are
/// there.
type Listed = (BTreeMap<IfName, u32>, BTreeMap<(IfName, IpNet), Found>);

fn listed(kernel: &mut Kernel, netns: &Netns) -> Result<Listed, ExecError> {
    let mut round = Round::new(kernel);
    let names = round.names(netns).map_err(ExecError::from)?;
    let there = addresses(&mut round, netns).map_err(ExecError::from)?;
    Ok((names.into_iter().map(|(index, name)| (name, index)).collect(), by_key(there)))
}

/// The one that is as ours, where there are two with different far ends.
fn by_key(there: Vec<(IfName, IpNet, Found)>) -> BTreeMap<(IfName, IpNet), Found> {
    let mut found = BTreeMap::new();
    for (ifname, address, one) in there {
        let best = found.entry((ifname, address)).or_insert_with(|| one.clone());
        if best.seen.is_altered() {
            *best = one;
        }
    }
    found
}

/// The messages for a change, in order; none if it is done already.
fn requests_of(
    change: &Change<Address>,
    names: &BTreeMap<IfName, u32>,
    there: &BTreeMap<(IfName, IpNet), Found>,
) -> Result<Vec<Request>, ExecError> {
    let Key { ifname, address, .. } = &change.key;
    let found = there.get(&(*ifname, *address));
    let removal = matches!(change.action, Action::Delete { .. });
    let Some(ifindex) = names.get(ifname) else {
        return if removal {
            Ok(Vec::new())
        } else {
            Err(ExecError::refused(ifname.to_string(), "no such device"))
        };
    };
    let ours = message(*address, *ifindex);
    // On a removal the bit of EXCL would mean NLM_F_BULK.
    let remove = |found: &Found| {
        let message = with_far_end(ours.clone(), found.far_end);
        (RouteNetlinkMessage::DelAddress(message), 0)
    };
    let add = |flags| (RouteNetlinkMessage::NewAddress(ours.clone()), flags);
    let create = add(NLM_F_CREATE | NLM_F_EXCL);
    Ok(match (&change.action, found) {
        (Action::Delete { .. }, None) => Vec::new(),
        (Action::Delete { .. }, Some(found)) if !found.seen.owned => {
            return Err(ExecError::refused("an address of ours", "a foreign one"));
        }
        (Action::Delete { .. }, Some(found)) => vec![remove(found)],
        (_, None) => vec![create],
        (Action::Replace { .. }, Some(found)) if !found.seen.altered.is_empty() => {
            vec![remove(found), create]
        }
        // Gives it the lifetimes of the message, which has none, so it stays for ever.
        (Action::Update { .. }, Some(found)) if found.seen.expires => vec![add(NLM_F_REPLACE)],
        (_, Some(_)) => Vec::new(),
    })
}

fn with_far_end(mut message: AddressMessage, far_end: IpAddr) -> AddressMessage {
    for attribute in &mut message.attributes {
        if let AddressAttribute::Address(address) = attribute {
            *address = far_end;
        }
    }
    message
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
