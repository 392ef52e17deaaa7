/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What user space and the programs share: the keys and values of every map, and the numbers in them.
 *
 * Written once here for C and once in src/bpf_abi/ for Rust; tests/bpf/abi.rs compares the two, field by
 * field, through the BTF of the compiled objects. cilium_* layouts are those of Cilium 1.18, so that
 * tools which read its maps can read these. Addresses and ports are in network order, all else in host
 * order. All padding is spelt out and zero: hash keys are compared as bytes.
 */
#ifndef CILIATE_ABI_H
#define CILIATE_ABI_H

#include <linux/types.h>

#define ETH_ADDR_LEN 6

#define FAMILY_IPV4 1
#define FAMILY_IPV6 2

/* Reserved security identities. */
#define IDENTITY_UNKNOWN 0
#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IDENTITY_HEALTH 4
#define IDENTITY_REMOTE_NODE 6
#define IDENTITY_KUBE_APISERVER 7
#define IDENTITY_WORLD_IPV4 9
#define IDENTITY_WORLD_IPV6 10

/* cilium_lxc: an address of this node. Either bit set means: the node's own stack takes the packet. */
#define ENDPOINT_FLAG_HOST 1
#define ENDPOINT_FLAG_AT_HOST_NETNS 2

/* IPv4 addresses occupy the first four bytes, the rest is zero. */
union address {
	__be32 v4;
	__be32 v6[4];
};

struct endpoint_key {
	union address address;
	__u8 family;
	__u8 key;
	__u16 cluster_id;
};

struct endpoint_value {
	__u32 ifindex;
	__u16 unused;
	__u16 endpoint_id;
	__u32 flags;
	__u32 pad;
	__u8 mac[ETH_ADDR_LEN];
	__u8 mac_pad[2];
	__u8 node_mac[ETH_ADDR_LEN];
	__u8 node_mac_pad[2];
	__u32 identity;
	__u32 parent_ifindex;
	__u32 reserved[2];
};

/* prefix_len counts the 32 bits of cluster, pad and family in front of the address. */
struct ipcache_key {
	__u32 prefix_len;
	__u16 cluster_id;
	__u8 pad;
	__u8 family;
	union address address;
};

#define IPCACHE_STATIC_BITS 32

#define IPCACHE_FLAG_SKIP_TUNNEL 1
#define IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT 2
#define IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT 4
/* Not one of Cilium's: of endpoints, and nothing leaves in plain text from one such to another. */
#define IPCACHE_FLAG_ENDPOINTS 128

struct ipcache_value {
	__u32 identity;
	union address tunnel_endpoint;
	__u16 pad;
	__u8 key;
	__u8 flags;
};

struct metrics_key {
	__u8 reason;
	__u8 direction;
	__u16 line;
	__u8 file;
	__u8 reserved[3];
};

struct metrics_value {
	__u64 packets;
	__u64 bytes;
};

/* ciliate_device: per host-side endpoint device, what Cilium compiles into that endpoint's program. */
struct device_value {
	__u16 endpoint_id;
	__u16 flags;
	__u32 identity;
	__be32 ipv4;
	__be32 ipv6[4];
	__u8 mac[ETH_ADDR_LEN];
	__u8 mac_pad[2];
	__u8 node_mac[ETH_ADDR_LEN];
	__u8 node_mac_pad[2];
	__u32 reserved;
};

/* ciliate_node: both families are in use, so world is two identities, which the wire knows as one. */
#define NODE_FLAG_TWO_WORLDS 1
/* The tunnel's own protocol; decides what a packet's tunnel key may hold. */
#define NODE_FLAG_GENEVE 2
/* Packets between endpoints of this node and those of peers go past the host's stack. */
#define NODE_FLAG_HOST_ROUTING 4
/* There are services. Without it no program looks for any. */
#define NODE_FLAG_SERVICES 8
/* Clients of a service without backends are told nothing. */
#define NODE_FLAG_NO_BACKEND_DROP 16
/* Services are for clients outside as well: see ciliate_underlay. */
#define NODE_FLAG_NODE_PORT 32
/* Clients' packets go to backends of other nodes as they are, and are answered from there. */
#define NODE_FLAG_DSR 64

