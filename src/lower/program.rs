//! Maps: all of them, always. Programs: those that are attached, and that of endpoints, so that adding an endpoint
//! loads nothing. Pure.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use sha2::{Digest, Sha256};

use super::{Lowering, acceleration, before, socket, want};
use crate::bpf_abi::{
    CILIATE_DEVICE, CILIATE_ENCRYPTION, CILIATE_EVENTS, CILIATE_LOST, CILIATE_MAGLEV,
    CILIATE_MAGLEV_INDEX, CILIATE_MONITOR, CILIATE_NODE, CILIATE_UNDERLAY, CILIUM_CT_ANY4,
    CILIUM_CT_ANY6, CILIUM_CT4, CILIUM_CT6, CILIUM_FRAG4, CILIUM_FRAG6, CILIUM_IPCACHE,
    CILIUM_LB_AFFINITY_MATCH, CILIUM_LB4_AFFINITY, CILIUM_LB4_BACKENDS, CILIUM_LB4_REVERSE_NAT,
    CILIUM_LB4_REVERSE_SK, CILIUM_LB4_SERVICES, CILIUM_LB4_SOURCE_RANGE, CILIUM_LB6_AFFINITY,
    CILIUM_LB6_BACKENDS, CILIUM_LB6_REVERSE_NAT, CILIUM_LB6_REVERSE_SK, CILIUM_LB6_SERVICES,
    CILIUM_LB6_SOURCE_RANGE, CILIUM_LXC, CILIUM_METRICS, CILIUM_SNAT4, CILIUM_SNAT6,
    MAGLEV_TABLE_SIZE,
};
use crate::bpf_objects::{OBJECTS, Object};
use crate::intent::Intent;
use crate::kinds::bpf_link::{self, BpfLink, Hook};
use crate::kinds::bpf_map::{BpfMap, Layout, MapName};
use crate::kinds::bpf_map_entry::hex;
use crate::kinds::bpf_program::{self, BpfProgram, Globals};
use crate::kinds::{Origin, record};
use crate::net::IfName;

/// The object of the node's own devices.
const HOST: &str = "bpf_host";

/// The program at an endpoint's device.
pub(super) const FROM_CONTAINER: &str = "cil_from_container";

/// Bytes of the digest that name a build.
const DIGEST_BYTES: usize = 8;

/// What every program that counts has: its events are told along.
const COUNTING: &[&str] = &[CILIATE_EVENTS, CILIATE_LOST, CILIATE_MONITOR, CILIUM_METRICS];
/// What every program that delivers to endpoints has.
const DELIVERING: &[&str] = &[
    CILIATE_NODE,
    CILIUM_CT4,
    CILIUM_CT6,
    CILIUM_CT_ANY4,
    CILIUM_CT_ANY6,
    CILIUM_FRAG4,
    CILIUM_FRAG6,
    CILIUM_IPCACHE,
    CILIUM_LB4_REVERSE_NAT,
    CILIUM_LB6_REVERSE_NAT,
    CILIUM_LXC,
];
/// What programs have that choose backends.
const BALANCING: &[&str] = &[
    CILIUM_LB_AFFINITY_MATCH,
    CILIUM_LB4_AFFINITY,
    CILIUM_LB4_BACKENDS,
    CILIUM_LB4_SERVICES,
    CILIUM_LB6_AFFINITY,
    CILIUM_LB6_BACKENDS,
    CILIUM_LB6_SERVICES,
];
/// What programs have that connect sockets to backends.
const ASKING: &[&str] = &[CILIUM_IPCACHE, CILIUM_LB_AFFINITY_MATCH];
const SOCKET4: &[&str] = &[CILIUM_LB4_AFFINITY, CILIUM_LB4_BACKENDS, CILIUM_LB4_SERVICES];
const SOCKET6: &[&str] = &[CILIUM_LB6_AFFINITY, CILIUM_LB6_BACKENDS, CILIUM_LB6_SERVICES];

