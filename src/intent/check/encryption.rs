//! WireGuard across objects: one key is one peer, ports and tables are not shared.
//!
//! Pure.

use std::collections::BTreeMap;

use crate::config::{Diagnostic, Span};
use crate::intent::draft::{Draft, DraftService, Problems};
use crate::intent::limits::TABLE_ENCRYPTION;
use crate::intent::{Encryption, FrontendKind, RoutingMode};
use crate::net::PublicKey;

pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    keys(draft, problems);
    if let Some(encryption) = &draft.encryption.value {
        table(draft, problems);
        port(draft, encryption, problems);
        nodes(draft, encryption, problems);
    }
}

/// WireGuard tells peers apart by their keys: of two with one, only the last would be there.
fn keys(draft: &Draft, problems: &mut Problems) {
    let mut seen: BTreeMap<PublicKey, (&str, Span)> = BTreeMap::new();
    for peer in &draft.peers {
        let Some(key) = &peer.wireguard.public_key else { continue };
        let name = &peer.name.value;
        let Some((other, earlier)) = seen.get(&key.value) else {
            seen.insert(key.value, (name, key.span));
            continue;
        };
        // A duplicate name has been complained about, and is probably the same table twice.
        if *other == &**name {
            continue;
        }
        let message = format!("peers `{other}` and `{name}` have one public key");
        let problem = Diagnostic::new(key.span, message).related(*earlier, "the first one");
        problems.push(problem.help(
            "every node has a key of its own: write what `ciliate wireguard pubkey` says on each; if one's key \
             file was copied from the other, run `ciliate wireguard rotate` on one of them",
        ));
    }
}

fn table(draft: &Draft, problems: &mut Problems) {
    let Some(table) = draft.routing.table_span else { return };
    if draft.routing.value.table == Some(TABLE_ENCRYPTION) {
        let message = format!("`table` can't be {TABLE_ENCRYPTION} with encryption");
        let problem =
            Diagnostic::new(table, message).label("this is the table that leads to WireGuard");
        problems.push(problem.help("choose another number"));
    }
}

fn port(draft: &Draft, encryption: &Encryption, problems: &mut Problems) {
    let RoutingMode::Tunnel(tunnel) = draft.routing.value.mode else { return };
    if tunnel.port != encryption.port {
        return;
    }
    let message = format!("WireGuard and the tunnel have one UDP port, {}", tunnel.port);
    let help = "set another `port` below [encryption], or another `tunnel-port` below [routing], on every node";
    problems.push(Diagnostic::new(draft.node.span, message).help(help));
}

/// What comes out of WireGuard is seen by no program that knows services for clients outside, and with
/// `encrypt-nodes` so do their requests from other nodes, and backends' answers.
fn nodes(draft: &Draft, encryption: &Encryption, problems: &mut Problems) {
    if !encryption.nodes || !draft.load_balancing.replace_kube_proxy {
        return;
    }
    let is_wide = |service: &&DraftService| {
        let mut frontends = service.frontends.iter();
        service.node_port.is_some()
            || frontends.any(|frontend| frontend.value.kind != FrontendKind::ClusterIp)
    };
    let Some(service) = draft.services.iter().find(is_wide) else { return };
    let message = format!(
        "service `{}` is for clients outside, which does not work with `encrypt-nodes` yet",
        service.name.value
    );
    problems.push(Diagnostic::new(service.name.span, message).help(
        "set encrypt-nodes = false below [encryption], on every node, or give the service cluster-ips only",
    ));
}
