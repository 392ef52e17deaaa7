//! Strategies for desired and observed objects of every kind.
//!
//! Names, numbers and values come from small pools, so that objects collide. A *wild* world is any
//! combination whatsoever. A *closed* world is one that `lower` and `observe` could have returned:
//! what is desired stands on desired links, maps and programs or on devices that aren't ours, and a
//! link that isn't desired shows no peer. Objects that are altered, lost, foreign, left over, attached
//! to a device that is gone, or that run an unknown program are in both.

#[path = "worlds/encryption.rs"]
mod encryption;
#[path = "worlds/services.rs"]
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ciliate::kinds::bpf_link::{Hook, Mode};
use ciliate::kinds::bpf_map::{Layout, MapName};
use ciliate::kinds::route::Scope;
use ciliate::kinds::*;
use ciliate::net::{IfName, Mac, Netns};
pub use encryption::{wireguard_keys, wireguard_peers, wireguards};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
pub use services::{lb_backends, lb_services, maglev_tables};

/// What is desired and what is there.
#[derive(Debug, Clone)]
pub struct World {
    pub desired: Desired,
    pub observed: Observed,
}

/// Devices that are not ours.
const FOREIGN: &[&str] = &["eth0", "eth1"];
/// Links that may be ours: name, namespace and name of the other end.
const LINKS: &[(&str, &str, &str)] = &[
    ("cilium_host", "", "cilium_net"),
    ("lxc1", "/run/netns/one", "eth0"),
    ("lxc2", "/run/netns/two", "eth0"),
    ("lxc3", "/run/netns/two", "eth1"),
    ("lxc_health", HEALTH, "cilium"),
];
/// Devices of tunnels, which have one end.
const TUNNELS: &[(&str, link::Protocol)] =
    &[("cilium_vxlan", link::Protocol::Vxlan), ("cilium_geneve", link::Protocol::Geneve)];
/// The device that encrypts.
const WIREGUARD: &str = "cilium_wg0";
/// A namespace of ours.
const HEALTH: &str = "/run/ciliate/netns/health";
const OBJECTS_MAX: usize = 8;

pub fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn netns(path: &str) -> Netns {
    if path.is_empty() { Netns::HOST } else { Netns::at(path) }
}

/// Every end of every link: namespace, device, and the link object it belongs to.
fn ends() -> Vec<(Netns, IfName, Option<IfName>)> {
    let mut ends: Vec<_> = FOREIGN.iter().map(|dev| (Netns::HOST, name(dev), None)).collect();
    for (link, path, other) in LINKS {
        ends.push((Netns::HOST, name(link), Some(name(link))));
        ends.push((netns(path), name(other), Some(name(link))));
    }
    ends.extend(TUNNELS.iter().map(|(link, _)| (Netns::HOST, name(link), Some(name(link)))));
    ends.push((Netns::HOST, name(WIREGUARD), Some(name(WIREGUARD))));
    ends
}

fn address() -> impl Strategy<Value = IpAddr> {
    let pool = ["10.0.0.1", "10.0.0.2", "10.0.1.9", "fd00::1", "fd00::2"];
    select(pool.map(|ip| ip.parse().unwrap()).to_vec())
}

fn mac() -> impl Strategy<Value = Mac> {
    (1..4u8).prop_map(|last| Mac([2, 0, 0, 0, 0, last]))
}

fn ifindex() -> impl Strategy<Value = u32> {
    10..14u32
}

fn link_name() -> impl Strategy<Value = IfName> {
    let pairs = LINKS.iter().map(|(link, ..)| name(link));
    let bare = TUNNELS.iter().map(|(link, _)| name(link)).chain([name(WIREGUARD)]);
    select(pairs.chain(bare).collect::<Vec<_>>())
}