/// What a program has that only sees what leaves the node.
const LEAVING: &[&str] = &[
    CILIATE_NODE,
    CILIUM_CT4,
    CILIUM_CT6,
    CILIUM_CT_ANY4,
    CILIUM_CT_ANY6,
    CILIUM_FRAG4,
    CILIUM_FRAG6,
    CILIUM_LB4_REVERSE_NAT,
    CILIUM_LB6_REVERSE_NAT,
    CILIUM_LXC,
];
/// What programs have that know clients outside.
const OUTSIDE: &[&str] = &[CILIUM_SNAT4, CILIUM_SNAT6];
/// What those have that let them in.
const ADMITTING: &[&str] = &[
    CILIATE_MAGLEV,
    CILIATE_MAGLEV_INDEX,
    CILIATE_UNDERLAY,
    CILIUM_LB4_SOURCE_RANGE,
    CILIUM_LB6_SOURCE_RANGE,
];

/// The maps a program uses. A test compares this with what the kernel says of loaded programs.
pub fn maps_of(program: &str) -> BTreeSet<MapName> {
    let parts: &[&[&str]] = match program {
        FROM_CONTAINER => {
            &[COUNTING, DELIVERING, BALANCING, OUTSIDE, &[CILIATE_DEVICE, CILIATE_ENCRYPTION]]
        }
        "cil_from_host" => &[COUNTING, DELIVERING, OUTSIDE, &[CILIATE_UNDERLAY]],
        "cil_from_netdev" => &[COUNTING, DELIVERING, BALANCING, OUTSIDE, ADMITTING],
        "cil_from_overlay" => &[COUNTING, DELIVERING, OUTSIDE],
        "cil_to_netdev" => {
            &[COUNTING, LEAVING, OUTSIDE, &[CILIATE_ENCRYPTION, CILIATE_UNDERLAY, CILIUM_IPCACHE]]
        }
        "cil_xdp_entry" => {
            &[COUNTING, DELIVERING, BALANCING, OUTSIDE, ADMITTING, &[CILIATE_ENCRYPTION]]
        }
        "cil_from_wireguard" | "cil_to_wireguard" => &[COUNTING, &[CILIUM_IPCACHE]],
        "cil_to_overlay" => &[],
        "cil_sock4_connect" | "cil_sock4_sendmsg" => &[ASKING, SOCKET4, &[CILIUM_LB4_REVERSE_SK]],
        "cil_sock6_connect" | "cil_sock6_sendmsg" => {
            &[ASKING, SOCKET4, SOCKET6, &[CILIUM_LB4_REVERSE_SK, CILIUM_LB6_REVERSE_SK]]
        }
        "cil_sock4_post_bind" => &[&[CILIUM_IPCACHE, CILIUM_LB4_SERVICES]],
        "cil_sock6_post_bind" => &[&[CILIUM_IPCACHE, CILIUM_LB4_SERVICES, CILIUM_LB6_SERVICES]],
        "cil_sock4_recvmsg" | "cil_sock4_getpeername" => &[&[CILIUM_LB4_REVERSE_SK]],
        "cil_sock6_recvmsg" | "cil_sock6_getpeername" | "cil_sock_release" => {
            &[&[CILIUM_LB4_REVERSE_SK, CILIUM_LB6_REVERSE_SK]]
        }
        _ => &[COUNTING],
    };
    parts.iter().flat_map(|part| part.iter()).map(|name| MapName::of_abi(name)).collect()
}

/// What names the build of an object.
pub fn digest(object: &Object) -> Arc<str> {
    digest_with(object, &Globals::new())
}

/// The same with other numbers in it: its programs are other programs.
fn digest_with(object: &Object, globals: &Globals) -> Arc<str> {
    let mut build = Sha256::new();
    build.update(object.bytes);
    for (name, value) in globals {
        build.update(format!("{name}={value};"));
    }
    hex(&build.finalize()[..DIGEST_BYTES]).into()
}

/// Those of [`OBJECTS`]. Kept, because every endpoint needs one, and to take it is more than all else that
/// is done for an endpoint here.
static DIGESTS: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| OBJECTS.iter().map(digest).collect());

