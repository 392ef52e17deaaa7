//! Ways to damage every object that a node has, listed from what is observed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use ciliate::kernel::bpf_map::Map;
use ciliate::kernel::{bpf, pins};
use ciliate::kinds::bpf_map::MapName;
use ciliate::kinds::{
    Observed, address, bpf_link, bpf_map_entry, link, neighbour, route, rule, sysctl,
};
use ciliate::net::Netns;

use crate::node::Node;
use crate::space::{Space, sh};

/// One way of damaging one object.
pub struct Sabotage {
    pub what: String,
    act: Box<dyn Fn()>,
}

impl Sabotage {
    /// Does it.
    pub fn act(&self) {
        (self.act)();
    }

    fn new(what: String, act: impl Fn() + 'static) -> Self {
        Self { what, act: Box::new(act) }
    }

    /// A shell script in a namespace.
    pub fn script(space: &Space, script: String) -> Self {
        let space = space.clone();
        Self::new(script.clone(), move || drop(space.sh(&script)))
    }
}

/// The namespace an object is in.
fn space(node: &Node, netns: &Netns) -> Space {
    match netns.path().and_then(|path| path.strip_prefix("/run/netns/")) {
        Some(name) => Space { name: name.to_string() },
        // One that ciliate made.
        None if netns.path().is_some() => Space { name: netns.to_string() },
        None => node.space.clone(),
    }
}

/// Namespaces of ours: taken away, half taken away, with something else in their place.
pub fn namespaces(node: &Node, observed: &Observed) -> Vec<Sabotage> {
    let mut all = Vec::new();
    for netns in observed.namespaces.keys() {
        for line in [
            format!("umount -l {netns}; rm {netns}"),
            format!("umount -l {netns}"),
            format!("mount --bind /proc/self/ns/net {netns}"),
            format!("umount -l {netns}; mount --bind /proc/self/ns/net {netns}"),
            format!("umount -l {netns}; mount --bind /proc/self/ns/uts {netns}"),
            format!("umount -l {netns}; rm -r {0}", node.runtime.join("netns").display()),
        ] {
            all.push(Sabotage::script(&node.space, line));
        }
    }
    all
}

/// Both ends of every link.
pub fn links(node: &Node, observed: &Observed) -> Vec<Sabotage> {
    let mut all = Vec::new();
    for (ifname, seen) in &observed.links {
        all.extend(link_end(&node.space, ifname.as_str(), &seen.end));
        if let Some(link::Peer { netns, ifname, end, .. }) = &seen.peer {
            all.extend(link_end(&space(node, netns), ifname.as_str(), end));
        }
    }
    all
}

fn link_end(space: &Space, name: &str, end: &link::End) -> Vec<Sabotage> {
    let arp = if end.arp { "off" } else { "on" };
    let lines = [
        format!("ip link del {name}"),
        format!("ip link set {name} down"),
        format!("ip link set {name} mtu 1400"),
        format!("ip link set {name} address 02:00:00:00:00:99"),
        format!("ip link set {name} arp {arp}"),
        format!("ip link set {name} alias ciliate-not"),
        format!("ip link set {name} alias ''"),
        format!("ip link set {name} group 0"),
        format!("ip link set {name} promisc on"),
        format!("ip link set {name} allmulticast on"),
        // The bridge stays: the link has to be taken out of it.
        format!(
            "ip link show bridge0 >/dev/null 2>&1 || ip link add bridge0 type bridge
             ip link set {name} master bridge0"
        ),
        // The daemon may be quicker, and have removed it.
        format!(
            "ip link set {name} down; ip link set {name} name stray; ip link set stray up || true"
        ),
    ];
    lines.into_iter().map(|line| Sabotage::script(space, line)).collect()
}

