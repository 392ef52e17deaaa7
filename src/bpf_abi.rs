//! What the BPF programs and user space share: map names and definitions, keys and values, the numbers
//! in them. The C side is `bpf/lib/abi.h` and `bpf/lib/maps.h`; `tests/bpf/abi.rs` compares the two.
//!
//! Pure. Imports nothing of this crate; everything may import it.

#[macro_use]
mod records;
mod events;
mod lb;
mod reasons;

pub use events::*;
pub use lb::*;
pub use reasons::*;
pub use records::{
    Ct4Key, Ct6Key, CtValue, DeviceKey, DeviceValue, EncryptionValue, EndpointKey, EndpointValue,
    EventHead, Field, Frag4Key, Frag6Key, FragValue, IpcacheKey, IpcacheValue, MetricsKey,
    MetricsValue, MonitorFilter, MonitorValue, NodeKey, NodeValue, Record,
};

/// Pin name of the map of this node's addresses.
pub const CILIUM_LXC: &str = "cilium_lxc";
/// Pin name of the map from prefix to identity.
pub const CILIUM_IPCACHE: &str = "cilium_ipcache_v2";
/// Pin name of the packet and byte counters.
pub const CILIUM_METRICS: &str = "cilium_metrics";
/// Pin name of the map from host-side interface index to endpoint.
pub const CILIATE_DEVICE: &str = "ciliate_device";
/// Pin name of the map with the node's own configuration.
pub const CILIATE_NODE: &str = "ciliate_node";
/// Pin name of the map that says how packets are encrypted.
pub const CILIATE_ENCRYPTION: &str = "ciliate_encryption";
/// Pin names of the conntrack maps: TCP and everything else, by family.
pub const CILIUM_CT4: &str = "cilium_ct4_global";
pub const CILIUM_CT_ANY4: &str = "cilium_ct_any4_global";
pub const CILIUM_CT6: &str = "cilium_ct6_global";
pub const CILIUM_CT_ANY6: &str = "cilium_ct_any6_global";
/// Pin names of the maps of packets in pieces.
pub const CILIUM_FRAG4: &str = "cilium_ipv4_frag_datagrams";
pub const CILIUM_FRAG6: &str = "cilium_ipv6_frag_datagrams";
/// Pin name of the map that says who listens to events.
pub const CILIATE_MONITOR: &str = "ciliate_monitor";
/// Pin name of the array of the listeners' rings.
pub const CILIATE_EVENTS: &str = "ciliate_events";
/// Pin name of the counters of lost events, by slot and CPU.
pub const CILIATE_LOST: &str = "ciliate_lost";

/// Slots of [`CILIATE_EVENTS`]: how many can listen at once.
pub const MONITOR_SLOTS: u32 = 8;

/// [`NodeValue::flags`]: both families are in use, so world is two identities.
pub const NODE_FLAG_TWO_WORLDS: u32 = 1;
/// [`NodeValue::flags`]: the tunnel is Geneve.
pub const NODE_FLAG_GENEVE: u32 = 2;
/// [`NodeValue::flags`]: packets between endpoints of this node and of peers go past the host's stack.
pub const NODE_FLAG_HOST_ROUTING: u32 = 4;
/// [`NodeValue::flags`]: there are services.
pub const NODE_FLAG_SERVICES: u32 = 8;
/// [`NodeValue::flags`]: clients of a service without backends are told nothing.
pub const NODE_FLAG_NO_BACKEND_DROP: u32 = 16;
/// [`NodeValue::flags`]: services are for clients outside as well.
pub const NODE_FLAG_NODE_PORT: u32 = 32;
/// [`NodeValue::flags`]: clients' packets go to backends of other nodes as they are, and are answered from there.
pub const NODE_FLAG_DSR: u32 = 64;

