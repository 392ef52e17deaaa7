//! `[[peer]]` and `[[peer.endpoint]]`.
//!
//! Pure.

use serde_spanned::Spanned;

use super::address::{self, Use, shown};
use super::draft::{DraftPeer, DraftPeerEndpoint, Problems};
use super::encryption;
use super::reserved::{self, Cidrs, Reserved};
use super::{labels, limits, name};
use crate::config::{self, Diagnostic, Document};
use crate::net::Mac;

/// Reads the tables; with `health` the peers' health endpoints have addresses where none are given.
pub(super) fn read(document: &Document, health: bool, problems: &mut Problems) -> Vec<DraftPeer> {
    let peers = &document.root().peer;
    let lost = |what: Reserved| document.has_lost(&format!("peer.{}", what.key()));
    let derive =
        Derive { routers: !lost(Reserved::Router), health: health && !lost(Reserved::Health) };
    if let Some(excess) = peers.get(limits::PEERS_MAX) {
        let problem = Diagnostic::new(excess, "this is the first peer too many");
        problems.push(problem.help(format!("a node has at most {} peers", limits::PEERS_MAX)));
    }
    let within = peers.iter().take(limits::PEERS_MAX);
    let read: Vec<_> = within.filter_map(|peer| one(peer, derive, problems)).collect();
    let mut cidrs = read.iter().flat_map(|peer| &peer.cidrs);
    if let Some(excess) = cidrs.nth(limits::CIDRS_MAX) {
        let problem = Diagnostic::new(excess.span, "this is the first CIDR too many");
        problems.push(
            problem.help(format!("all peers together have at most {} CIDRs", limits::CIDRS_MAX)),
        );
    }
    entries(&read, problems);
    read
}

/// What is known of the peers has to fit into the ipcache.
fn entries(peers: &[DraftPeer], problems: &mut Problems) {
    let mut entries = 0;
    for peer in peers {
        let endpoints = peer.endpoints.iter().map(|endpoint| endpoint.addresses.len());
        entries += peer.addresses.len() + peer.routers.len() + peer.health.len();
        entries += peer.cidrs.len();
        entries += endpoints.sum::<usize>();
        if entries > limits::PEER_ENTRIES_MAX {
            let message =
                format!("there is no room for what is known of peer `{}`", peer.name.value);
            let problem = Diagnostic::new(peer.span, message);
            problems.push(problem.help(format!(
                "addresses, routers, health addresses, CIDRs and endpoints of all peers together are \
                 at most {}: leave out [[peer.endpoint]]s",
                limits::PEER_ENTRIES_MAX
            )));
            return;
        }
    }
}

/// Which addresses are derived where none are given: not where some may have been, and are refused.
#[derive(Debug, Clone, Copy)]
struct Derive {
    routers: bool,
    health: bool,
}

fn one(
    written: &Spanned<config::Peer>,
    derive: Derive,
    problems: &mut Problems,
) -> Option<DraftPeer> {
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
    let (mut cidrs, complete) = address::cidrs(Some(&peer.cidrs), problems);
    let before = cidrs.len();
    cidrs.retain(|cidr| address::holds_endpoints(cidr, problems));
    if peer.cidrs.get_ref().is_empty() {
        let problem =
            Diagnostic::new(&peer.cidrs, format!("peer `{}` has no CIDR", peer.name.get_ref()));
        problems.push(
            problem.help("give the networks its endpoints are numbered from, or remove the peer"),
        );
    }
    let cidrs_complete = complete && before == cidrs.len() && !cidrs.is_empty();
    let whose = format!("peer `{}`", peer.name.get_ref());
    let set_aside = Cidrs { list: &cidrs, complete: cidrs_complete, whose: &whose };
    let (routers, addresses_of_health) = (peer.routers.as_ref(), peer.health_addresses.as_ref());
    let routers = reserved::read(Reserved::Router, routers, set_aside, derive.routers, problems);
    let health =
        reserved::read(Reserved::Health, addresses_of_health, set_aside, derive.health, problems);
    let mac = peer.mac.as_ref().and_then(|text| mac(text, problems));
    let wireguard = encryption::peer(peer, problems);
    let endpoints =
        peer.endpoint.iter().filter_map(|written| endpoint(written, problems)).collect();
    Some(DraftPeer {
        name: name?,
        addresses,
        addresses_complete,
        cidrs,
        cidrs_complete,
        routers,
        health,
        mac,
        wireguard,
        endpoints,
        span: written.into(),
    })
}

fn endpoint(
    written: &Spanned<config::PeerEndpoint>,
    problems: &mut Problems,
) -> Option<DraftPeerEndpoint> {
    let endpoint = written.get_ref();
    let name = name::name(&endpoint.name, problems);
    let (addresses, _) =
        address::addresses(Some(&endpoint.addresses), "`addresses`", Use::Endpoint, problems);
    if endpoint.addresses.get_ref().is_empty() {
        let message = format!("endpoint `{}` of a peer has no address", endpoint.name.get_ref());
        let problem = Diagnostic::new(&endpoint.addresses, message);
        problems.push(problem.help("give the addresses it has, or remove it"));
    }
    let role = labels::role(
        endpoint.labels.as_ref(),
        endpoint.identity.as_ref(),
        written.into(),
        problems,
    );
    Some(DraftPeerEndpoint { name: name?, addresses, role: role? })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;
    use crate::intent::draft::At;

    #[test]
    fn what_is_known_of_peers_has_to_fit() {
        let span = Span { start: 0, end: 0 };
        let peer = |name: &str, addresses: usize| DraftPeer {
            name: At { value: name.into(), span },
            addresses: vec![At { value: [10, 0, 0, 1].into(), span }; addresses],
            addresses_complete: true,
            cidrs: Vec::new(),
            cidrs_complete: true,
            routers: Vec::new(),
            health: Vec::new(),
            mac: None,
            wireguard: crate::intent::draft::DraftWireguard::default(),
            endpoints: Vec::new(),
            span,
        };
        let mut peers = vec![peer("a", 1), peer("b", limits::PEER_ENTRIES_MAX - 1)];
        let mut problems = Vec::new();
        entries(&peers, &mut problems);
        assert_eq!(problems.len(), 0);
        peers.extend([peer("c", 1), peer("d", 1)]);
        entries(&peers, &mut problems);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(problem.message, "there is no room for what is known of peer `c`");
        assert!(problem.help.as_ref().is_some_and(|help| help.contains("at most 500000")));
    }
}