/// Addresses, routes, rules, neighbours.
pub fn addresses_and_routes(node: &Node, observed: &Observed) -> Vec<Sabotage> {
    let mut all = Vec::new();
    let mut sorts = BTreeSet::new();
    for address::Key { netns, ifname, address } in observed.addresses.keys() {
        for line in [
            format!("ip addr del {address} dev {ifname}"),
            format!("ip addr change {address} dev {ifname} valid_lft 3000 preferred_lft 2000"),
        ] {
            all.push(Sabotage::script(&space(node, netns), line));
        }
        let (v6, ip) = (address.addr().is_ipv6(), address.addr());
        // In every way, one of each sort.
        if !sorts.insert((v6, *ifname)) {
            continue;
        }
        let altered: &[&str] = match v6 {
            // The second is how an address is cut off without being taken away.
            false => {
                &["metric 7", "scope link", "scope host", "broadcast 10.9.9.9", "noprefixroute"]
            }
            true => &["metric 7", "home", "noprefixroute"],
        };
        let far_end = if v6 { "peer fd99::9/128" } else { "peer 10.9.9.9/32" };
        let altered = altered.iter().map(|given| format!("{address} {given}"));
        for given in altered.chain([format!("{ip} {far_end}")]) {
            // The daemon may have been quicker between the two.
            let line = format!(
                "ip addr del {address} dev {ifname}; ip addr add {given} dev {ifname} || true"
            );
            all.push(Sabotage::script(&space(node, netns), line));
        }
    }
    // In every way, one route of each sort; each of them in some way.
    let mut sorts = BTreeSet::new();
    for (key, seen) in &observed.routes {
        let sort = (key.dst.addr().is_ipv6(), seen.way.via.is_some(), seen.way.dev);
        let ways = route(&space(node, &key.netns), key, seen);
        let is_new = sorts.insert((sort, key.netns == Netns::HOST));
        all.extend(ways.into_iter().take(if is_new { usize::MAX } else { 2 }));
    }
    for rule::Key { ipv6, priority, table, .. } in observed.rules.keys() {
        all.extend(rule(&node.space, *ipv6, *priority, *table));
    }
    for neighbour::Key { ifname, address } in observed.neighbours.keys() {
        let entry = format!("{address} dev {ifname}");
        for line in [
            format!("ip neigh del {entry}"),
            format!("ip neigh replace {entry} lladdr 02:00:00:00:00:99 nud permanent"),
            format!("ip neigh replace {entry} nud stale"),
        ] {
            all.push(Sabotage::script(&node.space, line));
        }
    }
    all
}

/// Taken away, with another one in its place, with another one beside it.
fn rule(space: &Space, ipv6: bool, priority: u32, table: u32) -> Vec<Sabotage> {
    let (family, from) = if ipv6 { ("-6", "fd77::4") } else { ("-4", "1.2.3.4") };
    let place = format!("priority {priority} lookup {table}");
    let del = format!("ip {family} rule del {place}");
    let add = |selector: &str| format!("ip {family} rule add {selector} {place} proto 203");
    [
        del.clone(),
        format!("{del}; {}", add(&format!("from {from}"))),
        format!("{del}; {}", add(&format!("not from {from}"))),
        format!("{del}; {} suppress_prefixlength 24", add("")),
        format!("{del}; {}", add("fwmark 0x0/0xf0")),
        format!("{} ipproto tcp dport 80", add(&format!("to {from}"))),
        add("tos 0x10 iif lo"),
    ]
    .into_iter()
    .map(|line| Sabotage::script(space, line))
    .collect()
}

fn route(
    space: &Space,
    key: &route::Key,
    route::Seen { way: seen, .. }: &route::Seen,
) -> Vec<Sabotage> {
    let v6 = key.dst.addr().is_ipv6();
    let family = if v6 { "-6" } else { "-4" };
    let (dst, table) = (key.dst, key.table);
    let metric = if key.metric == 0 { String::new() } else { format!(" metric {}", key.metric) };
    let via = seen.via.map_or(String::new(), |via| format!(" via {via}"));
    let scope = if seen.scope == route::Scope::Link { " scope link" } else { "" };
    let dev = seen.dev.expect("a device");
    let to = format!("{via} dev {dev}");
    let place = format!("{dst} table {table}{metric} proto 203");
    let replace = format!("ip {family} route replace");
    // The kernel takes no two equal next hops of IPv6.
    let hops = match v6 {
        true => format!("nexthop via fe80::98 dev {dev} nexthop via fe80::99 dev {dev}"),
        false => format!("nexthop{to} weight 1 nexthop{to} weight 2"),
    };
    // Nor does it take an IPv6 route that differs from another one in a metric alone.
    let append = match v6 {
        true => format!("ip -6 route append {place} via fe80::97 dev {dev}"),
        false => format!("ip route append {place}{to}{scope} mtu 1322"),
    };
    let mut lines = vec![
        format!("ip {family} route del {place}"),
        format!("{replace} {place}{to}{scope} mtu 1333"),
        format!("{replace} {place}{to}{scope} advmss 1234"),
        format!("{replace} blackhole {place}"),
        format!("{replace} unreachable {place}"),
        format!("{replace} {place}{scope} {hops}"),
        append.clone(),
        format!("{replace} blackhole {place}; {append}"),
    ];
    if v6 {
        lines.push(format!("{replace} {place}{to} expires 3000"));
        lines.push(format!("ip -6 route add {place}{to} from fd77::/64"));
    } else {
        lines.push(format!("ip route add {place}{to}{scope} tos 0x10"));
    }
    // The router is an address of the node, which is no gateway by this way.
    if !via.is_empty() && dev.as_str() != "cilium_host" {
        lines.push(format!("{replace} {place}{to} onlink"));
    }
    lines.into_iter().map(|line| Sabotage::script(space, line)).collect()
}