/// [`EncryptionValue::flags`]: what the ipcache has a key for is encrypted.
pub const ENCRYPTION_FLAG_ON: u32 = 1;
/// [`EncryptionValue::flags`]: what nodes send themselves as well.
pub const ENCRYPTION_FLAG_NODES: u32 = 2;
/// [`EncryptionValue::flags`]: nothing between endpoints leaves in plain text.
pub const ENCRYPTION_FLAG_STRICT: u32 = 4;

/// [`Ct4Key::flags`]: 0 for a flow out of an endpoint, 1 for one into it.
pub const CT_FLAG_IN: u8 = 1;
/// [`Ct4Key::flags`]: ICMP errors about the flow.
pub const CT_FLAG_RELATED: u8 = 2;
/// [`Ct4Key::flags`]: the flow to a service before it is balanced.
pub const CT_FLAG_SERVICE: u8 = 4;

/// [`CtValue::bits`] and their names, as `bpf ct list` shows them.
pub const CT_BITS: &[(u16, &str)] = &[
    (1, "RxClosing"),
    (2, "TxClosing"),
    (8, "LBLoopback"),
    (16, "SeenNonSyn"),
    (32, "NodePort"),
    (64, "ProxyRedirect"),
    (128, "DSRInternal"),
    (256, "FromL7LB"),
    (1024, "FromTunnel"),
];

/// [`EndpointKey::family`] and [`IpcacheKey::family`] of an IPv4 address.
pub const FAMILY_IPV4: u8 = 1;
/// [`EndpointKey::family`] and [`IpcacheKey::family`] of an IPv6 address.
pub const FAMILY_IPV6: u8 = 2;

/// [`EndpointValue::flags`]: the address is the node's own.
pub const ENDPOINT_FLAG_HOST: u32 = 1;
/// [`EndpointValue::flags`]: the endpoint lives in the node's network namespace.
pub const ENDPOINT_FLAG_AT_HOST_NETNS: u32 = 2;

/// [`IpcacheKey::prefix_len`] counts the 32 bits of cluster, padding and family before the address.
pub const IPCACHE_STATIC_BITS: u32 = 32;

/// [`IpcacheValue::flags`]: reached without the tunnel even in tunnel mode.
pub const IPCACHE_FLAG_SKIP_TUNNEL: u8 = 1;
/// [`IpcacheValue::flags`]: the tunnel endpoint is set.
pub const IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT: u8 = 2;
/// [`IpcacheValue::flags`]: the tunnel endpoint is an IPv6 address.
pub const IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT: u8 = 4;
/// [`IpcacheValue::flags`]: the prefix belongs to another cluster.
pub const IPCACHE_FLAG_REMOTE_CLUSTER: u8 = 8;

/// [`IpcacheValue::flags`]: the prefix is of endpoints, and nothing leaves in plain text from one such to another.
/// Not one of Cilium's.
pub const IPCACHE_FLAG_ENDPOINTS: u8 = 128;
/// [`IpcacheValue::key`]: packets there are encrypted by WireGuard.
pub const IPCACHE_KEY_WIREGUARD: u8 = 255;

/// No identity known yet.
pub const IDENTITY_UNKNOWN: u32 = 0;
/// The node itself.
pub const IDENTITY_HOST: u32 = 1;
/// Whatever nothing else is known about; on nodes with one address family.
pub const IDENTITY_WORLD: u32 = 2;
/// The node's health endpoint.
pub const IDENTITY_HEALTH: u32 = 4;
/// Other nodes.
pub const IDENTITY_REMOTE_NODE: u32 = 6;
/// IPv4 world, on nodes with both families.
pub const IDENTITY_WORLD_IPV4: u32 = 9;
/// IPv6 world, on nodes with both families.
pub const IDENTITY_WORLD_IPV6: u32 = 10;

