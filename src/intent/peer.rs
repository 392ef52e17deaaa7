//! `[[peer]]`.
//!
//! Pure.

use serde_spanned::Spanned;

use super::address::{self, Use, shown};
use super::draft::{DraftPeer, Problems};
use super::{limits, name};
use crate::config::{self, Diagnostic};
use crate::net::Mac;

pub(super) fn read(peers: &[Spanned<config::Peer>], problems: &mut Problems) -> Vec<DraftPeer> {
    if let Some(excess) = peers.get(limits::PEERS_MAX) {
        let problem = Diagnostic::new(excess, "this is the first peer too many");
        problems.push(problem.help(format!("a node has at most {} peers", limits::PEERS_MAX)));
    }
    let within = peers.iter().take(limits::PEERS_MAX);
    let read: Vec<_> = within.filter_map(|peer| one(peer, problems)).collect();
    let mut cidrs = read.iter().flat_map(|peer| &peer.cidrs);
    if let Some(excess) = cidrs.nth(limits::CIDRS_MAX) {
        let problem = Diagnostic::new(excess.span, "this is the first CIDR too many");
        problems.push(
            problem.help(format!("all peers together have at most {} CIDRs", limits::CIDRS_MAX)),
        );
    }
    read
}

fn one(written: &Spanned<config::Peer>, problems: &mut Problems) -> Option<DraftPeer> {
    let peer = written.get_ref();
    let name = name::name(&peer.name, problems);
    let (addresses, addresses_complete) =
        address::addresses(Some(&peer.addresses), "`addresses`", Use::Underlay, problems);
    if peer.addresses.get_ref().is_empty() {
        let problem = Diagnostic::new(
            &peer.addresses,
            format!("peer `{}` has no address", peer.name.get_ref()),
        );
        problems.push(problem.help("give the address that the other node is reached by"));
    }
    let (mut cidrs, _) = address::cidrs(Some(&peer.cidrs), problems);
    cidrs.retain(|cidr| address::holds_endpoints(cidr, problems));
    if peer.cidrs.get_ref().is_empty() {
        let problem =
            Diagnostic::new(&peer.cidrs, format!("peer `{}` has no CIDR", peer.name.get_ref()));
        problems.push(
            problem.help("give the networks its endpoints are numbered from, or remove the peer"),
        );
    }
    let mac = peer.mac.as_ref().and_then(|text| mac(text, problems));
    Some(DraftPeer { name: name?, addresses, addresses_complete, cidrs, mac, span: written.into() })
}

fn mac(text: &Spanned<String>, problems: &mut Problems) -> Option<Mac> {
    let written = text.get_ref();
    let problem = match written.parse::<Mac>() {
        Ok(mac) if mac.is_unicast() => return Some(mac),
        Ok(mac) => {
            let what = if mac.0 == [0; 6] { "all zero" } else { "a group address" };
            Diagnostic::new(text, format!("{mac} is not the address of one station: it is {what}"))
                .help("give the address that `ip link` shows for the device on the peer")
        }
        Err(why) => Diagnostic::new(text, format!("{} is not an Ethernet address", shown(written)))
            .help(why.to_string()),
    };
    problems.push(problem);
    None
}