/* ciliate_node: one element, this node. With native routing all that is about the tunnel is 0. */
struct node_value {
	__be32 router_ipv4;
	__be32 router_ipv6[4];
	__u32 host_ifindex;
	__u32 net_ifindex;
	__u8 host_mac[ETH_ADDR_LEN];
	/* Ports that the tunnel's device sends from, as programs do; 0: programs send nothing into the tunnel. */
	__u16 tunnel_source_min;
	__u8 net_mac[ETH_ADDR_LEN];
	__u16 tunnel_source_max;
	__u32 flags;
	__u32 tunnel_ifindex;
	__u8 tunnel_mac[ETH_ADDR_LEN];
	__u8 tunnel_mac_pad[2];
	__be16 tunnel_port;
	__u16 tunnel_mtu;
};

/* What the ipcache has a key for is encrypted. */
#define ENCRYPTION_FLAG_ON 1
/* What nodes send themselves as well. */
#define ENCRYPTION_FLAG_NODES 2
/* Nothing between endpoints leaves in plain text. */
#define ENCRYPTION_FLAG_STRICT 4

/* ciliate_encryption: one element. ifindex 0: what has to be encrypted cannot be. */
struct encryption_value {
	__u32 ifindex;
	__u32 flags;
	__be16 port;
	__u16 mtu;
	__u32 reserved;
};

/*
 * ciliate_underlay: one element, what this node is on its underlay. Flows that it forwards for clients outside are from
 * its address, 0 is none, and from a port between the two.
 */
struct underlay_value {
	__be32 ipv4;
	__be32 ipv6[4];
	__u16 port_min;
	__u16 port_max;
};

/*
 * Conntrack. As in Cilium, addresses are written in the direction of the replies and ports in that of the
 * flow: `daddr` and `sport` are those of the side that began it, `saddr` and `dport` those of the side it
 * went to.
 */
#define CT_FLAG_OUT 0
#define CT_FLAG_IN 1
#define CT_FLAG_RELATED 2
#define CT_FLAG_SERVICE 4

struct ct4_key {
	__be32 daddr;
	__be32 saddr;
	__be16 dport;
	__be16 sport;
	__u8 protocol;
	__u8 flags;
} __attribute__((packed));

struct ct6_key {
	__be32 daddr[4];
	__be32 saddr[4];
	__be16 dport;
	__be16 sport;
	__u8 protocol;
	__u8 flags;
} __attribute__((packed));

#define CT_BIT_RX_CLOSING 1
#define CT_BIT_TX_CLOSING 2
#define CT_BIT_LB_LOOPBACK 8
#define CT_BIT_SEEN_NON_SYN 16
#define CT_BIT_NODE_PORT 32
#define CT_BIT_PROXY_REDIRECT 64
#define CT_BIT_DSR_INTERNAL 128
#define CT_BIT_FROM_L7LB 256
#define CT_BIT_FROM_TUNNEL 1024

/*
 * Times are seconds of the monotonic clock. `lifetime` is when the entry ends. `tx_flags` are the TCP flags
 * of packets out of the endpoint, `rx_flags` of those into it; the reports are when a new one was last seen.
 * `rev_nat` is the service that the flow was begun through. Entries with CT_FLAG_SERVICE are of a flow as its
 * client sees it: `backend_id` is where it goes, and `reserved1` is 1 when the client is to be kept there.
 */
struct ct_value {
	__u64 reserved0;
	__u64 backend_id;
	__u64 packets;
	__u64 bytes;
	__u32 lifetime;
	__u16 bits;
	__u16 rev_nat;
	__u16 reserved1;
	__u8 tx_flags;
	__u8 rx_flags;
	__u32 source_identity;
	__u32 last_tx_report;
	__u32 last_rx_report;
};

/* Fragments: the first tells the ports of the others. */
struct frag4_key {
	__be32 daddr;
	__be32 saddr;
	__be16 id;
	__u8 protocol;
	__u8 pad;
};

struct frag6_key {
	__be32 id;
	__u8 protocol;
	__u8 pad[3];
	__be32 saddr[4];
	__be32 daddr[4];
};

