//! `[node]`.
//!
//! Pure.

use ipnet::IpNet;
use serde_spanned::Spanned;

use super::address::{self, Use};
use super::draft::{At, DraftNode, Problems};
use super::reserved::{self, Cidrs, Reserved};
use super::{limits, name};
use crate::config::{self, Diagnostic, Document, Span};
use crate::net::IfName;

/// Reads the section; with `health` the health endpoint has addresses where none are given.
pub(super) fn read(document: &Document, health: bool, problems: &mut Problems) -> DraftNode {
    let section = document.root().node.as_ref();
    let empty = config::Node::default();
    let node = section.map_or(&empty, Spanned::get_ref);
    let span = section.map_or_else(|| document.beginning(), Span::from);
    let (addresses, addresses_complete) =
        address::addresses(node.addresses.as_ref(), "`addresses`", Use::Underlay, problems);
    let (mut cidrs, complete) = address::cidrs(node.cidrs.as_ref(), problems);
    let before = cidrs.len();
    cidrs.retain(|cidr| address::holds_endpoints(cidr, problems) && has_room(cidr, problems));
    let complete = complete && before == cidrs.len();
    address::one_per_family(&mut cidrs, address::family_of_cidr, "`cidrs`", problems);
    let section_lost = document.has_lost("node");
    let lost = section_lost || document.has_lost("node.cidrs");
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
    let set_aside = Cidrs { list: &cidrs, complete: complete && !lost, whose: "the node" };
    let read = |what: Reserved, written, derive, problems: &mut Problems| {
        let lost = section_lost || document.has_lost(&format!("node.{}", what.key()));
        reserved::read(what, written, set_aside, derive && !lost, problems)
    };
    DraftNode {
        name: node.name.as_ref().and_then(|text| name::name(text, problems)),
        addresses,
        addresses_complete: addresses_complete
            && !section_lost
            && !document.has_lost("node.addresses"),
        devices: devices(node.devices.as_ref(), problems),
        routers: read(Reserved::Router, node.routers.as_ref(), true, problems),
        health: read(Reserved::Health, node.health_addresses.as_ref(), health, problems),
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
