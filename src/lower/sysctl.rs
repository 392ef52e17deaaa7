//! Settings: those of our devices, those of the namespace, and how to put the latter back. Pure.
//!
//! Switching forwarding on writes through to other settings (`inet_forward_change`, net/ipv4/devinet.c;
//! `addrconf_fixup_forwarding`, net/ipv6/addrconf.c), so these are recorded too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{CILIUM_HOST, CILIUM_NET, CILIUM_WG0, Lowering, before, overlay, want};
use crate::facts::Facts;
use crate::intent::Intent;
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::{self, c_text};
use crate::kinds::link::{Form, LinkInfo};
use crate::kinds::sysctl::{Key, Spec, Sysctl};
use crate::kinds::{Desired, ObjectKey, Origin, Wanted, record};
use crate::net::{IfName, Netns};

const FORWARDING_V4: &str = "net/ipv4/conf/all/forwarding";
const FORWARDING_V6: &str = "net/ipv6/conf/all/forwarding";
const RP_FILTER: &str = "net/ipv4/conf/all/rp_filter";
/// The kernel switches it off when a device of WireGuard goes up (`wg_open`, drivers/net/wireguard/device.c).
const SEND_REDIRECTS: &str = "net/ipv4/conf/all/send_redirects";

/// Whether an earlier round made this a node of the family: its settings were changed then, and records of what
/// they were made before that.
pub(super) fn established(facts: &Facts, v6: bool) -> bool {
    let host = facts.links.values().find(|link| link.ifname.as_str() == CILIUM_HOST);
    let is_router = |(ifname, net): &(IfName, IpNet)| match net.addr() {
        _ if ifname.as_str() != CILIUM_HOST => false,
        IpAddr::V4(_) => !v6,
        IpAddr::V6(address) => v6 && !address.is_unicast_link_local(),
    };
    host.is_some_and(LinkInfo::owned) && facts.addresses.iter().any(is_router)
}

/// Settings of which a round needs the record, and the values that it gives them.
const ALWAYS_CHANGED: [(&str, bool, &str); 3] =
    [(FORWARDING_V4, false, "1"), (RP_FILTER, false, "0"), (FORWARDING_V6, true, "1")];

/// Whether the record of a setting is missing that must have been there, while the setting has our value: what
/// it was can't be told any more.
fn is_lost(facts: &Facts, records: &BTreeMap<String, &str>, path: &str) -> bool {
    if records.contains_key(path) {
        return false;
    }
    let has = |path: &str, value: &str| facts.sysctls.get(path).is_some_and(|now| now == value);
    if let Some((_, v6, value)) = ALWAYS_CHANGED.iter().find(|(always, ..)| *always == path) {
        return established(facts, *v6) && has(path, value);
    }
    if path == SEND_REDIRECTS {
        let device = facts.links.values().find(|link| link.ifname.as_str() == CILIUM_WG0);
        return device.is_some_and(LinkInfo::owned) && has(path, "0");
    }
    if path.ends_with("/accept_ra") {
        // A device may have come since, with this value: only if all records are gone.
        let all_gone = !facts.before.contains_key(record::NAMESPACE);
        return all_gone && established(facts, true) && has(path, "2");
    }
    // What forwarding wrote through.
    let cause = if path.starts_with("net/ipv6/") { FORWARDING_V6 } else { FORWARDING_V4 };
    is_lost(facts, records, cause)
}

/// The settings whose records say that what they were is lost.
pub(super) fn lost_in(desired: &Desired, facts: &Facts) -> Vec<String> {
    let names = names(facts);
    let is_lost = |(key, wanted): &(&bpf_map_entry::Key, &Wanted<bpf_map_entry::Spec>)| {
        key.map == MapName::BEFORE && c_text(&wanted.spec.value) == record::LOST
    };
    let lost = desired.bpf_map_entries.iter().filter(is_lost);
    lost.filter_map(|(key, _)| {
        record::setting(&c_text(&key.key), |ifindex| names.get(&ifindex).copied())
    })
    .collect()
}

/// The settings that `destroy` can't put back, because their records are lost.
pub(super) fn lost(facts: &Facts) -> Vec<String> {
    let records = recorded(facts);
    let known = records.iter().filter(|(_, was)| **was == record::LOST);
    let known = known.map(|(path, _)| path.clone());
    let missing = ALWAYS_CHANGED.iter().map(|(path, ..)| (*path).to_string());
    known.chain(missing.filter(|path| is_lost(facts, &records, path))).collect()
}