/// Numbers of an object that the configuration decides. None where they are as they were compiled.
fn globals(object: &str, lowering: &Lowering<'_>) -> Globals {
    let load_balancing = &lowering.intent.load_balancing;
    let size = load_balancing.maglev_table_size;
    match object {
        HOST | acceleration::OBJECT if size != MAGLEV_TABLE_SIZE => {
            [("maglev_table_size".into(), u64::from(size))].into()
        }
        socket::OBJECT => {
            let ports = &load_balancing.node_ports;
            let cookie = lowering.facts.netns.rsplit_once("cookie ");
            let cookie = cookie.and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
            [
                ("host_netns_cookie".into(), cookie),
                ("node_port_max".into(), u64::from(*ports.end())),
                ("node_port_min".into(), u64::from(*ports.start())),
            ]
            .into()
        }
        _ => Globals::new(),
    }
}

/// Adds a program of this build, and says by what key.
pub(super) fn load(lowering: &mut Lowering<'_>, name: &str) -> bpf_program::Key {
    let mut objects = OBJECTS.iter().zip(DIGESTS.iter());
    let Some((object, digest)) = objects.find(|(object, _)| object.programs.contains(&name)) else {
        unreachable!("no object has the program {name}")
    };
    let globals = globals(object.name, lowering);
    let digest = if globals.is_empty() { digest.clone() } else { digest_with(object, &globals) };
    let key = bpf_program::Key { name: name.into(), digest };
    if !lowering.desired.bpf_programs.contains_key(&key) {
        let spec = bpf_program::Spec { object: object.name.into(), maps: maps_of(name), globals };
        let programs = &mut lowering.desired.bpf_programs;
        want::<BpfProgram>(programs, key.clone(), spec, &Origin::Node);
    }
    key
}

/// What a map is made with: as the ABI says, but for the sizes that the configuration decides.
fn layout(map: MapName, intent: &Intent) -> Layout {
    let conntrack = intent.conntrack;
    if map.def().name == CILIATE_MAGLEV {
        let value_size = intent.load_balancing.maglev_table_size * 4;
        return Layout { value_size, ..Layout::of(map) };
    }
    let max_entries = match map.def().name {
        CILIUM_CT4 | CILIUM_CT6 => conntrack.tcp_max_entries,
        CILIUM_CT_ANY4 | CILIUM_CT_ANY6 => conntrack.any_max_entries,
        CILIUM_SNAT4 | CILIUM_SNAT6 => conntrack.nat_max_entries,
        _ => map.def().max_entries,
    };
    Layout { max_entries, ..Layout::of(map) }
}

/// Adds the maps, and the program that endpoints need, when there are none too.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    for map in MapName::all() {
        let layout = layout(map, lowering.intent);
        want::<BpfMap>(&mut lowering.desired.bpf_maps, map, layout, &Origin::Node);
    }
    let home = &lowering.facts.netns;
    before::keep(&mut lowering.desired, record::NAMESPACE, home, &Origin::Node);
    load(lowering, FROM_CONTAINER);
}

/// Where a program is attached.
pub(super) struct Attachment {
    pub ifname: IfName,
    pub ifindex: u32,
    pub hook: Hook,
    /// The link object the device belongs to; `None` for a device that isn't ours.
    pub link: Option<IfName>,
    /// The qdisc goes with our filter: we added it to a device that isn't ours.
    pub qdisc_ours: bool,
}

/// Attaches a program to a device.
pub(super) fn attach(lowering: &mut Lowering<'_>, program: &str, at: Attachment, origin: &Origin) {
    let program = load(lowering, program);
    let Attachment { ifname, ifindex, hook, link, qdisc_ours } = at;
    let key = bpf_link::Key { ifname, hook, program: program.name.clone() };
    let mode = lowering.node.attach;
    let spec = bpf_link::Spec { program, mode, ifindex, link, qdisc_ours };
    want::<BpfLink>(&mut lowering.desired.bpf_links, key, spec, origin);
}
