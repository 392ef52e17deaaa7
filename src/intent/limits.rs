//! How much of everything there may be. Each limit is enforced when a document is read, and named in
//! the message.
//!
//! Pure; imports nothing.

use std::time::Duration;

/// Longest name of a node, peer or endpoint: that of a DNS label.
pub const NAME_BYTES_MAX: usize = 63;

/// Longest name of a service: a namespace, a name and that of a port.
pub const SERVICE_NAME_BYTES_MAX: usize = 253;

/// Most endpoints: their ids are 1 to 4095, as Cilium's (pkg/endpointmanager/allocator.go), and the health
/// endpoint has one.
pub const ENDPOINTS_MAX: usize = 4094;

/// Most peers: node ids have 16 bits, and 0 is no node.
pub const PEERS_MAX: usize = 65_535;

/// Most CIDRs of all peers together: each is an entry of the ipcache, which has 512 000, and leaves
/// room for addresses.
pub const CIDRS_MAX: usize = 262_144;

/// Most entries of the ipcache for all peers together: addresses, routers, health
/// addresses, CIDRs, addresses of endpoints. It has room for 512 000, and this node's own endpoints need some of it.
pub const PEER_ENTRIES_MAX: usize = 500_000;

/// Most underlay devices of the node.
pub const DEVICES_MAX: usize = 16;

/// Most labels of an endpoint.
pub const LABELS_MAX: usize = 64;

/// Longest label key: a Kubernetes one (253 for the prefix, `/`, 63), and before it what Cilium puts before those of
/// namespaces (`k8s:io.cilium.k8s.namespace.labels.`).
pub const LABEL_KEY_BYTES_MAX: usize = 352;

/// Longest label value.
pub const LABEL_VALUE_BYTES_MAX: usize = 253;

/// Longest path; one less than the kernel's PATH_MAX, for the NUL.
pub const PATH_BYTES_MAX: usize = 4095;

/// Longest `[paths] runtime`: a socket is bound below it, and a socket's path has 107 bytes
/// (`sun_path`, linux/un.h).
pub const RUNTIME_PATH_BYTES_MAX: usize = 80;

/// Smallest MTU: what every IPv4 link carries (RFC 791).
pub const MTU_BYTES_MIN: u32 = 68;

/// Smallest MTU with IPv6 (RFC 8200, section 5).
pub const MTU_BYTES_MIN_IPV6: u32 = 1280;

/// Largest MTU: the length of an IP packet has 16 bits, and of a route's MTU the kernel takes no more than this
/// (`fib_metrics_parse`, net/ipv4/metrics.c; 15 bytes less).
pub const MTU_BYTES_MAX: u32 = 65_520;

/// Largest process id (`PID_MAX_LIMIT`, linux/threads.h).
pub const PID_MAX: u32 = 4_194_304;

/// First and last priority of our rule: 0 is the kernel's `lookup local`, which stays where it is, and
/// 32766 and 32767 are its `lookup main` and `lookup default`.
pub const RULE_PRIORITY_MIN: u32 = 1;
pub const RULE_PRIORITY_MAX: u32 = 32_765;

/// Priority of our rule if none is given: the one of Cilium's rules that lead to a table of their own.
pub const RULE_PRIORITY_DEFAULT: u32 = 110;

/// Longest prefix of a node's CIDR, per family: the network address, the router and, with IPv4, the
/// broadcast address have to leave room for an endpoint.
pub const NODE_PREFIX_BITS_MAX_IPV4: u8 = 30;
pub const NODE_PREFIX_BITS_MAX_IPV6: u8 = 126;

/// Longest prefix of a CIDR that has an address for health unless one is given: as above, with that
/// address as well.
pub const HEALTH_PREFIX_BITS_MAX_IPV4: u8 = 29;
pub const HEALTH_PREFIX_BITS_MAX_IPV6: u8 = 126;

