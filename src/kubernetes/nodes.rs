//! Nodes → `[node]` and `[[peer]]`. Pure; imports `mapping`, `networks`, `objects`, `page`,
//! `settings`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::mapping::{Files, by_age};
use crate::networks::Networks;
use crate::objects::Node;
use crate::page::{Page, file, short};
use crate::settings::Settings;

/// The files of all nodes, and what the nodes have.
pub fn files(nodes: &BTreeMap<String, Node>, settings: &Settings, files: &mut Files) -> Networks {
    let mut networks = Networks::default();
    let mut keys = BTreeSet::new();
    let own = nodes.get_key_value(&settings.node);
    // Of two that have the same, this node keeps it, and among the others the one that was there first.
    let others = by_age(nodes, |node| node.created).into_iter();
    let others = others.filter(|(name, _)| **name != settings.node);
    for (name, node) in own.into_iter().chain(others) {
        let is_own = *name == settings.node;
        let mut page = Page::of(format!("Node {name}"));
        let addresses = node.addresses.iter().copied();
        let addresses: Vec<_> =
            addresses.filter(|ip| page.allows(networks.add_address(*ip, name))).collect();
        let mut cidrs = node.cidrs.clone();
        cidrs.retain(|cidr| page.allows(networks.add_cidr(*cidr, name)));
        let key = node.public_key.as_ref().filter(|_| settings.public_key.is_some());
        let key = key.filter(|key| {
            let none = if is_key(key) { Ok(()) } else { Err("its public key, which is none") };
            let taken = "its public key, which another node has too";
            let fits = none.and_then(|()| keys.insert(*key).then_some(()).ok_or(taken));
            page.allows(fits.map_err(str::to_owned))
        });
        // One that is not complete yet. A peer without addresses or CIDRs is no peer.
        let is_peer = !is_own && !addresses.is_empty() && !cidrs.is_empty();
        if is_own || is_peer {
            page.table(if is_own { "[node]" } else { "[[peer]]" });
            page.put("name", short(name));
            page.list("addresses", &addresses);
            page.list("cidrs", &cidrs);
        }
        if let Some(key) = key.filter(|_| is_peer) {
            page.put("public-key", key);
        }
        if is_own || is_peer || !page.left_out.is_empty() {
            files.insert(file(if is_own { "node" } else { "peer" }, name), Some(page.text()));
        }
    }
    networks
}

/// Base64 of 32 bytes.
pub fn is_key(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|key| key.len() == 32)
}
