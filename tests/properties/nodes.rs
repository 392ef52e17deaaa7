//! Made-up nodes: an intent, the machine it is for, and what the machine shows after a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ciliate::bpf_abi::{CILIATE_DEVICE, DeviceKey, DeviceValue};
use ciliate::config::Span;
use ciliate::facts::{self, Facts, Namespaces, NetnsProblem, NextHop, WireguardKey};
use ciliate::intent::{
    AttachMode, Conntrack, Datapath, Encryption, Endpoint, Health, Identity, Intent, LoadBalancing,
    Masquerade, Node, Paths, Peer, PeerEndpoint, Routing, RoutingMode, Tunnel, TunnelProtocol,
    Underlay, Wireguard,
};
use ciliate::kinds::bpf_map::MapName;
use ciliate::kinds::bpf_map_entry::c_text;
use ciliate::kinds::link::{self, End, LinkInfo};
use ciliate::kinds::{Observed, sysctl};
use ciliate::net::{Mac, Netns, PublicKey};
use ipnet::IpNet;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::worlds::name;

const SPAN: Span = Span { start: 0, end: 0 };
/// Names of endpoints; the numbers in the last two columns are addresses that some ask for.
const ENDPOINTS: &[(&str, &str, &str)] = &[
    ("alpha", "10.244.0.20", "fd00:10:244::20"),
    ("beta", "10.244.0.3", "fd00:10:244::3"),
    ("gamma", "10.244.0.40", "fd00:10:244::40"),
    ("delta", "10.244.0.2", "fd00:10:244::2"),
    ("epsilon", "10.244.0.60", "fd00:10:244::60"),
    ("zeta", "10.244.0.4", "fd00:10:244::4"),
];

/// Whether the node has IPv4 and IPv6.
pub type Families = (bool, bool);

fn of_families<T: std::str::FromStr>((v4, v6): Families, four: &str, six: &str) -> Vec<T> {
    let texts = [v4.then_some(four), v6.then_some(six)];
    texts.into_iter().flatten().map(|text| text.parse().ok().unwrap()).collect()
}

fn endpoint(families: Families, which: usize, fixed: bool, missing: bool) -> Endpoint {
    let (endpoint, four, six) = ENDPOINTS[which];
    Endpoint {
        name: endpoint.into(),
        netns: Netns::at(format!("/run/netns/{}{endpoint}", if missing { "no-" } else { "" })),
        netns_span: SPAN,
        ifname: name("eth0"),
        addresses: if fixed { of_families(families, four, six) } else { Vec::new() },
        labels: BTreeMap::new(),
        identity: Identity::new(1000 + which as u32).unwrap(),
        span: SPAN,
    }
}

/// A set of endpoints: which, whether their addresses are given, whether their namespaces are there.
pub fn endpoints(
    families: Families,
    may_miss: bool,
) -> impl Strategy<Value = BTreeMap<Arc<str>, Endpoint>> {
    let all: Vec<usize> = (0..ENDPOINTS.len()).collect();
    subsequence(all, 0..=ENDPOINTS.len()).prop_flat_map(move |chosen| {
        let one = |which| (Just(which), any::<bool>(), prop::bool::weighted(0.2));
        let chosen: Vec<_> = chosen.into_iter().map(one).collect();
        chosen.prop_map(move |chosen| {
            chosen
                .into_iter()
                .map(|(which, fixed, missing)| {
                    endpoint(families, which, fixed, missing && may_miss)
                })
                .map(|endpoint| (endpoint.name.clone(), endpoint))
                .collect()
        })
    })
}