/// Seconds between two probes of an address, before that is scaled by the size of the cluster.
pub const HEALTH_INTERVAL_S_MIN: u32 = 1;
pub const HEALTH_INTERVAL_S_MAX: u32 = 3600;
pub const HEALTH_INTERVAL_S_DEFAULT: u32 = 60;

/// UDP ports of tunnels if none is given: Linux's for VXLAN, which is older than IANA's 4789 and what
/// Cilium uses, and IANA's for Geneve.
pub const VXLAN_PORT_DEFAULT: u16 = 8472;
pub const GENEVE_PORT_DEFAULT: u16 = 6081;

/// UDP port of WireGuard if none is given: Cilium's.
pub const WIREGUARD_PORT_DEFAULT: u16 = 51_871;

/// Table that leads to WireGuard: Cilium's.
pub const TABLE_ENCRYPTION: u32 = 201;

/// Fewest and most entries of a conntrack map.
pub const CONNTRACK_ENTRIES_MIN: u32 = 1024;
pub const CONNTRACK_ENTRIES_MAX: u32 = 16_777_216;

/// Entries of the conntrack maps if none are given: the floors of Cilium's sizing by memory.
pub const CONNTRACK_TCP_DEFAULT: u32 = 131_072;
pub const CONNTRACK_ANY_DEFAULT: u32 = 65_536;
/// Entries of the NAT maps if none are given; Cilium's floor again.
pub const NAT_DEFAULT: u32 = 131_072;

/// Node ports if no range is given; Kubernetes' and Cilium's.
pub const NODE_PORT_MIN: u16 = 30_000;
pub const NODE_PORT_MAX: u16 = 32_767;

/// Ports below are for services of the system; no flow is given one.
pub const PRIVILEGED_PORTS: u16 = 1024;

/// Most services, and frontends of all together: each frontend has a number of 16 bits (`rev_nat`), and 0 is none.
pub const FRONTENDS_MAX: usize = 65_535;

/// Most slots of all frontends together, each frontend's own included: what `cilium_lb4_services_v2` has room for.
pub const SLOTS_MAX: usize = 262_144;

/// Most backends, with different addresses, of all services together.
pub const BACKENDS_MAX: usize = 131_072;

/// Most backends of one service: a hundredth of the largest Maglev table, for an even distribution.
pub const SERVICE_BACKENDS_MAX: usize = 1310;

/// Largest weight of a backend, and the one without.
pub const WEIGHT_MAX: u16 = 65_535;
pub const WEIGHT_DEFAULT: u16 = 100;

/// Longest session affinity, in seconds: a day, as in Kubernetes.
pub const AFFINITY_S_MAX: u32 = 86_400;

/// Time between two questions of a backend's health check, and for the answer to one, if none is given.
pub const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(100);
pub const CHECK_INTERVAL_MAX: Duration = Duration::from_secs(3600);
pub const CHECK_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
pub const CHECK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// Answers in a row that bring a backend back or declare it dead.
pub const CHECK_THRESHOLD_MAX: u32 = 100;
pub const CHECK_RISE_DEFAULT: u32 = 2;
pub const CHECK_FALL_DEFAULT: u32 = 3;

/// Longest path of a health check by HTTP, and the statuses that are good if none are given: those of Kubernetes'
/// probes.
pub const CHECK_PATH_BYTES_MAX: usize = 1024;
pub const CHECK_STATUS_DEFAULT: (u16, u16) = (200, 399);

/// Most pairs of frontend and backend that clients are kept at: what `cilium_lb_affinity_match` has room for.
pub const AFFINITY_PAIRS_MAX: usize = 131_072;

/// Most pairs of frontend and source range of a family: what `cilium_lb4_source_range` has room for.
pub const SOURCE_RANGES_MAX: usize = 65_536;

/// Entries of a Maglev table if no number is given; Cilium's.
pub const MAGLEV_TABLE_SIZE_DEFAULT: u32 = 16_381;