fn accept_ra(ifname: &IfName) -> String {
    format!("net/ipv6/conf/{ifname}/accept_ra")
}

fn families(intent: &Intent) -> (bool, bool) {
    let has = |v6: bool| intent.node.cidrs.iter().any(|cidr| cidr.addr().is_ipv6() == v6);
    (has(false), has(true))
}

/// What switching on forwarding of a family changes besides.
fn written_through<'a>(v6: bool, links: impl Iterator<Item = &'a IfName>) -> Vec<String> {
    let family = if v6 { "ipv6" } else { "ipv4" };
    let mut paths = vec![format!("net/{family}/conf/default/forwarding")];
    if !v6 {
        paths.push("net/ipv4/conf/all/accept_redirects".into());
    }
    paths.extend(links.map(|ifname| format!("net/{family}/conf/{ifname}/forwarding")));
    paths
}

/// The settings whose present values matter: to record them before they are changed, or to see whether
/// they still can be put back.
pub fn interest(intent: &Intent, facts: &Facts) -> Vec<Arc<str>> {
    let (ipv4, ipv6) = families(intent);
    let mut paths: BTreeSet<String> = recorded(facts).into_keys().collect();
    if ipv4 {
        paths.extend([FORWARDING_V4.into(), RP_FILTER.into()]);
    }
    if ipv6 {
        paths.insert(FORWARDING_V6.into());
        paths.extend(facts.links.keys().map(accept_ra));
    }
    paths.extend(intent.encryption.is_some().then(|| SEND_REDIRECTS.to_string()));
    paths.extend(intent.routing.past_host.then(|| overlay::LOCAL_PORT_RANGE.to_string()));
    for (path, v6, _) in ALWAYS_CHANGED {
        paths.extend(established(facts, v6).then(|| path.to_string()));
    }
    let foreign = || facts.links.values().filter(|link| !link.owned()).map(|link| &link.ifname);
    for (wanted, v6, cause) in [(ipv4, false, FORWARDING_V4), (ipv6, true, FORWARDING_V6)] {
        if wanted && !recorded(facts).contains_key(cause) {
            paths.extend(written_through(v6, foreign()));
        }
    }
    paths.into_iter().map(Arc::from).collect()
}

/// The recorded settings: path → value before. Without those of devices that are gone.
fn recorded(facts: &Facts) -> BTreeMap<String, &str> {
    let names = names(facts);
    let path = |what: &str| record::setting(what, |ifindex| names.get(&ifindex).copied());
    facts.records().into_iter().filter_map(|(what, was)| Some((path(what)?, was))).collect()
}

/// The names that devices have now.
fn names(facts: &Facts) -> BTreeMap<u32, IfName> {
    facts.links.values().map(|link| (link.ifindex, link.ifname)).collect()
}

/// The record of a setting.
fn record_of(facts: &Facts, path: &str) -> String {
    let link = |name: &str| facts.links.get(&name.parse().ok()?);
    record::of_setting(path, |name| Some(link(name)?.ifindex))
}

/// Adds the settings.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let wanted = namespace_settings(lowering);
    let facts = lowering.facts;
    let records = recorded(facts);
    let (ipv4, ipv6) = families(lowering.intent);
    let desired = &mut lowering.desired;
    // Records of what forwarding wrote through stay while forwarding is ours.
    let foreign = || facts.links.values().filter(|link| !link.owned()).map(|link| &link.ifname);
    let mut keep: BTreeSet<String> = wanted.keys().cloned().collect();
    for (active, v6, cause) in [(ipv4, false, FORWARDING_V4), (ipv6, true, FORWARDING_V6)] {
        let family = if v6 { "net/ipv6/" } else { "net/ipv4/" };
        if active {
            let through = |path: &str| {
                path.starts_with(family) && !path.ends_with("accept_ra") && path != SEND_REDIRECTS
            };
            keep.extend(records.keys().filter(|path| through(path)).cloned());
            if !records.contains_key(cause) {
                keep.extend(written_through(v6, foreign()));
            }
        }
    }
    for path in &keep {
        let was = records.get(path.as_str()).copied();
        let was = was.or_else(|| is_lost(facts, &records, path).then_some(record::LOST));
        if let Some(was) = was.or(facts.sysctls.get(path.as_str()).map(String::as_str)) {
            before::keep(desired, &record_of(facts, path), was, &Origin::Node);
        }
    }
    for (path, value) in wanted {
        let needs = vec![before::object(&record_of(facts, &path))];
        let spec = Spec { value: value.into(), needs };
        want::<Sysctl>(&mut desired.sysctls, Key::host(path), spec, &Origin::Node);
    }
    // What is recorded and no longer wanted is put back; its record goes after that.
    for (path, was) in records {
        if !keep.contains(&path) && facts.sysctls.contains_key(path.as_str()) {
            put_back(desired, &path, was);
        }
    }
    device_settings(lowering);
}