fn peers(families: Families) -> impl Strategy<Value = BTreeMap<Arc<str>, Peer>> {
    subsequence(vec![2u8, 3, 4], 0..=3).prop_map(move |peers| {
        let peer = |number: u8| {
            let name: Arc<str> = format!("node-{number}").into();
            let (four, six) = (format!("172.18.0.{number}"), format!("fc00::{number}"));
            let (cidr4, cidr6) = (format!("10.244.{number}.0/24"), format!("fd00:{number}::/80"));
            let peer = Peer {
                name: name.clone(),
                addresses: of_families(families, &four, &six),
                cidrs: of_families(families, &cidr4, &cidr6),
                routers: of_families(
                    families,
                    &format!("10.244.{number}.1"),
                    &format!("fd00:{number}::1"),
                ),
                endpoints: vec![PeerEndpoint {
                    name: "far".into(),
                    addresses: of_families(
                        families,
                        &format!("10.244.{number}.9"),
                        &format!("fd00:{number}::9"),
                    ),
                    labels: BTreeMap::new(),
                    identity: Identity::new(2000 + u32::from(number)).unwrap(),
                }],
                health_addresses: of_families(
                    families,
                    &format!("10.244.{number}.254"),
                    &format!("fd00:{number}::fe"),
                ),
                mac: (number == 4).then_some(Mac([2, 0, 0, 0, 0, 4])),
                wireguard: Wireguard {
                    // One has none, and one that of the machine.
                    public_key: (number < 4).then_some(PublicKey([number; 32])),
                    endpoint: None,
                    keepalive_s: 0,
                },
                span: SPAN,
            };
            (name, peer)
        };
        peers.into_iter().map(peer).collect()
    })
}

pub fn families() -> impl Strategy<Value = Families> {
    select(vec![(true, false), (false, true), (true, true)])
}

/// Ways to the peers, and whether routes to them are ours to make.
fn mode() -> impl Strategy<Value = (RoutingMode, bool)> {
    let protocol = select(vec![TunnelProtocol::Vxlan, TunnelProtocol::Geneve]);
    let underlay = select(vec![None, Some(Underlay::Ipv4), Some(Underlay::Ipv6)]);
    let tunnel = (protocol, select(vec![8472, 6081u16]), any::<bool>(), underlay).prop_map(
        |(protocol, port, notrack, underlay)| {
            (RoutingMode::Tunnel(Tunnel { protocol, port, notrack, underlay }), false)
        },
    );
    prop_oneof![any::<bool>().prop_map(|auto| (RoutingMode::Native, auto)), tunnel]
}

/// A node without endpoints.
pub fn intent(families: Families) -> impl Strategy<Value = Intent> {
    let attach = select(vec![AttachMode::Auto, AttachMode::Tcx, AttachMode::Clsact]);
    let masquerade = select(vec![Masquerade::Nftables, Masquerade::Off]);
    let table = option::of(Just(2005));
    let encryption = option::of((any::<bool>(), any::<bool>()));
    let encryption = encryption.prop_map(|asked| {
        asked.map(|(nodes, strict)| Encryption { port: 51_871, key_file: None, nodes, strict })
    });
    let all = (peers(families), attach, masquerade, table, mode(), any::<bool>(), encryption);
    all.prop_map(
        move |(peers, attach_mode, masquerade, table, (mode, auto), health, encryption)| Intent {
            node: Node {
                name: Some("node".into()),
                addresses: of_families(families, "172.18.0.1", "fc00::1"),
                devices: Vec::new(),
                cidrs: of_families(families, "10.244.0.0/24", "fd00:10:244::/80"),
                routers: of_families(families, "10.244.0.1", "fd00:10:244::1"),
                // Early ones, that would be given to endpoints.
                health_addresses: match health {
                    true => of_families(families, "10.244.0.5", "fd00:10:244::5"),
                    false => Vec::new(),
                },
                span: SPAN,
            },
            routing: Routing {
                mode,
                auto_direct_node_routes: auto,
                past_host: auto && table.is_some(),
                native_cidrs: Vec::new(),
                mtu_bytes: None,
                table,
                rule_priority: 111,
            },
            masquerade,
            datapath: Datapath { attach_mode },
            conntrack: Conntrack {
                tcp_max_entries: 131_072,
                any_max_entries: 65_536,
                nat_max_entries: 131_072,
            },
            health: Health { enabled: health, interval: Duration::from_secs(60) },
            load_balancing: LoadBalancing::default(),
            encryption,
            paths: Paths {
                runtime: PathBuf::from("/run/ciliate"),
                state: PathBuf::from("/var/lib/ciliate"),
                bpf: PathBuf::from("/sys/fs/bpf/ciliate"),
                cgroup: PathBuf::from("/sys/fs/cgroup"),
            },
            peers,
            endpoints: BTreeMap::new(),
            services: BTreeMap::new(),
        },
    )
}

