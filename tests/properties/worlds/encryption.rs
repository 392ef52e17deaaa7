//! Strategies for WireGuard's key, device and peers: what of [`super::World`] is about encryption.

use std::collections::BTreeSet;
use std::sync::Arc;

use ciliate::kinds::*;
use ciliate::net::{IfName, PublicKey};
use ipnet::IpNet;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{WIREGUARD, address, name};

pub fn wireguard_keys()
-> impl Strategy<Value = (wireguard_key::Key, wireguard_key::Spec, wireguard_key::Seen)> {
    select(vec!["/var/lib/ciliate/wireguard.key", "/etc/key"])
        .prop_map(|path| (Arc::from(path), wireguard_key::Spec, wireguard_key::Seen))
}

pub fn wireguards() -> impl Strategy<Value = (IfName, wireguard::Spec, wireguard::Seen)> {
    use wireguard::PrivateKey::{Another, Missing, OfFile};
    let port = || select(vec![0, 51_871, 51_872u16]);
    let mark = || select(vec![0, 0x600u32]);
    let seen = (select(vec![Missing, OfFile, Another]), port(), mark());
    (port(), mark(), seen).prop_map(|(port, fwmark, (private_key, seen_port, seen_mark))| {
        let spec = wireguard::Spec { key_file: "/etc/key".into(), port, fwmark };
        let seen = wireguard::Seen { private_key, port: seen_port, fwmark: seen_mark };
        (name(WIREGUARD), spec, seen)
    })
}

fn allowed_ips() -> impl Strategy<Value = BTreeSet<IpNet>> {
    let nets = ["10.1.0.0/24", "10.2.0.0/24", "fd00:1::/80"].map(|net| net.parse().unwrap());
    subsequence(nets.to_vec(), 0..=3).prop_map(|nets| nets.into_iter().collect())
}

/// Of what is asked for, no two peers have the same: the configuration refuses that.
pub fn wireguard_peers()
-> impl Strategy<Value = (wireguard_peer::Key, wireguard_peer::Spec, wireguard_peer::Seen)> {
    let endpoint = || (address(), select(vec![51_871, 51_872u16]));
    let seen = (option::of(endpoint()), 0..3u16, allowed_ips(), prop::bool::weighted(0.1));
    (0..4u8, endpoint(), option::of(address()), 0..3u16, any::<bool>(), seen).prop_map(
        |(number, endpoint, other, keepalive_s, allowed, seen)| {
            let public_key = PublicKey([number + 1; 32]);
            let key = wireguard_peer::Key { ifname: name(WIREGUARD), public_key };
            let net = format!("10.{number}.0.0/24").parse::<IpNet>().unwrap();
            let spec = wireguard_peer::Spec {
                endpoint: endpoint.into(),
                addresses: other.into_iter().collect(),
                keepalive_s,
                allowed_ips: allowed.then_some(net).into_iter().collect(),
            };
            let (found, keepalive_s, allowed_ips, preshared) = seen;
            let endpoint = found.map(Into::into);
            (key, spec, wireguard_peer::Seen { endpoint, keepalive_s, allowed_ips, preshared })
        },
    )
}

/// Only devices that are there have any of it.
pub(super) fn close(links: &BTreeSet<IfName>, desired: &mut Desired, observed: &mut Observed) {
    desired.wireguards.retain(|ifname, _| links.contains(ifname));
    desired.wireguard_peers.retain(|key, _| links.contains(&key.ifname));
    observed.wireguards.retain(|ifname, _| observed.links.contains_key(ifname));
    observed.wireguard_peers.retain(|key, _| observed.links.contains_key(&key.ifname));
}
