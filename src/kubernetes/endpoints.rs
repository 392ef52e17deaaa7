//! Pods of this node → `[[endpoint]]`. Pure; imports `objects`, `page`, `settings`, `stores`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::objects::Labels;
use crate::page::{Files, allowed, digest, file, short, text};
use crate::settings::Settings;
use crate::stores::Stores;

/// Most labels of an endpoint.
const LABELS_MAX: usize = 64;
/// What identities are derived from labels into: 256 to 65535.
const IDENTITY_MIN: u64 = 256;
const IDENTITIES: u64 = 65_536 - IDENTITY_MIN;

/// An endpoint, as it is written.
#[derive(serde::Serialize)]
struct Endpoint {
    name: String,
    netns: String,
    addresses: Vec<IpAddr>,
    identity: Option<u64>,
    labels: Labels,
}

/// The files of all pods.
pub fn files(stores: &Stores, settings: &Settings, files: &mut Files) {
    let cidrs = stores.nodes.get(&settings.node).map_or(&[][..], |own| &own.cidrs);
    let (mut taken, mut uids, mut identities) = Default::default();
    for (name, pod) in stores.pods.by_age() {
        // The watches are not in step: it comes. Labels without it would be those of another identity.
        let Some(place) = stores.namespaces.get(&pod.namespace) else { continue };
        let (mut addresses, mut left_out) = (pod.addresses.clone(), Vec::new());
        let twice = !BTreeSet::insert(&mut uids, &pod.uid);
        addresses.retain(|ip| allowed(unfit(*ip, cidrs, twice, &mut taken), &mut left_out));
        let tables = (!addresses.is_empty()).then(|| {
            let mut labels = pod.labels.clone();
            labels.insert("k8s:io.cilium.k8s.policy.cluster".into(), settings.cluster.clone());
            labels.extend(place.clone());
            for key in labels.keys().skip(LABELS_MAX).cloned().collect::<Vec<_>>() {
                labels.remove(&key);
                left_out.push(format!("label {key}: an endpoint has at most {LABELS_MAX}"));
            }
            let identity = identity(&labels, &mut identities);
            let netns = format!("{}/{}", settings.sandboxes.trim_end_matches('/'), pod.uid);
            ("endpoint", [Endpoint { name: short(name), netns, addresses, identity, labels }])
        });
        files.insert(file("endpoint", name), Some(text(&format!("Pod {name}"), &left_out, tables)));
    }
}

/// Why a pod can't have an address.
fn unfit(ip: IpAddr, cidrs: &[IpNet], twice: bool, taken: &mut BTreeSet<IpAddr>) -> Option<String> {
    let why = match cidrs.iter().find(|cidr| cidr.contains(&ip)) {
        _ if twice => "another pod has the network namespace",
        None if !cidrs.is_empty() => "it is outside the node's CIDRs",
        Some(cidr) if set_aside(cidr, ip) => "the node's router or health endpoint has it",
        _ if !taken.insert(ip) => "another pod has it",
        _ => return None,
    };
    Some(format!("{ip}: {why}"))
}

/// The addresses of a CIDR that ciliate has for itself, unless it is told others, and those of no host: among the
/// hosts of IPv6, the first one.
fn set_aside(cidr: &IpNet, ip: IpAddr) -> bool {
    let mut hosts = cidr.hosts();
    let (first, last) = (hosts.nth(1 + usize::from(ip.is_ipv6())), hosts.nth_back(1));
    !(first..=last).contains(&Some(ip))
}

/// A number is given only where ciliate would derive one that another set of labels has: it refuses that.
fn identity(labels: &Labels, taken: &mut BTreeMap<u64, Labels>) -> Option<u64> {
    let text: String = labels.iter().map(|(key, value)| format!("{key}={value};")).collect();
    let derived = (digest(&text) >> 32) % IDENTITIES;
    let mut numbers = (0..IDENTITIES).map(|step| IDENTITY_MIN + (derived + step) % IDENTITIES);
    let number = numbers.find(|number| taken.get(number).is_none_or(|other| other == labels))?;
    taken.insert(number, labels.clone());
    (number != IDENTITY_MIN + derived).then_some(number)
}