/// [`MetricsKey::reason`] of a packet that was passed on.
pub const REASON_FORWARDED: u8 = 0;
/// [`MetricsKey::reason`] of a packet that came in unencrypted by an interface.
pub const REASON_INTERFACE: u8 = 3;
/// [`MetricsKey::reason`] of a fragment; it is counted for what became of it as well.
pub const REASON_FRAGMENT: u8 = 9;
/// [`MetricsKey::direction`]: into the endpoint or node.
pub const DIRECTION_INGRESS: u8 = 1;
/// [`MetricsKey::direction`]: out of the endpoint or node.
pub const DIRECTION_EGRESS: u8 = 2;

/// The bits of a packet mark that say what it carries.
pub const MARK_MAGIC_MASK: u32 = 0x0f00;
/// Carried by the packet mark: an identity and nothing else.
pub const MARK_MAGIC_IDENTITY: u32 = 0x0f00;
/// Carried by the packet mark: the packet was sent by the host; its identity is [`IDENTITY_HOST`].
pub const MARK_MAGIC_HOST: u32 = 0x0c00;

/// Carried by the packet mark: the packet has to be encrypted.
pub const MARK_MAGIC_ENCRYPT: u32 = 0x0e00;
/// Carried by the packet mark: WireGuard made the packet. Not Cilium's 0xe00, which is what leads packets to
/// WireGuard.
pub const MARK_MAGIC_WIREGUARD: u32 = 0x0600;

/// Returns the packet mark that carries an identity of 24 bits.
pub const fn identity_mark(identity: u32) -> u32 {
    (identity & 0xffff) << 16 | (identity >> 16 & 0xff) | MARK_MAGIC_IDENTITY
}

/// The map types in use; the names of `enum bpf_map_type` in linux/bpf.h without `BPF_MAP_TYPE_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    Hash,
    Array,
    PerCpuHash,
    PerCpuArray,
    LruHash,
    LpmTrie,
    ArrayOfMaps,
}

impl MapKind {
    /// Returns the number in `enum bpf_map_type` (linux/bpf.h).
    pub const fn number(self) -> u32 {
        match self {
            Self::Hash => 1,
            Self::Array => 2,
            Self::PerCpuHash => 5,
            Self::PerCpuArray => 6,
            Self::LruHash => 9,
            Self::LpmTrie => 11,
            Self::ArrayOfMaps => 12,
        }
    }
}

/// `BPF_F_NO_PREALLOC` (linux/bpf.h), which an LPM trie cannot do without.
pub const MAP_FLAG_NO_PREALLOC: u32 = 1;

/// What a pinned map has to look like to be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapDef {
    pub name: &'static str,
    pub kind: MapKind,
    /// In bytes.
    pub key_size: u32,
    /// In bytes; of one CPU for per-CPU kinds.
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

const fn map<K: Record, V: Record>(name: &'static str, kind: MapKind, max_entries: u32) -> MapDef {
    let flags = if matches!(kind, MapKind::LpmTrie) { MAP_FLAG_NO_PREALLOC } else { 0 };
    MapDef { name, kind, key_size: K::SIZE as u32, value_size: V::SIZE as u32, max_entries, flags }
}

const fn unallocated(def: MapDef) -> MapDef {
    MapDef { flags: MAP_FLAG_NO_PREALLOC, ..def }
}

const fn sized(
    name: &'static str,
    kind: MapKind,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
) -> MapDef {
    MapDef { name, kind, key_size, value_size, max_entries, flags: 0 }
}

