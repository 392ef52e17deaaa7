//! Maps and programs: all of them, always. Adding an endpoint loads nothing. Pure.

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
use crate::kinds::bpf_link::{self, BpfLink, Hook, Mode};
use crate::kinds::bpf_map::{BpfMap, Layout, MapName};
use crate::kinds::bpf_map_entry::hex;
use crate::kinds::bpf_program::{self, BpfProgram, Globals};
use crate::kinds::{Desired, Origin, record};
use crate::net::IfName;

/// The object of the node's own devices.
const HOST: &str = "bpf_host";

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
        "cil_from_container" => {
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
    hex(&Sha256::digest(object.bytes)[..DIGEST_BYTES]).into()
}

/// Those of [`OBJECTS`]. Kept, because every endpoint needs one, and to take it is more than all else that
/// is done for an endpoint here.
static DIGESTS: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| OBJECTS.iter().map(digest).collect());

/// The key of a program of this build.
pub fn key(name: &str) -> bpf_program::Key {
    let mut objects = OBJECTS.iter().zip(DIGESTS.iter());
    let found = objects.find(|(object, _)| object.programs.contains(&name));
    let digest = found.map_or_else(|| Arc::from(""), |(_, digest)| digest.clone());
    bpf_program::Key { name: name.into(), digest }
}

/// Numbers of an object that the configuration decides. None where they are as they were compiled.
pub(super) fn globals(object: &str, intent: &Intent) -> Globals {
    let size = intent.load_balancing.maglev_table_size;
    if ![HOST, acceleration::OBJECT].contains(&object) || size == MAGLEV_TABLE_SIZE {
        return Globals::new();
    }
    [("maglev_table_size".into(), u64::from(size))].into()
}

/// What names the build of an object with other numbers in it: its programs are other programs.
pub(super) fn digest_with(object: &Object, globals: &Globals) -> Arc<str> {
    let mut build = Sha256::new();
    build.update(object.bytes);
    for (name, value) in globals {
        build.update(format!("{name}={value};"));
    }
    hex(&build.finalize()[..DIGEST_BYTES]).into()
}

/// The key of a program of the node's devices.
pub(super) fn host_key(intent: &Intent, name: &str) -> bpf_program::Key {
    let mut key = key(name);
    let globals = globals(HOST, intent);
    if let Some(object) = OBJECTS.iter().find(|object| object.name == HOST && !globals.is_empty()) {
        key.digest = digest_with(object, &globals);
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

/// Adds the maps and programs.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    for map in MapName::all() {
        let layout = layout(map, lowering.intent);
        want::<BpfMap>(&mut lowering.desired.bpf_maps, map, layout, &Origin::Node);
    }
    let home = &lowering.facts.netns;
    before::keep(&mut lowering.desired, record::NAMESPACE, home, &Origin::Node);
    for (object, digest) in OBJECTS.iter().zip(DIGESTS.iter()) {
        // Only where they are attached.
        if [socket::OBJECT, acceleration::OBJECT].contains(&object.name) {
            continue;
        }
        let globals = globals(object.name, lowering.intent);
        let digest =
            if globals.is_empty() { digest.clone() } else { digest_with(object, &globals) };
        for name in object.programs {
            let key = bpf_program::Key { name: (*name).into(), digest: digest.clone() };
            let (object, maps) = (object.name.into(), maps_of(name));
            let spec = bpf_program::Spec { object, maps, globals: globals.clone() };
            let programs = &mut lowering.desired.bpf_programs;
            want::<BpfProgram>(programs, key, spec, &Origin::Node);
        }
    }
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
pub(super) fn attach(
    desired: &mut Desired,
    mode: Mode,
    program: &bpf_program::Key,
    at: Attachment,
    origin: &Origin,
) {
    let Attachment { ifname, ifindex, hook, link, qdisc_ours } = at;
    let key = bpf_link::Key { ifname, hook, program: program.name.clone() };
    let program = program.clone();
    let spec = bpf_link::Spec { program, mode, ifindex, link, qdisc_ours };
    want::<BpfLink>(&mut desired.bpf_links, key, spec, origin);
}