struct frag_value {
	__be16 sport;
	__be16 dport;
};

/*
 * Events. Every reader has a ring of its own, in the slot of ciliate_events that it took, and says in
 * ciliate_monitor what it wants to see.
 */
#define MONITOR_SLOTS 8

/* Bits of monitor_filter.types: 1 << type of the record. */
#define EVENT_DROP 1
#define EVENT_DEBUG 2
#define EVENT_CAPTURE 3
#define EVENT_TRACE 4

/* Zero in `from`, `to`, `related`: any endpoint. */
struct monitor_filter {
	__u32 types;
	__u16 from;
	__u16 to;
	__u16 related;
	__u16 pad;
};

/* `readers`: bit n for slot n. `types`: all that anybody wants; zero when nobody listens. */
struct monitor_value {
	__u32 readers;
	__u32 types;
	struct monitor_filter filters[MONITOR_SLOTS];
};

/* In front of each record in a ring. `len` counts what follows, the record and the bytes of the packet. */
struct event_head {
	__u64 time_ns;
	__u32 cpu;
	__u32 len;
};

/* Cilium's records, version 2 of drop and version 1 of trace; behind them the first bytes of the packet. */
struct event_common {
	__u8 type;
	__u8 subtype;
	__u16 source;
	__u32 hash;
};

struct event_capture {
	struct event_common common;
	__u32 len_original;
	__u16 len_captured;
	__u16 version;
};

#define EVENT_FLAG_IPV6 1
#define EVENT_FLAG_L3_DEVICE 2
#define EVENT_FLAG_VXLAN 4
#define EVENT_FLAG_GENEVE 8

struct drop_event {
	struct event_capture head;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 destination_id;
	__u16 line;
	__u8 file;
	__s8 ext_error;
	__u32 ifindex;
	__u8 flags;
	__u8 pad[3];
};

struct trace_event {
	struct event_capture head;
	__u32 source_identity;
	__u32 destination_identity;
	__u16 destination_id;
	__u8 reason;
	__u8 flags;
	__u32 ifindex;
	union address original_source;
};

struct debug_event {
	struct event_common common;
	__u32 arg1;
	__u32 arg2;
	__u32 arg3;
};

struct capture_event {
	struct event_capture head;
	__u32 arg1;
	__u32 arg2;
};

/*
 * Services. A frontend is an address, a port and a protocol; slot 0 of it says how it is balanced, slots 1 to
 * `count` are its backends, and those from `count` + 1 on, `quarantined` of them, the ones that are kept out of
 * use. Scope EXT is for everybody, unless the frontend has TWO_SCOPES: then INT is for senders of this cluster.
 */
#define LB_SCOPE_EXT 0
#define LB_SCOPE_INT 1

#define SERVICE_FLAG_EXTERNAL_IP 1
#define SERVICE_FLAG_NODE_PORT 2
#define SERVICE_FLAG_EXT_LOCAL 4
#define SERVICE_FLAG_HOST_PORT 8
#define SERVICE_FLAG_AFFINITY 16
#define SERVICE_FLAG_LOAD_BALANCER 32
#define SERVICE_FLAG_ROUTABLE 64
#define SERVICE_FLAG_SOURCE_RANGE 128

#define SERVICE_FLAG2_LOCAL_REDIRECT 1
#define SERVICE_FLAG2_LOOPBACK 8
#define SERVICE_FLAG2_INT_LOCAL 16
#define SERVICE_FLAG2_TWO_SCOPES 32
#define SERVICE_FLAG2_QUARANTINED 64
#define SERVICE_FLAG2_SOURCE_RANGE_DENY 128

/* Slot 0: bits 24 to 31 of `backend_id` are the algorithm, the others the seconds of session affinity. */
#define LB_ALGORITHM_SHIFT 24
#define LB_AFFINITY_MASK 0xffffff
#define LB_ALGORITHM_RANDOM 1
#define LB_ALGORITHM_MAGLEV 2

struct lb4_key {
	__be32 address;
	__be16 port;
	__u16 slot;
	__u8 protocol;
	__u8 scope;
	__u8 pad[2];
};