/// Settings of the whole namespace: path → value.
fn namespace_settings(lowering: &Lowering<'_>) -> BTreeMap<String, &'static str> {
    let (ipv4, ipv6) = families(lowering.intent);
    let mut wanted = BTreeMap::new();
    if ipv4 {
        wanted.insert(FORWARDING_V4.to_string(), "1");
        // The effective filter of a device is the greater of its own and this one.
        wanted.insert(RP_FILTER.to_string(), "0");
    }
    if lowering.desired.links.keys().any(|ifname| ifname.as_str() == CILIUM_WG0) {
        wanted.insert(SEND_REDIRECTS.to_string(), "0");
    }
    if ipv6 {
        wanted.insert(FORWARDING_V6.to_string(), "1");
        // With forwarding on, 1 means that router advertisements are ignored, and the kernel drops the
        // routes it has from them: a host that has its default route from one would be lost.
        let records = recorded(lowering.facts);
        for (ifname, _) in &lowering.node.devices {
            let path = accept_ra(ifname);
            let now = lowering.facts.sysctls.get(path.as_str()).map(String::as_str);
            // Recorded, it is ours, whatever somebody made of it since.
            let before = records.get(path.as_str()).copied().or(now);
            if now.is_some() && before != Some("0") {
                wanted.insert(path, "2");
            }
        }
    }
    wanted
}

/// Settings of our own devices.
fn device_settings(lowering: &mut Lowering<'_>) {
    let (ipv4, ipv6) = (lowering.node.ipv4, lowering.node.ipv6);
    let desired = &mut lowering.desired;
    let links: Vec<_> = desired
        .links
        .iter()
        .map(|(ifname, wanted)| (*ifname, wanted.spec.clone(), wanted.origin.clone()))
        .collect();
    for (link, spec, origin) in links {
        let pair = link.as_str() == CILIUM_HOST;
        let names = if pair { vec![CILIUM_HOST, CILIUM_NET] } else { vec![link.as_str()] };
        let of_node = pair || matches!(spec.form, Form::Tunnel { .. } | Form::Wireguard);
        for name in names {
            let mut set = |family: &str, what: &str, value: &str| {
                let path = format!("net/{family}/conf/{name}/{what}");
                let spec = Spec { value: value.into(), needs: vec![ObjectKey::Link(link)] };
                want::<Sysctl>(&mut desired.sysctls, Key::host(path), spec, &origin);
            };
            if ipv4 {
                set("ipv4", "forwarding", "1");
                set("ipv4", "rp_filter", "0");
            }
            if ipv4 && of_node {
                set("ipv4", "accept_local", "1");
                set("ipv4", "send_redirects", "0");
            }
            if ipv6 {
                set("ipv6", "disable_ipv6", "0");
                set("ipv6", "forwarding", "1");
            }
        }
        if let Some(peer) = spec.peer().filter(|peer| ipv6 && peer.netns != Netns::HOST) {
            let path = format!("net/ipv6/conf/{}/disable_ipv6", peer.ifname);
            let key = Key { netns: peer.netns.clone(), path: path.into() };
            let spec = Spec { value: "0".into(), needs: vec![ObjectKey::Link(link)] };
            want::<Sysctl>(&mut desired.sysctls, key, spec, &origin);
        }
    }
}

fn put_back(desired: &mut Desired, path: &str, was: &str) {
    if was == record::LOST {
        return;
    }
    let spec = Spec { value: was.into(), needs: Vec::new() };
    want::<Sysctl>(&mut desired.sysctls, Key::host(path), spec, &Origin::Leftover);
}

/// All recorded settings as they were.
pub(super) fn restore(facts: &Facts, desired: &mut Desired) {
    for (path, was) in recorded(facts) {
        if facts.sysctls.contains_key(path.as_str()) {
            put_back(desired, &path, was);
        }
    }
}
