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

/* ciliate_node: one element, this node. */
struct node_value {
	__be32 router_ipv4;
	__be32 router_ipv6[4];
	__u32 host_ifindex;
	__u32 net_ifindex;
	__u8 host_mac[ETH_ADDR_LEN];
	__u8 host_mac_pad[2];
	__u8 net_mac[ETH_ADDR_LEN];
	__u8 net_mac_pad[2];
	__u32 flags;
};

_Static_assert(sizeof(struct endpoint_key) == 20, "cilium_lxc key");
_Static_assert(sizeof(struct endpoint_value) == 48, "cilium_lxc value");
_Static_assert(sizeof(struct ipcache_key) == 24, "cilium_ipcache_v2 key");
_Static_assert(sizeof(struct ipcache_value) == 24, "cilium_ipcache_v2 value");
_Static_assert(sizeof(struct metrics_key) == 8, "cilium_metrics key");
_Static_assert(sizeof(struct metrics_value) == 16, "cilium_metrics value");
_Static_assert(sizeof(struct device_value) == 48, "ciliate_device value");
_Static_assert(sizeof(struct node_value) == 48, "ciliate_node value");

#endif