/// All maps of all objects, by name. Of the conntrack maps `max_entries` is the default; the
/// configuration may say another number.
pub const MAPS: &[MapDef] = &[
    map::<DeviceKey, DeviceValue>(CILIATE_DEVICE, MapKind::Hash, 65_535),
    map::<NodeKey, EncryptionValue>(CILIATE_ENCRYPTION, MapKind::Array, 1),
    sized(CILIATE_EVENTS, MapKind::ArrayOfMaps, 4, 4, MONITOR_SLOTS),
    sized(CILIATE_LOST, MapKind::PerCpuArray, 4, 8, MONITOR_SLOTS),
    unallocated(sized(CILIATE_MAGLEV, MapKind::Hash, 4, MAGLEV_TABLE_SIZE * 4, 65_536)),
    unallocated(sized(CILIATE_MAGLEV_INDEX, MapKind::Hash, 4, 4, 65_536)),
    map::<NodeKey, MonitorValue>(CILIATE_MONITOR, MapKind::Array, 1),
    map::<NodeKey, NodeValue>(CILIATE_NODE, MapKind::Array, 1),
    map::<NodeKey, UnderlayValue>(CILIATE_UNDERLAY, MapKind::Array, 1),
    map::<Ct4Key, CtValue>(CILIUM_CT4, MapKind::LruHash, 131_072),
    map::<Ct6Key, CtValue>(CILIUM_CT6, MapKind::LruHash, 131_072),
    map::<Ct4Key, CtValue>(CILIUM_CT_ANY4, MapKind::LruHash, 65_536),
    map::<Ct6Key, CtValue>(CILIUM_CT_ANY6, MapKind::LruHash, 65_536),
    map::<IpcacheKey, IpcacheValue>(CILIUM_IPCACHE, MapKind::LpmTrie, 512_000),
    map::<Frag4Key, FragValue>(CILIUM_FRAG4, MapKind::LruHash, 8192),
    map::<Frag6Key, FragValue>(CILIUM_FRAG6, MapKind::LruHash, 8192),
    map::<Lb4AffinityKey, LbAffinityValue>(CILIUM_LB4_AFFINITY, MapKind::LruHash, 65_536),
    unallocated(map::<BackendId, Lb4Backend>(CILIUM_LB4_BACKENDS, MapKind::Hash, 131_072)),
    unallocated(map::<RevNat, Lb4ReverseNat>(CILIUM_LB4_REVERSE_NAT, MapKind::Hash, 65_536)),
    map::<Lb4ReverseSkKey, Lb4ReverseSkValue>(CILIUM_LB4_REVERSE_SK, MapKind::LruHash, 65_536),
    unallocated(map::<Lb4Key, LbValue>(CILIUM_LB4_SERVICES, MapKind::Hash, 262_144)),
    unallocated(sized(CILIUM_LB4_SOURCE_RANGE, MapKind::LpmTrie, 12, 1, 65_536)),
    map::<Lb6AffinityKey, LbAffinityValue>(CILIUM_LB6_AFFINITY, MapKind::LruHash, 65_536),
    unallocated(map::<BackendId, Lb6Backend>(CILIUM_LB6_BACKENDS, MapKind::Hash, 131_072)),
    unallocated(map::<RevNat, Lb6ReverseNat>(CILIUM_LB6_REVERSE_NAT, MapKind::Hash, 65_536)),
    map::<Lb6ReverseSkKey, Lb6ReverseSkValue>(CILIUM_LB6_REVERSE_SK, MapKind::LruHash, 65_536),
    unallocated(map::<Lb6Key, LbValue>(CILIUM_LB6_SERVICES, MapKind::Hash, 262_144)),
    unallocated(sized(CILIUM_LB6_SOURCE_RANGE, MapKind::LpmTrie, 24, 1, 65_536)),
    unallocated(sized(CILIUM_LB_AFFINITY_MATCH, MapKind::Hash, 8, 1, 131_072)),
    map::<EndpointKey, EndpointValue>(CILIUM_LXC, MapKind::Hash, 65_535),
    map::<MetricsKey, MetricsValue>(CILIUM_METRICS, MapKind::PerCpuHash, 1024),
    map::<Ct4Key, Snat4Value>(CILIUM_SNAT4, MapKind::LruHash, 131_072),
    map::<Ct6Key, Snat6Value>(CILIUM_SNAT6, MapKind::LruHash, 131_072),
];