fn end() -> impl Strategy<Value = link::End> {
    let text = select(vec!["", "ciliate router", "ciliate tunnel", "some \"text\"\n"]);
    let altered = (any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (mac(), select(vec![1280, 1500u32]), any::<bool>(), any::<bool>(), text, altered).prop_map(
        |(mac, mtu_bytes, up, arp, alias, (grouped, enslaved, promiscuous))| link::End {
            mac,
            mtu_bytes,
            up,
            arp,
            alias: alias.into(),
            grouped,
            enslaved,
            promiscuous,
        },
    )
}

fn peer(link: IfName) -> impl Strategy<Value = link::Peer> {
    let known = LINKS.iter().find(|(known, ..)| name(known) == link);
    // What holds the name of a tunnel's device may be one end of a pair.
    let (_, path, other) = known.unwrap_or(&("", "", "stray"));
    let ifname = prop_oneof![4 => Just(name(other)), 1 => Just(name("renamed"))];
    (Just(netns(path)), ifname, option::of(ifindex()), end())
        .prop_map(|(netns, ifname, ifindex, end)| link::Peer { netns, ifname, ifindex, end })
}

pub fn namespaces() -> impl Strategy<Value = (Netns, netns::Spec, netns::Seen)> {
    use netns::State::{Apart, Empty, Foreign, Node, OtherKind};
    let path = prop_oneof![2 => Just(HEALTH), 1 => Just("/run/ciliate/netns/other")];
    (path, select(vec![Apart, Node, OtherKind, Empty, Foreign]))
        .prop_map(|(path, state)| (Netns::at(path), netns::Spec, netns::Seen { state }))
}

fn port() -> impl Strategy<Value = u16> {
    select(vec![8472, 6081u16])
}

fn form(link: IfName) -> impl Strategy<Value = link::Form> {
    let protocol = TUNNELS.iter().find(|(known, _)| name(known) == link).map(|(_, p)| *p);
    (option::of(peer(link)), port()).prop_map(move |(peer, port)| match protocol {
        None if link == name(WIREGUARD) => link::Form::Wireguard,
        None => link::Form::Veth { peer },
        Some(protocol) => link::Form::Tunnel { protocol, port },
    })
}

/// Kind, peer and tunnel of a link that is there.
fn seen_form(
    link: IfName,
) -> impl Strategy<Value = (String, Option<link::Peer>, Option<link::Tunnel>)> {
    let kind = select(vec!["veth", "veth", "dummy", "vxlan", "geneve", "wireguard"]);
    let tunnel = (port(), prop::bool::weighted(0.8));
    let tunnel = tunnel.prop_map(|(port, flow_based)| link::Tunnel { port, flow_based });
    (kind, option::of(peer(link)), tunnel).prop_map(|(kind, peer, tunnel)| match kind {
        "vxlan" | "geneve" => (kind.to_string(), None, Some(tunnel)),
        "wireguard" => (kind.to_string(), None, None),
        kind => (kind.to_string(), peer, None),
    })
}

pub fn links() -> impl Strategy<Value = (IfName, link::Spec, link::Seen)> {
    link_name().prop_flat_map(|key| {
        let spec = (ifindex(), end(), form(key));
        let seen = (any::<bool>(), ifindex(), end(), seen_form(key));
        (spec, seen).prop_map(move |((ifindex, end, form), seen)| {
            let spec = link::Spec { ifindex, end, form };
            let (owned, ifindex, end, (kind, peer, tunnel)) = seen;
            (key, spec, link::Seen { owned, kind, ifindex, end, peer, tunnel })
        })
    })
}

pub fn addresses() -> impl Strategy<Value = (address::Key, address::Spec, address::Seen)> {
    let altered = select(vec![String::new(), "scope link".into()]);
    let seen = (any::<bool>(), any::<bool>(), altered);
    (select(ends()), address(), link_name(), seen).prop_map(|(end, ip, other, seen)| {
        let (netns, ifname, link) = end;
        let key = address::Key { netns, ifname, address: IpNet::from(ip) };
        let (owned, expires, altered) = seen;
        let seen = address::Seen { owned, expires, altered };
        (key, address::Spec { link: link.unwrap_or(other) }, seen)
    })
}

fn way(dev: IfName) -> impl Strategy<Value = route::Way> {
    let scope = select(vec![Scope::Universe, Scope::Link, Scope::Other(200)]);
    (option::of(address()), option::of(address()), scope, option::of(Just(1400))).prop_map(
        move |(via, src, scope, mtu_bytes)| {
            let dev = Some(dev);
            route::Way { via, dev, src, scope, mtu_bytes }
        },
    )
}

/// A route as found: altered, with others for the same packets, somebody else's, leading nowhere.
fn route_seen(dev: IfName, ours: bool) -> impl Strategy<Value = route::Seen> {
    let strange = prop_oneof![3 => Just(""), 1 => Just("blackhole"), 1 => Just("onlink expires")];
    let more = prop_oneof![3 => Just(0u32), 1 => 1..3u32];
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    (way(dev), strange, more, flags).prop_map(move |(way, strange, more, (foreign, nowhere))| {
        // One on a device of ours goes with that, which makes room in the middle of a plan. So does one
        // from an address of ours.
        let foreign = foreign && !ours;
        let dev = way.dev.filter(|_| !nowhere);
        let src = way.src.filter(|_| !foreign);
        let way = route::Way { dev, src, ..way };
        route::Seen { way, strange: strange.into(), more: if foreign { 0 } else { more }, foreign }
    })
}

fn only() -> impl Strategy<Value = Option<Box<route::Only>>> {
    let from = option::of(Just("fd00:1::/64".parse::<IpNet>().unwrap()));
    let only = (1..4u8, from).prop_map(|(tos, from)| Box::new(route::Only { tos: tos * 4, from }));
    prop_oneof![4 => Just(None), 1 => only.prop_map(Some)]
}

pub fn routes() -> impl Strategy<Value = (route::Key, route::Spec, route::Seen)> {
    let dst = ["0.0.0.0/0", "10.0.0.0/24", "10.0.0.1/32", "::/0", "fd00::/80", "fd00::1/128"];
    let dst = select(dst.map(|net| net.parse::<IpNet>().unwrap()).to_vec());
    let place = (select(ends()), select(vec![254, 2005u32]), dst);
    let place = place.prop_flat_map(|(end, table, dst)| {
        let dev = end.1;
        let ours = end.2.is_some();
        (Just((end, table, dst)), only(), way(dev), route_seen(dev, ours))
    });
    place.prop_map(|(((netns, _, link), table, dst), only, route, seen)| {
        let key = route::Key { only, ..route::Key::in_table(netns, table, dst) };
        (key, route::Spec { route, link }, seen)
    })
}

pub fn rules() -> impl Strategy<Value = (rule::Key, rule::Spec, rule::Seen)> {
    let mark = select(vec![None, Some((0xf00, 0xfff))]);
    let other = rule::Other { text: "from 1.2.3.4/32".into(), message: vec![2, 0, 32] };
    let other = prop_oneof![3 => Just(None), 1 => Just(Some(Box::new(other)))];
    (any::<bool>(), 110..112u32, mark, 2004..2006u32, other).prop_map(
        |(ipv6, priority, fwmark, table, other)| {
            (rule::Key { ipv6, priority, fwmark, table, other }, rule::Spec, rule::Seen)
        },
    )
}

pub fn neighbours() -> impl Strategy<Value = (neighbour::Key, neighbour::Spec, neighbour::Seen)> {
    let dev = prop_oneof![3 => select(FOREIGN).prop_map(name), 1 => link_name()];
    (dev, address(), mac(), any::<bool>(), option::of(mac()), any::<bool>()).prop_map(
        |(ifname, address, mac, owned, seen, permanent)| {
            let key = neighbour::Key { ifname, address };
            (key, neighbour::Spec { mac }, neighbour::Seen { owned, mac: seen, permanent })
        },
    )
}

pub fn sysctls() -> impl Strategy<Value = (sysctl::Key, sysctl::Spec, sysctl::Seen)> {
    // Forwarding of `all` changes others along: the interesting case.
    let dev = prop_oneof![2 => Just("all"), 3 => select(vec!["default", "eth0", "cilium_host", "lxc1", "cilium_vxlan"])];
    let other = select(vec!["rp_filter", "accept_redirects", "accept_ra"]);
    let what = prop_oneof![2 => Just("forwarding"), 1 => other];
    let place = prop_oneof![4 => Just(""), 1 => Just("/run/netns/one")];
    let value = || select(vec!["0", "1", "2"]);
    (place, prop_oneof![3 => Just("ipv4"), 1 => Just("ipv6")], dev, what, value(), value())
        .prop_map(|(path, family, dev, what, value, seen)| {
            let file: Arc<str> = format!("net/{family}/conf/{dev}/{what}").into();
            let ours = LINKS.iter().any(|(link, ..)| *link == dev) || dev == "cilium_vxlan";
            let needs = if ours { vec![ObjectKey::Link(name(dev))] } else { Vec::new() };
            let key = sysctl::Key { netns: netns(path), path: file };
            let spec = sysctl::Spec { value: value.into(), needs };
            (key, spec, sysctl::Seen { value: seen.into() })
        })
}

fn map_name() -> impl Strategy<Value = MapName> {
    select(MapName::all().collect::<Vec<_>>())
}

fn map_names() -> impl Strategy<Value = BTreeSet<MapName>> {
    let all: Vec<_> = MapName::all().collect();
    let count = all.len();
    subsequence(all, 0..=count).prop_map(|maps| maps.into_iter().collect())
}

pub fn bpf_maps() -> impl Strategy<Value = (MapName, Layout, Layout)> {
    (map_name(), any::<bool>()).prop_map(|(map, altered)| {
        let spec = Layout::of(map);
        let value_size = spec.value_size + if altered { 8 } else { 0 };
        (map, spec, Layout { value_size, ..spec })
    })
}

pub fn bpf_old_maps() -> impl Strategy<Value = (MapName, bpf_old_map::Spec, bpf_old_map::Seen)> {
    map_name().prop_map(|map| (map, bpf_old_map::Spec, bpf_old_map::Seen))
}

pub fn bpf_map_entries()
-> impl Strategy<Value = (bpf_map_entry::Key, bpf_map_entry::Spec, bpf_map_entry::Seen)> {
    let value = || prop_oneof![0..3u8, Just(255)];
    let leads_to = prop_oneof![2 => Just(None), 1 => link_name().prop_map(Some)];
    let links = (option::of(link_name()), leads_to);
    // The entry of the node is one that tunnels wait for.
    let map = prop_oneof![3 => map_name(), 1 => Just(bpf_map_entry::node().map)];
    (map, 0..4u8, value(), value(), links, any::<bool>()).prop_map(
        |(map, key, want, seen, (link, leads_to), odd)| {
            let def = map.def();
            // Bytes of a size that no record has are listed as well, as hexadecimal digits.
            let bytes = |byte, size| vec![byte; if odd { 3 } else { size as usize }];
            let key = bpf_map_entry::Key { map, key: bytes(key, def.key_size) };
            let spec = bpf_map_entry::Spec {
                value: bytes(want, def.value_size),
                link,
                leads_to: leads_to.into_iter().map(ObjectKey::Link).collect(),
            };
            (key, spec, bpf_map_entry::Seen { value: bytes(seen, def.value_size) })
        },
    )
}

fn program() -> impl Strategy<Value = bpf_program::Key> {
    let name = select(vec!["cil_from_container", "cil_from_host"]);
    (name, select(vec!["0123456789abcdef", "fedcba9876543210"]))
        .prop_map(|(name, digest)| bpf_program::Key { name: name.into(), digest: digest.into() })
}

pub fn bpf_programs()
-> impl Strategy<Value = (bpf_program::Key, bpf_program::Spec, bpf_program::Seen)> {
    (program(), map_names(), map_names()).prop_map(|(key, maps, seen)| {
        let globals = bpf_program::Globals::new();
        let spec = bpf_program::Spec { object: "bpf_lxc".into(), maps, globals };
        (key, spec, bpf_program::Seen { maps: seen })
    })
}

pub fn bpf_links() -> impl Strategy<Value = (bpf_link::Key, bpf_link::Spec, bpf_link::Seen)> {
    let host: Vec<_> = ends().into_iter().filter(|(netns, ..)| *netns == Netns::HOST).collect();
    let mode = || select(vec![Mode::Tcx, Mode::Clsact]);
    let hook = select(vec![Hook::Ingress, Hook::Egress]);
    let spec = (select(host), hook, program(), mode(), ifindex(), any::<bool>());
    let seen_index = prop_oneof![4 => ifindex(), 1 => Just(0)];
    let weighted = proptest::bool::weighted;
    let flags = (any::<bool>(), any::<bool>(), weighted(0.2), weighted(0.2));
    let seen = (option::of(program()), mode(), seen_index, flags);
    (spec, seen).prop_map(|((end, hook, program, mode, ifindex, qdisc_ours), seen)| {
        let (_, ifname, link) = end;
        let key = bpf_link::Key { ifname, hook, program: program.name.clone() };
        let spec = bpf_link::Spec { program, mode, ifindex, link, qdisc_ours };
        let (program, mode, ifindex, (twice, qdisc_ours, foreign, renamed)) = seen;
        // What is left of an attachment whose device is gone is a pin.
        let mode = if ifindex == 0 { Mode::Tcx } else { mode };
        // One on a device of ours goes with that, which makes room in the middle of a plan.
        let foreign = foreign && link.is_none() && mode == Mode::Clsact && spec.mode == mode;
        let twice = twice && ifindex != 0 && !foreign;
        let program = program.filter(|_| !foreign);
        let foreign = foreign.then_some(bpf_link::Obstacle::Filter);
        let renamed = renamed && mode == Mode::Tcx && ifindex != 0;
        let pinned_as = renamed.then(|| name("before"));
        let seen = bpf_link::Seen { program, mode, ifindex, twice, qdisc_ours, foreign, pinned_as };
        (key, spec, seen)
    })
}

pub fn cgroup_links()
-> impl Strategy<Value = (cgroup_link::Key, cgroup_link::Spec, cgroup_link::Seen)> {
    let group = || select(vec![0_u64, 1, 7]);
    (program(), 1..3_u64, option::of(program()), group()).prop_map(|(program, want, seen, id)| {
        let key = cgroup_link::Key { program: program.name.clone() };
        let (attach, cgroup) = (cgroup_link::Attach::Connect4, "/sys/fs/cgroup".into());
        let spec = cgroup_link::Spec { program, attach, cgroup, cgroup_id: want };
        (key, spec, cgroup_link::Seen { program: seen, cgroup_id: id })
    })
}

pub fn xdp_links() -> impl Strategy<Value = (xdp_link::Key, xdp_link::Spec, xdp_link::Seen)> {
    let mode = || select(vec![None, Some(xdp_link::Mode::Native), Some(xdp_link::Mode::Generic)]);
    let of_device = (1..4_u32, program(), any::<bool>());
    let found = (option::of(program()), mode(), any::<bool>());
    (of_device, found).prop_map(|((ifindex, program, or_generic), (seen, mode, foreign))| {
        let ifname = name(FOREIGN[0]);
        let spec = xdp_link::Spec { program, ifname, or_generic };
        let seen = match foreign {
            true => xdp_link::Seen { program: None, mode: None, foreign: Some(ifname) },
            false => xdp_link::Seen { program: seen, mode, foreign: None },
        };
        (xdp_link::Key { ifindex }, spec, seen)
    })
}

fn table() -> impl Strategy<Value = nftables::Table> {
    let nets = ["10.0.0.0/24", "10.1.0.0/16", "fd00::/80"].map(|net| net.parse::<IpNet>().unwrap());
    let nets = || subsequence(nets.to_vec(), 0..=3);
    let strange = option::of(Just("map m".to_string()));
    (nets(), nets(), strange).prop_map(|(sources, direct, strange)| {
        let mut table = nftables::masquerade(&sources, &direct);
        table.strange.extend(strange);
        table
    })
}

pub fn nftables() -> impl Strategy<Value = (nftables::Key, nftables::Table, nftables::Table)> {
    (table(), table()).prop_map(|(spec, seen)| {
        (nftables::Key, nftables::Table { strange: Vec::new(), ..spec }, seen)
    })
}

fn origin() -> impl Strategy<Value = Origin> {
    let names = || select(vec!["a", "b"]).prop_map(Arc::from);
    prop_oneof![
        Just(Origin::Node),
        Just(Origin::Routing),
        names().prop_map(Origin::Peer),
        names().prop_map(Origin::Endpoint),
        names().prop_map(Origin::Service),
    ]
}

/// Objects of one kind under keys from a pool: desired and not there, there and not desired, there and
/// as asked, there and otherwise.
fn both<K: Kind>(
    objects: impl Strategy<Value = (K::Key, K::Spec, K::Seen)>,
) -> impl Strategy<Value = (WantedMap<K>, SeenMap<K>)> {
    let object = objects.prop_flat_map(|(key, spec, seen)| {
        let same = K::realise(&key, &spec);
        let seen = prop_oneof![1 => Just(None), 1 => Just(Some(same)), 2 => Just(Some(seen))];
        (Just(key), (Just(spec), origin(), any::<bool>(), seen))
    });
    vec(object, 0..=OBJECTS_MAX).prop_map(|objects| {
        let (mut wanted, mut found) = (BTreeMap::new(), BTreeMap::new());
        for (key, (spec, origin, is_wanted, seen)) in objects {
            if is_wanted {
                wanted.insert(key.clone(), Wanted { spec, origin });
            }
            found.extend(seen.map(|seen| (key, seen)));
        }
        (wanted, found)
    })
}

/// Names of other ends that something else has.
fn taken() -> impl Strategy<Value = BTreeMap<IfName, link::Taken>> {
    let one = prop_oneof![9 => Just(None), 1 => any::<bool>().prop_map(Some)];
    vec(one, LINKS.len()).prop_map(|owned| {
        let links = LINKS.iter().zip(owned).filter_map(|(link, owned)| Some((link, owned?)));
        links
            .map(|((link, path, other), owned)| {
                (name(link), link::Taken { netns: netns(path), ifname: name(other), owned })
            })
            .collect()
    })
}

macro_rules! strategy_of_all {
    ($($kind:ident $field:ident $module:ident,)*) => {
        /// Any combination whatsoever.
        pub fn wild() -> impl Strategy<Value = World> {
            let world = Just(World { desired: Desired::default(), observed: Observed::default() });
            let world = world.boxed();
            $(let world = (world, both::<$module::$kind>($field())).prop_map(
                |(mut world, (wanted, seen))| {
                    world.desired.$field = wanted;
                    world.observed.$field = seen;
                    world
                },
            ).boxed();)*
            (world, taken()).prop_map(|(mut world, taken)| {
                world.observed.taken = taken;
                world
            })
        }
    };
}
ciliate::for_each_kind!(strategy_of_all);

/// A world that `lower` and `observe` could have returned.
pub fn closed() -> impl Strategy<Value = World> {
    wild().prop_map(close)
}

/// What is attached is asked for.
fn want_programs(desired: &mut Desired) {
    let attached = desired.bpf_links.values().map(|wanted| &wanted.spec.program);
    let to_groups = desired.cgroup_links.values().map(|wanted| &wanted.spec.program);
    let to_drivers = desired.xdp_links.values().map(|wanted| &wanted.spec.program);
    for program in attached.chain(to_groups).chain(to_drivers) {
        let (maps, globals) = (BTreeSet::new(), bpf_program::Globals::new());
        let spec = bpf_program::Spec { object: "bpf_lxc".into(), maps, globals };
        let program = desired.bpf_programs.entry(program.clone());
        program.or_insert(Wanted { spec, origin: Origin::Node });
    }
}

fn close(mut world: World) -> World {
    let World { desired, observed } = &mut world;
    let links: BTreeSet<IfName> = desired.links.keys().copied().collect();
    let ours = |link: &IfName| links.contains(link);
    // A namespace of ours is asked for along with what is in it.
    if ours(&name("lxc_health")) {
        let wanted = Wanted { spec: netns::Spec, origin: Origin::Node };
        desired.namespaces.entry(Netns::at(HEALTH)).or_insert(wanted);
    }
    desired
        .addresses
        .retain(|key, wanted| ours(&wanted.spec.link) && !FOREIGN.contains(&key.ifname.as_str()));
    let addresses: BTreeSet<address::Key> = desired.addresses.keys().cloned().collect();
    // Nobody asks for what a map leaves behind.
    desired.bpf_old_maps.clear();
    desired.routes.retain(|_, wanted| wanted.spec.link.is_none_or(|link| ours(&link)));
    for (key, wanted) in &mut desired.routes {
        let netns = key.netns.clone();
        let Some(ifname) = wanted.spec.route.dev else { continue };
        let holds = |src: &IpAddr| {
            let address = IpNet::from(*src);
            addresses.contains(&address::Key { netns: netns.clone(), ifname, address })
        };
        wanted.spec.route.src = wanted.spec.route.src.filter(holds);
    }
    let has_link = |need: &ObjectKey| matches!(need, ObjectKey::Link(link) if ours(link));
    encryption::close(&links, desired, observed);
    desired.sysctls.retain(|_, wanted| wanted.spec.needs.iter().all(has_link));
    desired.neighbours.retain(|key, _| FOREIGN.contains(&key.ifname.as_str()));
    let origin = Origin::Node;
    desired.bpf_links.retain(|_, wanted| wanted.spec.link.is_none_or(|link| ours(&link)));
    want_programs(desired);
    let with_link = |wanted: &Wanted<bpf_map_entry::Spec>| {
        wanted.spec.link.is_none_or(|l| ours(&l)) && wanted.spec.leads_to.iter().all(has_link)
    };
    desired.bpf_map_entries.retain(|_, wanted| with_link(wanted));
    let of_programs = desired.bpf_programs.values().flat_map(|wanted| &wanted.spec.maps);
    let of_entries = desired.bpf_map_entries.keys().map(|key| &key.map);
    // Nobody asks for what is left under a number; and a service has backends and a table that are asked for.
    desired.lb_services.retain(|key, _| matches!(key, lb_service::Key::Frontend(_)));
    let lb_maps: Vec<MapName> =
        ciliate::bpf_abi::LB_MAPS.iter().map(|name| MapName::of_abi(name)).collect();
    let of_entries = of_entries.chain(&lb_maps);
    for map in of_programs.chain(of_entries).copied() {
        let spec = Layout::of(map);
        desired.bpf_maps.entry(map).or_insert(Wanted { spec, origin: origin.clone() });
    }
    // `observe` looks for the other end where it is wanted, and nowhere else.
    for (key, seen) in &mut observed.links {
        let wanted = desired.links.get(key).and_then(|wanted| wanted.spec.peer());
        seen.peer = seen.peer.take().filter(|_| wanted.is_some());
    }
    // Nothing is seen in a namespace that isn't there.
    let there = observed.namespaces.get(&Netns::at(HEALTH)).map(|seen| seen.state);
    if !matches!(there, Some(netns::State::Apart | netns::State::Node)) {
        netns::Netns::cascade(
            &Netns::at(HEALTH),
            &netns::Seen { state: netns::State::Empty },
            observed,
        );
    }
    let has_peer =
        |link: &IfName| desired.links.get(link).is_some_and(|wanted| wanted.spec.peer().is_some());
    observed.taken.retain(|link, _| has_peer(link));
    without_maps(observed);
    world
}

/// Entries can't be in a map that isn't there.
fn without_maps(observed: &mut Observed) {
    observed.bpf_map_entries.retain(|key, _| observed.bpf_maps.contains_key(&key.map));
    for name in ciliate::bpf_abi::LB_MAPS.iter().map(|name| MapName::of_abi(name)) {
        if !observed.bpf_maps.contains_key(&name) {
            lb_backend::lose(name, observed);
            maglev_table::lose(name, observed);
            lb_service::lose(name, observed);
        }
    }
}

/// Objects that `close` or a strategy never makes would make laws empty; this counts what there is.
pub fn size(world: &World) -> usize {
    let counts = world.desired.counts().into_iter().chain(world.observed.owned_counts());
    counts.map(|(_, count)| count).sum()
}