struct lb6_key {
	__be32 address[4];
	__be16 port;
	__u16 slot;
	__u8 protocol;
	__u8 scope;
	__u8 pad[2];
};

struct lb_value {
	__u32 backend_id;
	__u16 count;
	__u16 rev_nat;
	__u8 flags;
	__u8 flags2;
	__u16 quarantined;
};

#define BACKEND_ACTIVE 0
#define BACKEND_TERMINATING 1
#define BACKEND_QUARANTINED 2
#define BACKEND_MAINTENANCE 3

struct lb4_backend {
	__be32 address;
	__be16 port;
	__u8 protocol;
	__u8 state;
	__u16 cluster_id;
	__u8 zone;
	__u8 pad;
};

struct lb6_backend {
	__be32 address[4];
	__be16 port;
	__u8 protocol;
	__u8 state;
	__u16 cluster_id;
	__u8 zone;
	__u8 pad;
};

/* What a reply is translated back to. */
struct lb4_reverse_nat {
	__be32 address;
	__be16 port;
} __attribute__((packed));

struct lb6_reverse_nat {
	__be32 address[4];
	__be16 port;
} __attribute__((packed));

/* The client is an address, or for sockets the cookie of their network namespace. */
struct lb4_affinity_key {
	__u64 client;
	__u16 rev_nat;
	__u8 is_cookie;
	__u8 pad[5];
};

struct lb6_affinity_key {
	__u64 client[2];
	__u16 rev_nat;
	__u8 is_cookie;
	__u8 pad[5];
};

/* `last_used` is in seconds of the monotonic clock. */
struct lb_affinity_value {
	__u64 last_used;
	__u32 backend_id;
	__u32 pad;
};

/* Present: the backend belongs to the service, so that a client may be kept there. */
struct lb_affinity_match {
	__u32 backend_id;
	__u16 rev_nat;
	__u16 pad;
};

/* prefix_len counts the 32 bits in front of the address. */
struct lb4_source_range {
	__u32 prefix_len;
	__u16 rev_nat;
	__u16 pad;
	__be32 address;
};

struct lb6_source_range {
	__u32 prefix_len;
	__u16 rev_nat;
	__u16 pad;
	__be32 address[4];
};

/* What a socket that was connected to a service is really connected to, and the service. */
struct lb4_reverse_sk_key {
	__u64 cookie;
	__be32 address;
	__be16 port;
	__u16 pad;
};

struct lb4_reverse_sk_value {
	__be32 address;
	__be16 port;
	__u16 rev_nat;
};

struct lb6_reverse_sk_key {
	__u64 cookie;
	__be32 address[4];
	__be16 port;
	__u16 pad[3];
};

struct lb6_reverse_sk_value {
	__be32 address[4];
	__be16 port;
	__u16 rev_nat;
};

/*
 * ciliate_maglev: a table of backend ids, LB_MAGLEV_TABLE_SIZE of them unless the agent makes the map with
 * another size. Services with the same backends share one: ciliate_maglev_index has a service's, by rev_nat.
 */
#define LB_MAGLEV_TABLE_SIZE 16381

struct maglev_value {
	__u32 backend_ids[LB_MAGLEV_TABLE_SIZE];
};

/*
 * Source addresses and ports that were exchanged for this node's. The key is that of conntrack in form, but stands as
 * the packet does: SNAT_FLAG_OUT for one that is still as its sender sent it, and is to be from `address` and `port`,
 * or SNAT_FLAG_IN for one that comes back, and is to go there. `last_used` is in seconds of the monotonic clock.
 */
#define SNAT_FLAG_OUT 0
#define SNAT_FLAG_IN 1

#define SNAT_DSR 2

struct snat4_value {
	__u64 created;
	/*
	 * 1: the flow is a client's, and has an entry in conntrack; 0: it is this node's. SNAT_DSR: the key is of an
	 * answer, which is from the service at `address` and `port`.
	 */
	__u64 needs_ct;
	__u64 last_used;
	__u64 reserved;
	__be32 address;
	__be16 port;
	__u16 pad;
};

