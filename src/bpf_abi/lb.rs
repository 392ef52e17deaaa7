//! What the maps of services hold, as C lays it out, and the numbers in it. The C side is `bpf/lib/abi.h`.
//!
//! Pure. Imports its siblings only. Fields that end in `_be` are in network order, others in host order.

use super::records::{Field, Record, Scalar};

/// Pin names: frontends and their slots.
pub const CILIUM_LB4_SERVICES: &str = "cilium_lb4_services_v2";
pub const CILIUM_LB6_SERVICES: &str = "cilium_lb6_services_v2";
/// Pin names: backends by id.
pub const CILIUM_LB4_BACKENDS: &str = "cilium_lb4_backends_v3";
pub const CILIUM_LB6_BACKENDS: &str = "cilium_lb6_backends_v3";
/// Pin names: the frontend of a service's number.
pub const CILIUM_LB4_REVERSE_NAT: &str = "cilium_lb4_reverse_nat";
pub const CILIUM_LB6_REVERSE_NAT: &str = "cilium_lb6_reverse_nat";
/// Pin names: which backend a client is kept at.
pub const CILIUM_LB4_AFFINITY: &str = "cilium_lb4_affinity";
pub const CILIUM_LB6_AFFINITY: &str = "cilium_lb6_affinity";
/// Pin name: which backends clients of a service may be kept at.
pub const CILIUM_LB_AFFINITY_MATCH: &str = "cilium_lb_affinity_match";
/// Pin names: who may use a service.
pub const CILIUM_LB4_SOURCE_RANGE: &str = "cilium_lb4_source_range";
pub const CILIUM_LB6_SOURCE_RANGE: &str = "cilium_lb6_source_range";
/// Pin names: translated sockets.
pub const CILIUM_LB4_REVERSE_SK: &str = "cilium_lb4_reverse_sk";
pub const CILIUM_LB6_REVERSE_SK: &str = "cilium_lb6_reverse_sk";
/// Pin name: the number of a service's Maglev table by its `rev_nat`; 0 is none.
pub const CILIATE_MAGLEV_INDEX: &str = "ciliate_maglev_index";
/// Pin name: Maglev tables by number, each a list of backend ids.
pub const CILIATE_MAGLEV: &str = "ciliate_maglev";

/// Pin name: what the node is on its underlay.
pub const CILIATE_UNDERLAY: &str = "ciliate_underlay";
/// Pin names: flows that go by an address of the node's.
pub const CILIUM_SNAT4: &str = "cilium_snat_v4_external";
pub const CILIUM_SNAT6: &str = "cilium_snat_v6_external";

/// The maps that say what services there are. Those that programs fill are not among them.
pub const LB_MAPS: &[&str] = &[
    CILIUM_LB4_SERVICES,
    CILIUM_LB6_SERVICES,
    CILIUM_LB4_BACKENDS,
    CILIUM_LB6_BACKENDS,
    CILIUM_LB4_REVERSE_NAT,
    CILIUM_LB6_REVERSE_NAT,
    CILIUM_LB_AFFINITY_MATCH,
    CILIUM_LB4_SOURCE_RANGE,
    CILIUM_LB6_SOURCE_RANGE,
    CILIATE_MAGLEV_INDEX,
    CILIATE_MAGLEV,
];

/// Entries of a Maglev table, unless the configuration says another number.
pub const MAGLEV_TABLE_SIZE: u32 = 16_381;

/// [`Lb4Key::scope`]: for everybody, unless the frontend has [`SERVICE_FLAG2_TWO_SCOPES`].
pub const LB_SCOPE_EXT: u8 = 0;
/// [`Lb4Key::scope`]: for senders of this cluster.
pub const LB_SCOPE_INT: u8 = 1;

/// [`LbValue::flags`]: an external address.
pub const SERVICE_FLAG_EXTERNAL_IP: u8 = 1;
/// [`LbValue::flags`]: a port of every node.
pub const SERVICE_FLAG_NODE_PORT: u8 = 2;
/// [`LbValue::flags`]: from outside only to backends of this node.
pub const SERVICE_FLAG_EXT_LOCAL: u8 = 4;
/// [`LbValue::flags`]: a port of this node.
pub const SERVICE_FLAG_HOST_PORT: u8 = 8;
/// [`LbValue::flags`]: clients are kept at their backend.
pub const SERVICE_FLAG_AFFINITY: u8 = 16;
/// [`LbValue::flags`]: a load balancer's address.
pub const SERVICE_FLAG_LOAD_BALANCER: u8 = 32;
/// [`LbValue::flags`]: may be used from outside.
pub const SERVICE_FLAG_ROUTABLE: u8 = 64;
/// [`LbValue::flags`]: only for the sources listed.
pub const SERVICE_FLAG_SOURCE_RANGE: u8 = 128;