/// Every setting gets each other value.
pub fn settings(node: &Node, observed: &Observed) -> Vec<Sabotage> {
    let mut all = Vec::new();
    for (sysctl::Key { netns, path }, seen) in &observed.sysctls {
        let others = ["0", "1"].into_iter().filter(|other| *other != &*seen.value);
        let lines = others.map(|other| format!("echo {other} >/proc/sys/{path}"));
        all.extend(lines.map(|line| Sabotage::script(&space(node, netns), line)));
    }
    all
}

/// The nftables table and everything in it.
pub fn nftables(node: &Node, observed: &Observed) -> Vec<Sabotage> {
    let mut lines = vec!["nft delete table inet ciliate".to_string()];
    for table in observed.nftables.values() {
        for chain in table.chains.keys() {
            lines.push(format!("nft flush chain inet ciliate {chain}"));
            lines.push(format!("nft add rule inet ciliate {chain} counter accept"));
            lines.push(format!("nft insert rule inet ciliate {chain} ip daddr 10.1.1.1 drop"));
            lines.push(format!(
                "for h in $(nft -a list chain inet ciliate {chain} | \
                 sed -n 's/.*masquerade.*handle //p'); \
                 do nft delete rule inet ciliate {chain} handle $h; break; done"
            ));
        }
        for (set, elements) in &table.sets {
            let v6 = elements.iter().next().is_some_and(|element| element.addr().is_ipv6());
            let more = if v6 { "2001:db8:77::/64" } else { "100.64.7.0/24" };
            lines.push(format!("nft add element inet ciliate {set} {{ {more} }}"));
            for element in elements {
                lines.push(format!("nft delete element inet ciliate {set} {{ {element} }}"));
            }
        }
    }
    for chain in observed.nftables.values().flat_map(|table| table.chains.keys()) {
        lines.push(format!("nft 'chain inet ciliate {chain} {{ policy drop; }}'"));
        lines.push(format!("nft add rule inet ciliate {chain} ip daddr 10.1.1.1 accept comment x"));
    }
    lines.push("nft 'add table inet ciliate { flags dormant; }'".into());
    for alone in [
        "add counter inet ciliate stranger",
        "add map inet ciliate stranger { type ipv4_addr : ipv4_addr; }",
    ] {
        lines.push(format!("nft '{alone}'"));
    }
    // A whole table of ours that differs in one property, put there in one step.
    let edit = |sed: &str| {
        format!(
            "(echo 'delete table inet ciliate'; nft list table inet ciliate | sed '{sed}') | nft -f -"
        )
    };
    for sed in [
        "s/priority srcnat/priority 77/",
        "s/hook output/hook forward/",
        "s/masquerade/masquerade comment \"x\"/",
        "s/flags interval/flags interval; auto-merge; comment \"x\"/",
    ] {
        lines.push(edit(sed));
    }
    lines.push("nft add chain inet ciliate stranger".into());
    lines.push("nft 'add set inet ciliate stranger { type ipv4_addr; }'".into());
    lines.into_iter().map(|line| Sabotage::script(&node.space, line)).collect()
}