struct snat6_value {
	__u64 created;
	__u64 needs_ct;
	__u64 last_used;
	__u64 reserved;
	__be32 address[4];
	__be16 port;
	__u16 pad[3];
};

_Static_assert(sizeof(struct endpoint_key) == 20, "cilium_lxc key");
_Static_assert(sizeof(struct endpoint_value) == 48, "cilium_lxc value");
_Static_assert(sizeof(struct ipcache_key) == 24, "cilium_ipcache_v2 key");
_Static_assert(sizeof(struct ipcache_value) == 24, "cilium_ipcache_v2 value");
_Static_assert(sizeof(struct metrics_key) == 8, "cilium_metrics key");
_Static_assert(sizeof(struct metrics_value) == 16, "cilium_metrics value");
_Static_assert(sizeof(struct device_value) == 48, "ciliate_device value");
_Static_assert(sizeof(struct node_value) == 64, "ciliate_node value");
_Static_assert(sizeof(struct encryption_value) == 16, "ciliate_encryption value");
_Static_assert(sizeof(struct ct4_key) == 14, "cilium_ct4_global key");
_Static_assert(sizeof(struct ct6_key) == 38, "cilium_ct6_global key");
_Static_assert(sizeof(struct ct_value) == 56, "conntrack value");
_Static_assert(sizeof(struct frag4_key) == 12, "cilium_ipv4_frag_datagrams key");
_Static_assert(sizeof(struct frag6_key) == 40, "cilium_ipv6_frag_datagrams key");
_Static_assert(sizeof(struct monitor_value) == 104, "ciliate_monitor value");
_Static_assert(sizeof(struct event_head) == 16, "event head");
_Static_assert(sizeof(struct drop_event) == 40, "drop record");
_Static_assert(sizeof(struct trace_event) == 48, "trace record");
_Static_assert(sizeof(struct debug_event) == 20, "debug record");
_Static_assert(sizeof(struct capture_event) == 24, "capture record");
_Static_assert(sizeof(struct lb4_key) == 12, "cilium_lb4_services_v2 key");
_Static_assert(sizeof(struct lb6_key) == 24, "cilium_lb6_services_v2 key");
_Static_assert(sizeof(struct lb_value) == 12, "cilium_lb4_services_v2 value");
_Static_assert(sizeof(struct lb4_backend) == 12, "cilium_lb4_backends_v3 value");
_Static_assert(sizeof(struct lb6_backend) == 24, "cilium_lb6_backends_v3 value");
_Static_assert(sizeof(struct lb4_reverse_nat) == 6, "cilium_lb4_reverse_nat value");
_Static_assert(sizeof(struct lb6_reverse_nat) == 18, "cilium_lb6_reverse_nat value");
_Static_assert(sizeof(struct lb4_affinity_key) == 16, "cilium_lb4_affinity key");
_Static_assert(sizeof(struct lb6_affinity_key) == 24, "cilium_lb6_affinity key");
_Static_assert(sizeof(struct lb_affinity_value) == 16, "cilium_lb4_affinity value");
_Static_assert(sizeof(struct lb_affinity_match) == 8, "cilium_lb_affinity_match key");
_Static_assert(sizeof(struct lb4_source_range) == 12, "cilium_lb4_source_range key");
_Static_assert(sizeof(struct lb6_source_range) == 24, "cilium_lb6_source_range key");
_Static_assert(sizeof(struct lb4_reverse_sk_key) == 16, "cilium_lb4_reverse_sk key");
_Static_assert(sizeof(struct lb4_reverse_sk_value) == 8, "cilium_lb4_reverse_sk value");
_Static_assert(sizeof(struct lb6_reverse_sk_key) == 32, "cilium_lb6_reverse_sk key");
_Static_assert(sizeof(struct lb6_reverse_sk_value) == 20, "cilium_lb6_reverse_sk value");
_Static_assert(sizeof(struct underlay_value) == 24, "ciliate_underlay value");
_Static_assert(sizeof(struct snat4_value) == 40, "cilium_snat_v4_external value");
_Static_assert(sizeof(struct snat6_value) == 56, "cilium_snat_v6_external value");

#endif