fn device(ifname: &str, ifindex: u32, kind: &str) -> LinkInfo {
    LinkInfo {
        altnames: Vec::new(),
        ifindex,
        ifname: name(ifname),
        kind: kind.into(),
        end: End {
            mac: Mac([2, 0, 0, 0, 1, ifindex as u8]),
            mtu_bytes: 1500,
            up: true,
            arp: true,
            alias: String::new(),
            grouped: false,
            enslaved: false,
            promiscuous: false,
        },
        group: 0,
        link: None,
        link_netnsid: None,
        xdp: None,
        tunnel: None,
    }
}

/// A machine on which ciliate never ran: its settings are the objects, everything else the facts.
#[derive(Debug, Clone)]
pub struct Machine {
    pub links: Vec<LinkInfo>,
    pub addresses: Vec<(ciliate::net::IfName, IpNet)>,
    pub tcx: bool,
    pub clsact: BTreeSet<ciliate::net::IfName>,
    pub wireguard: facts::Wireguard,
    pub untouched: Observed,
}

/// A machine with two devices, any settings, and clsact qdiscs here and there.
pub fn machine(families: Families) -> impl Strategy<Value = Machine> {
    let bit = || select(vec!["0", "1", "2"]);
    let values = prop::collection::vec(bit(), 23);
    let clsact = subsequence(vec![name("eth0"), name("eth1")], 0..=2);
    let vxlan = option::weighted(0.3, select(vec!["vxlan7", "cilium_vxlan"]));
    let key = prop_oneof![
        Just(WireguardKey::Missing),
        (3..6u8).prop_map(|number| WireguardKey::Usable(PublicKey([number; 32]))),
        Just(WireguardKey::Refused("others may read it".into())),
    ];
    let wireguard = (prop::bool::weighted(0.8), key).prop_map(|(available, key)| {
        facts::Wireguard { available, key_file: "/var/lib/ciliate/wireguard.key".into(), key }
    });
    let all = (values, any::<bool>(), clsact, vxlan, wireguard);
    all.prop_map(move |(values, tcx, clsact, vxlan, wireguard)| {
        let mut values = values.into_iter().cycle();
        let mut untouched = Observed::default();
        for family in ["ipv4", "ipv6"] {
            for dev in ["all", "default", "eth0", "eth1"] {
                for what in
                    ["forwarding", "rp_filter", "accept_ra", "accept_redirects", "send_redirects"]
                {
                    let key = sysctl::Key::host(format!("net/{family}/conf/{dev}/{what}"));
                    let value = values.next().unwrap();
                    let value = if what == "forwarding" && value == "2" { "1" } else { value };
                    untouched.sysctls.insert(key, sysctl::Seen { value: value.into() });
                }
            }
        }
        let mut addresses: Vec<(_, IpNet)> = Vec::new();
        for net in of_families::<IpNet>(families, "172.18.0.1/16", "fc00::1/64") {
            addresses.push((name("eth0"), net));
        }
        let mut links = vec![device("eth0", 2, ""), device("eth1", 5, "")];
        links.extend(vxlan.map(|ifname| {
            let tunnel = Some(link::Tunnel { port: 8472, flow_based: false });
            LinkInfo { tunnel, ..device(ifname, 7, "vxlan") }
        }));
        Machine {
            links,
            addresses,
            tcx,
            clsact: clsact.into_iter().collect(),
            wireguard,
            untouched,
        }
    })
}