/// [`LbValue::flags2`]: from this cluster only to backends of this node.
pub const SERVICE_FLAG2_INT_LOCAL: u8 = 16;
/// [`LbValue::flags2`]: the frontend has entries of both scopes.
pub const SERVICE_FLAG2_TWO_SCOPES: u8 = 32;

/// [`LbValue::backend_id`] of slot 0: where the algorithm begins, and the bits before it.
pub const LB_ALGORITHM_SHIFT: u32 = 24;
pub const LB_AFFINITY_MASK: u32 = 0xff_ffff;
/// The algorithms.
pub const LB_ALGORITHM_RANDOM: u32 = 1;
pub const LB_ALGORITHM_MAGLEV: u32 = 2;

/// [`Lb4Backend::state`]: in use.
pub const BACKEND_ACTIVE: u8 = 0;
/// [`Lb4Backend::state`]: finishes old flows; gets new ones only where no other backend is in use.
pub const BACKEND_TERMINATING: u8 = 1;
/// [`Lb4Backend::state`]: found dead.
pub const BACKEND_QUARANTINED: u8 = 2;
/// [`Lb4Backend::state`]: taken out by the operator.
pub const BACKEND_MAINTENANCE: u8 = 3;

/// What is balanced, by the number in an IP header, as tables write it.
pub fn protocol_name(number: u8) -> &'static str {
    match number {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => "unknown",
    }
}

record! {
    /// Key of `cilium_lb4_backends_v3` and `cilium_lb6_backends_v3`, which number from the same range.
    BackendId, 4 {
        id: u32,
    }
}

record! {
    /// Key of `cilium_lb4_reverse_nat` and `cilium_lb6_reverse_nat`: a service's number.
    RevNat, 2 {
        rev_nat: u16,
    }
}

record! {
    /// Key of `cilium_lb4_services_v2`: a frontend and a slot of it.
    Lb4Key, 12 {
        address_be: [u8; 4],
        port_be: [u8; 2],
        /// 0 is the frontend itself, others its backends.
        slot: u16,
        /// IP protocol number.
        protocol: u8,
        /// [`LB_SCOPE_EXT`] or [`LB_SCOPE_INT`].
        scope: u8,
        pad: [u8; 2],
    }
}

record! {
    /// Key of `cilium_lb6_services_v2`.
    Lb6Key, 24 {
        address_be: [u8; 16],
        port_be: [u8; 2],
        slot: u16,
        protocol: u8,
        scope: u8,
        pad: [u8; 2],
    }
}

record! {
    /// Value of both: how a frontend is balanced, or one backend of it.
    LbValue, 12 {
        /// Slot 0: the algorithm, and the seconds of session affinity.
        backend_id: u32,
        /// Slot 0: backends in use, slots 1 to this.
        count: u16,
        /// The service's number; never 0.
        rev_nat: u16,
        /// `SERVICE_FLAG_*`.
        flags: u8,
        /// `SERVICE_FLAG2_*`.
        flags2: u8,
        /// Slot 0: backends kept out of use, in the slots behind.
        quarantined: u16,
    }
}

record! {
    /// Value of `cilium_lb4_backends_v3`.
    Lb4Backend, 12 {
        address_be: [u8; 4],
        port_be: [u8; 2],
        /// IP protocol number.
        protocol: u8,
        /// `BACKEND_*`.
        state: u8,
        cluster_id: u16,
        zone: u8,
        pad: u8,
    }
}

record! {
    /// Value of `cilium_lb6_backends_v3`.
    Lb6Backend, 24 {
        address_be: [u8; 16],
        port_be: [u8; 2],
        protocol: u8,
        state: u8,
        cluster_id: u16,
        zone: u8,
        pad: u8,
    }
}