/// Every entry of the maps: taken away, and given another value. The daemon knows what records of settings held;
/// the one of the namespace says whose the others are, and is believed.
pub fn map_entries(node: &Node, observed: &Observed) -> Vec<Sabotage> {
    let mut all = Vec::new();
    for (key, seen) in &observed.bpf_map_entries {
        let pin = pins::map(&node.bpf, key.map.def().name);
        if key.map.def().kind != ciliate::bpf_abi::MapKind::Array {
            let (pin, key) = (pin.clone(), key.clone());
            all.push(Sabotage::new(format!("delete {key}"), move || {
                let map = Map::open(&pin).expect("open the map");
                map.delete(&[&key.key]).expect("delete the entry");
            }));
        }
        let bpf_map_entry::Seen { mut value } = seen.clone();
        let place = altered_byte(key.map, value.len());
        if key.map != MapName::BEFORE {
            value[place] ^= 0xff;
        } else if bpf_map_entry::c_text(&key.key).starts_with("sysctl:") {
            value[place] = b'7';
        } else {
            continue;
        }
        let key = key.clone();
        all.push(Sabotage::new(format!("alter byte {place} of {key}"), move || {
            let map = Map::open(&pin).expect("open the map");
            map.update(&[(&key.key, &value)]).expect("alter the entry");
        }));
    }
    all
}

/// A byte whose right value follows from the configuration. In `ciliate_device` ids and addresses are
/// what the kernel remembers for us.
fn altered_byte(map: MapName, length: usize) -> usize {
    use ciliate::bpf_abi::{DeviceValue, Record};
    let fields = DeviceValue::FIELDS;
    let identity = fields.iter().find(|field| field.name == "identity").expect("a field").offset;
    match map {
        MapName::BEFORE => 0,
        map if map.def().name == "ciliate_device" => identity,
        _ => 4.min(length - 1),
    }
}

/// Pins, and attachments behind them.
pub fn bpf_objects(node: &Node, observed: &Observed) -> Vec<Sabotage> {
    let mut all = Vec::new();
    let remove = |pin: PathBuf| {
        Sabotage::new(format!("rm {}", pin.display()), move || {
            fs::remove_file(&pin).expect("remove the pin");
        })
    };
    for map in observed.bpf_maps.keys() {
        all.push(remove(pins::map(&node.bpf, map.def().name)));
    }
    for program in observed.bpf_programs.keys() {
        all.push(remove(pins::program(&node.bpf, &program.digest, &program.name)));
    }
    for (bpf_link::Key { ifname, program, .. }, seen) in &observed.bpf_links {
        if seen.mode != bpf_link::Mode::Tcx {
            continue;
        }
        let pin = pins::link(&node.bpf, ifname.as_str(), program);
        all.push(remove(pin.clone()));
        let line = format!("bpftool link detach pinned {}", pin.display());
        all.push(Sabotage::new(line.clone(), move || drop(sh(&line))));
        // Another program of ours in its place.
        let other = observed.bpf_programs.keys().find(|key| key.name != *program);
        let other = other.map(|key| pins::program(&node.bpf, &key.digest, &key.name));
        let other = other.expect("another program");
        let what = format!("link {ifname} {program} runs {}", other.display());
        all.push(Sabotage::new(what, move || {
            let (link, program) = (bpf::obj_get(&pin), bpf::obj_get(&other));
            bpf::link_update(link.expect("the link"), program.expect("the program"))
                .expect("swap the program");
        }));
    }
    let folder = node.bpf.join("links");
    // Clsact filters have no pins.
    if folder.exists() {
        all.push(Sabotage::new(format!("rm -r {}", folder.display()), move || {
            fs::remove_dir_all(&folder).expect("remove the links");
        }));
    }
    all
}

/// Filters, where programs are attached by clsact.
pub fn filters(node: &Node, observed: &Observed) -> Vec<Sabotage> {
    let mut all = Vec::new();
    for bpf_link::Key { ifname, hook, .. } in observed.bpf_links.keys() {
        let hook = match hook {
            bpf_link::Hook::Ingress => "ingress",
            bpf_link::Hook::Egress => "egress",
        };
        let line = format!("tc filter del dev {ifname} {hook} pref 1");
        all.push(Sabotage::script(&node.space, line));
        // On the underlay device others have filters too.
        if ifname.as_str() != "eth0" {
            let line = format!("tc qdisc del dev {ifname} clsact");
            all.push(Sabotage::script(&node.space, line));
        }
    }
    all
}
