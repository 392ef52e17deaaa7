//! Pods of this node → `[[endpoint]]`. Pure; imports `mapping`, `objects`, `page`,
//! `settings`, `stores`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::mapping::{Files, by_age};
use crate::objects::Labels;
use crate::page::{Page, file, short};
use crate::settings::Settings;
use crate::stores::Stores;

/// Most labels of an endpoint.
const LABELS_MAX: usize = 64;
/// What identities are derived from labels into: 256 to 65535.
const IDENTITY_MIN: u32 = 256;
const IDENTITIES: u32 = 65_536 - IDENTITY_MIN;

/// The files of all pods.
pub fn files(stores: &Stores, settings: &Settings, files: &mut Files) {
    let own = stores.nodes.objects.get(&settings.node);
    let cidrs = own.map_or(&[][..], |node| node.cidrs.as_slice());
    let (mut taken, mut identities) = (BTreeSet::new(), BTreeMap::new());
    let pods = by_age(&stores.pods.objects, |pod| pod.created);
    for (name, pod) in pods {
        // The watches are not in step: it comes. Labels without it would be those of another identity.
        let Some(place) = stores.namespaces.objects.get(&pod.namespace) else { continue };
        let mut page = Page::of(format!("Pod {name}"));
        let mut addresses = pod.addresses.clone();
        addresses.retain(|ip| page.allows(free(*ip, cidrs, &mut taken)));
        if !addresses.is_empty() {
            let mut labels = pod.labels.clone();
            let cluster = "k8s:io.cilium.k8s.policy.cluster".to_owned();
            labels.insert(cluster, settings.cluster.clone());
            labels.extend(place.clone());
            for key in labels.keys().skip(LABELS_MAX).cloned().collect::<Vec<_>>() {
                labels.remove(&key);
                page.left_out.push(format!("label {key}: an endpoint has at most {LABELS_MAX}"));
            }
            page.table("[[endpoint]]");
            page.put("name", short(name));
            page.put("netns", format!("{}/{}", settings.sandboxes.trim_end_matches('/'), pod.uid));
            page.list("addresses", &addresses);
            if let Some(identity) = identity(&labels, &mut identities) {
                page.put("identity", identity);
            }
            page.table("[endpoint.labels]");
            labels.iter().for_each(|(key, value)| page.put(&format!("{key:?}"), value));
        }
        files.insert(file("endpoint", name), Some(page.text()));
    }
}

fn free(ip: IpAddr, cidrs: &[IpNet], taken: &mut BTreeSet<IpAddr>) -> Result<(), String> {
    let cidr = cidrs.iter().find(|cidr| cidr.contains(&ip));
    match cidr {
        None if !cidrs.is_empty() => Err(format!("{ip}: it is outside the node's CIDRs")),
        Some(cidr) if set_aside(cidr, ip) => {
            Err(format!("{ip}: the node's router or health endpoint has it"))
        }
        _ if !taken.insert(ip) => Err(format!("{ip}: another pod has it")),
        _ => Ok(()),
    }
}

/// The addresses of a CIDR that ciliate has for itself, unless it is told others, and those of no host.
fn set_aside(cidr: &IpNet, ip: IpAddr) -> bool {
    let at = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let (first, last, ip) = (at(cidr.network()), at(cidr.broadcast()), at(ip));
    let broadcast = u128::from(cidr.addr().is_ipv4());
    ip <= first + 1 || ip + broadcast >= last
}

/// A number is given only where ciliate would derive one that another set of labels has: it refuses that.
fn identity(labels: &Labels, taken: &mut BTreeMap<u32, Labels>) -> Option<u32> {
    let text: String = labels.iter().map(|(key, value)| format!("{key}={value};")).collect();
    let hash = Sha256::digest(text.as_bytes());
    let derived = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % IDENTITIES;
    let mut numbers = (0..IDENTITIES).map(|step| IDENTITY_MIN + (derived + step) % IDENTITIES);
    let free = |number: &u32| taken.get(number).is_none_or(|other| other == labels);
    let number = numbers.find(free)?;
    taken.insert(number, labels.clone());
    (number != IDENTITY_MIN + derived).then_some(number)
}