/// What `observe::facts::read` would find on the machine once `observed` is what it has.
pub fn facts(machine: &Machine, intent: &Intent, observed: &Observed) -> Facts {
    let mut facts = Facts {
        hostname: "machine".into(),
        addresses: machine.addresses.clone(),
        tcx: machine.tcx && intent.datapath.attach_mode != AttachMode::Clsact,
        ..Facts::default()
    };
    if !facts.tcx {
        facts.clsact.clone_from(&machine.clsact);
        let ours = observed.bpf_links.iter().filter(|(_, seen)| !seen.pinned());
        facts.clsact.extend(ours.map(|(key, _)| key.ifname));
    }
    facts.links = machine.links.iter().map(|link| (link.ifname, link.clone())).collect();
    for (key, seen) in &observed.links {
        let link = device(key.as_str(), seen.ifindex, &seen.kind);
        let link = LinkInfo { end: seen.end.clone(), tunnel: seen.tunnel, ..link };
        facts.links.insert(*key, link);
        if let Some(peer) = seen.peer.as_ref().filter(|peer| peer.netns == Netns::HOST) {
            let link = device(peer.ifname.as_str(), peer.ifindex.unwrap(), "veth");
            facts.links.insert(peer.ifname, LinkInfo { end: peer.end.clone(), ..link });
        }
    }
    let host = observed.addresses.keys().filter(|key| key.netns == Netns::HOST);
    facts.addresses.extend(host.map(|key| (key.ifname, key.address)));
    facts.next_hops = next_hops(intent);
    facts.wireguard = intent.encryption.is_some().then(|| machine.wireguard.clone());
    facts.namespaces = namespaces(intent, observed);
    for (key, seen) in &observed.bpf_map_entries {
        if key.map == MapName::BEFORE {
            facts.before.insert(c_text(&key.key), c_text(&seen.value));
        } else if key.map == MapName::of_abi(CILIATE_DEVICE) {
            let ifindex = DeviceKey::from_bytes(key.key.as_slice().try_into().unwrap()).ifindex;
            let value = DeviceValue::from_bytes(seen.value.as_slice().try_into().unwrap());
            facts.devices.insert(ifindex, value);
        }
    }
    for path in ciliate::lower::sysctl::interest(intent, &facts) {
        if let Some(seen) = observed.sysctls.get(&sysctl::Key::host(path.clone())) {
            facts.sysctls.insert(path, seen.value.to_string());
        }
    }
    facts
}

/// The first peer is behind a gateway if there are three.
fn next_hops(intent: &Intent) -> BTreeMap<IpAddr, NextHop> {
    let on_link = || NextHop::OnLink(name("eth0"));
    let many = intent.peers.len() > 2;
    let hops = intent.peers.values().enumerate().flat_map(|(index, peer)| {
        peer.addresses.iter().map(move |address| {
            let gateway = "172.18.255.254".parse().unwrap();
            let far = NextHop::Gateway { gateway, dev: name("eth0") };
            (*address, if many && index == 0 { far } else { on_link() })
        })
    });
    hops.collect()
}

fn namespaces(intent: &Intent, observed: &Observed) -> Namespaces {
    let state = |endpoint: &Endpoint| {
        if endpoint.netns.path().unwrap().contains("/no-") {
            return Err(NetnsProblem::NoSuchPath);
        }
        if !endpoint.addresses.is_empty() {
            return Ok(Vec::new());
        }
        let here = observed
            .addresses
            .keys()
            .filter(|key| key.netns == endpoint.netns && key.ifname == endpoint.ifname);
        Ok(here.map(|key| key.address.addr()).collect())
    };
    intent.endpoints.values().map(|e| (e.name.clone(), state(e))).collect()
}