record! {
    /// Value of `cilium_lb4_reverse_nat`: what replies come from.
    Lb4ReverseNat, 6 {
        address_be: [u8; 4],
        port_be: [u8; 2],
    }
}

record! {
    /// Value of `cilium_lb6_reverse_nat`.
    Lb6ReverseNat, 18 {
        address_be: [u8; 16],
        port_be: [u8; 2],
    }
}

record! {
    /// Key of `cilium_lb4_affinity`.
    Lb4AffinityKey, 16 {
        /// Address in the first four bytes, or a cookie.
        client: u64,
        rev_nat: u16,
        is_cookie: u8,
        pad: [u8; 5],
    }
}

record! {
    /// Key of `cilium_lb6_affinity`.
    Lb6AffinityKey, 24 {
        client: [u8; 16],
        rev_nat: u16,
        is_cookie: u8,
        pad: [u8; 5],
    }
}

record! {
    /// Value of both.
    LbAffinityValue, 16 {
        /// In seconds of the monotonic clock.
        last_used: u64,
        backend_id: u32,
        pad: u32,
    }
}

record! {
    /// Key of `cilium_lb_affinity_match`.
    LbAffinityMatch, 8 {
        backend_id: u32,
        rev_nat: u16,
        pad: u16,
    }
}

record! {
    /// Key of `cilium_lb4_source_range`.
    Lb4SourceRange, 12 {
        /// Counts the 32 bits before the address.
        prefix_len: u32,
        rev_nat: u16,
        pad: u16,
        address_be: [u8; 4],
    }
}

record! {
    /// Key of `cilium_lb6_source_range`.
    Lb6SourceRange, 24 {
        prefix_len: u32,
        rev_nat: u16,
        pad: u16,
        address_be: [u8; 16],
    }
}

record! {
    /// Key of `cilium_lb4_reverse_sk`: a socket, and what it is connected to.
    Lb4ReverseSkKey, 16 {
        cookie: u64,
        address_be: [u8; 4],
        port_be: [u8; 2],
        pad: u16,
    }
}

record! {
    /// Value of `cilium_lb4_reverse_sk`: what it asked for.
    Lb4ReverseSkValue, 8 {
        address_be: [u8; 4],
        port_be: [u8; 2],
        rev_nat: u16,
    }
}

record! {
    /// Key of `cilium_lb6_reverse_sk`.
    Lb6ReverseSkKey, 32 {
        cookie: u64,
        address_be: [u8; 16],
        port_be: [u8; 2],
        pad: [u8; 6],
    }
}

record! {
    /// Value of `cilium_lb6_reverse_sk`.
    Lb6ReverseSkValue, 20 {
        address_be: [u8; 16],
        port_be: [u8; 2],
        rev_nat: u16,
    }
}

record! {
    /// Value of `ciliate_underlay`: what clients outside, and backends elsewhere, know the node by.
    UnderlayValue, 24 {
        /// Zero when the node has none.
        ipv4_be: [u8; 4],
        /// Zero when the node has none.
        ipv6_be: [u8; 16],
        /// Ports that flows of clients go on from.
        port_min: u16,
        port_max: u16,
    }
}

/// [`Ct4Key::flags`](super::Ct4Key) in `cilium_snat_v4_external`: of what comes back; 0 for what is sent.
pub const SNAT_FLAG_IN: u8 = 1;

/// [`Snat4Value::needs_ct`]: the key is of an answer to a client, which is from the service that the value has.
pub const SNAT_DSR: u64 = 2;

record! {
    /// Value of `cilium_snat_v4_external`: the source that a packet is given, or where one that comes back goes.
    Snat4Value, 40 {
        /// Seconds of the monotonic clock.
        created: u64,
        /// 1 for a client's flow, 0 for one of the node's own.
        needs_ct: u64,
        /// Seconds of the monotonic clock.
        last_used: u64,
        reserved: u64,
        address_be: [u8; 4],
        port_be: [u8; 2],
        pad: u16,
    }
}

record! {
    /// Value of `cilium_snat_v6_external`.
    Snat6Value, 56 {
        /// Seconds of the monotonic clock.
        created: u64,
        /// 1 for a client's flow, 0 for one of the node's own.
        needs_ct: u64,
        /// Seconds of the monotonic clock.
        last_used: u64,
        reserved: u64,
        address_be: [u8; 16],
        port_be: [u8; 2],
        pad: [u8; 6],
    }
}
