//! `[node]`.
//!
//! Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_spanned::Spanned;

use super::address::{self, Use};
use super::draft::{At, DraftNode, Problems};
use super::{limits, name};
use crate::config::{self, Diagnostic, Document, Span};
use crate::net::IfName;

pub(super) fn read(document: &Document, problems: &mut Problems) -> DraftNode {
    let section = document.root().node.as_ref();
    let empty = config::Node::default();
    let node = section.map_or(&empty, Spanned::get_ref);
    let span = section.map_or_else(|| document.beginning(), Span::from);
    let (addresses, _) =
        address::addresses(node.addresses.as_ref(), "`addresses`", Use::Underlay, problems);
    let (mut cidrs, complete) = address::cidrs(node.cidrs.as_ref(), problems);
    let before = cidrs.len();
    cidrs.retain(|cidr| address::holds_endpoints(cidr, problems) && has_room(cidr, problems));
    let complete = complete && before == cidrs.len();
    address::one_per_family(&mut cidrs, address::family_of_cidr, "`cidrs`", problems);
    let lost = document.has_lost("node") || document.has_lost("node.cidrs");
    if cidrs.is_empty() && complete && !lost {
        let at = node.cidrs.as_ref().map_or(span, Span::from);
        let message = match section {
            Some(_) => "this node has no `cidrs`",
            None => "there is no [node] section with `cidrs`",
        };
        problems.push(Diagnostic::new(at, message).help(
            "give the network that endpoints are numbered from, different on every node: \
             cidrs = [\"10.244.0.0/24\"] below [node]",
        ));
    }
    DraftNode {
        name: node.name.as_ref().and_then(|text| name::name(text, problems)),
        addresses,
        devices: devices(node.devices.as_ref(), problems),
        routers: routers(node.routers.as_ref(), &cidrs, ("the node", complete && !lost), problems),
        cidrs,
        cidrs_complete: complete && !lost,
        span,
    }
}

fn has_room(cidr: &At<IpNet>, problems: &mut Problems) -> bool {
    let longest = match cidr.value {
        IpNet::V4(_) => limits::NODE_PREFIX_BITS_MAX_IPV4,
        IpNet::V6(_) => limits::NODE_PREFIX_BITS_MAX_IPV6,
    };
    let fits = cidr.value.prefix_len() <= longest;
    if !fits {
        let message = format!("{} has no room for an endpoint besides the router", cidr.value);
        let problem = Diagnostic::new(cidr.span, message);
        problems.push(
            problem.help(format!("give a larger network: the prefix length is at most {longest}")),
        );
    }
    fits
}

fn devices(list: Option<&Spanned<Vec<Spanned<String>>>>, problems: &mut Problems) -> Vec<IfName> {
    let written = list.map_or(&[][..], |list| list.get_ref().as_slice());
    if let Some(excess) = written.get(limits::DEVICES_MAX) {
        let problem = Diagnostic::new(excess, "too many devices");
        problems.push(
            problem.help(format!("a node has at most {} underlay devices", limits::DEVICES_MAX)),
        );
    }
    let mut read: Vec<(IfName, Span)> = Vec::new();
    for text in written.iter().take(limits::DEVICES_MAX) {
        let Some(device) = name::ifname(text, problems) else { continue };
        let ours = ["cilium_", "lxc"].iter().any(|prefix| device.as_str().starts_with(prefix));
        if ours {
            let message =
                format!("{device} is not an underlay device: ciliate makes devices of that name");
            let problem = Diagnostic::new(text, message);
            problems.push(problem.help("give the device that leads to the other nodes"));
        } else if let Some((_, earlier)) = read.iter().find(|(other, _)| *other == device) {
            let problem = Diagnostic::new(text, format!("{device} is listed twice"));
            problems
                .push(problem.related(*earlier, "the first time").help("remove one of the two"));
        } else {
            read.push((device, text.into()));
        }
    }
    read.into_iter().map(|(device, _)| device).collect()
}

/// The router of each family: as written, or the first usable address of a CIDR. `whose` CIDRs they
/// are stands in messages.
pub(super) fn routers(
    list: Option<&Spanned<Vec<Spanned<String>>>>,
    cidrs: &[At<IpNet>],
    (whose, cidrs_complete): (&str, bool),
    problems: &mut Problems,
) -> Vec<At<IpAddr>> {
    let (mut routers, complete) = address::addresses(list, "`routers`", Use::Endpoint, problems);
    routers.retain(|router| match misplaced(router, cidrs, (whose, cidrs_complete)) {
        Ok(fits) => fits,
        Err(problem) => {
            problems.push(*problem);
            false
        }
    });
    if complete {
        for cidr in cidrs {
            let family = address::family_of_cidr(&cidr.value);
            let router = first(cidr.value);
            if unusable(cidr.value, router).is_none()
                && cidr.value.contains(&router)
                && routers.iter().all(|router| address::family(&router.value) != family)
            {
                routers.push(At { value: router, span: cidr.span });
            }
        }
    }
    // In the order of `cidrs`, whether written or derived.
    let place =
        |router: &At<IpAddr>| cidrs.iter().position(|cidr| cidr.value.contains(&router.value));
    routers.sort_by_cached_key(place);
    routers
}

/// Whether a router can have its address; false where a CIDR that can't be judged may hold it.
fn misplaced(
    router: &At<IpAddr>,
    cidrs: &[At<IpNet>],
    (whose, cidrs_complete): (&str, bool),
) -> Result<bool, Box<Diagnostic>> {
    let value = router.value;
    let family = address::family(&value);
    let of_family = |cidr: &&At<IpNet>| address::family_of_cidr(&cidr.value) == family;
    let holder = cidrs.iter().find(|cidr| cidr.value.contains(&value));
    let problem = match holder.or_else(|| cidrs.iter().find(of_family)) {
        None if cidrs_complete => {
            Diagnostic::new(router.span, format!("router {value} has no CIDR"))
                .label(format!("{whose} has no {family} entry in `cidrs`"))
                .help(format!("add an {family} CIDR to `cidrs`, or remove this router"))
        }
        Some(own) if !own.value.contains(&value) => {
            let message = format!("router {value} is outside {}", own.value);
            Diagnostic::new(router.span, message).related(own.span, format!("{whose}'s CIDR")).help(
                format!("choose an address in it, or leave `routers` out for {}", first(own.value)),
            )
        }
        Some(own) => match unusable(own.value, value) {
            None => return Ok(true),
            Some(why) => {
                let message = format!("router {value} is the {why} address of {}", own.value);
                Diagnostic::new(router.span, message)
                    .related(own.span, format!("{whose}'s CIDR"))
                    .help(format!(
                        "choose another, or leave `routers` out for {}",
                        first(own.value)
                    ))
            }
        },
        None => return Ok(false),
    };
    Err(Box::new(problem))
}

/// The first usable address of a CIDR: the one after the network's own.
fn first(cidr: IpNet) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(network) => IpAddr::V4(u32::from(network).saturating_add(1).into()),
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).saturating_add(1).into()),
    }
}

/// Why an address of a CIDR can't be a host's. With IPv6 the first is the subnet-router anycast address
/// (RFC 4291, section 2.6.1); there is no broadcast.
pub(super) fn unusable(cidr: IpNet, address: IpAddr) -> Option<&'static str> {
    match cidr {
        _ if address == cidr.network() => Some("network"),
        IpNet::V4(v4) if address == IpAddr::V4(v4.broadcast()) => Some("broadcast"),
        _ => None,
    }
}
