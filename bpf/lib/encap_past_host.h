/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Into the tunnel past the host: the program puts around a frame what the tunnel's device would, byte for byte, and
 * sends it out of the underlay by the kernel's route. Only what is simple; all else is the device's, and both may
 * send packets of one flow.
 */
#ifndef CILIATE_ENCAP_PAST_HOST_H
#define CILIATE_ENCAP_PAST_HOST_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <linux/pkt_cls.h>

#include "encap.h"
#include "eth.h"
#include "host_routing.h"
#include "tunnel_frame.h"

/* A frame is inside of UDP; to checksums, what they were of. */
#define ENCAP_ROOM_FLAGS                                                                       \
	(BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH | \
	 BPF_F_ADJ_ROOM_NO_CSUM_RESET)

/*
 * Whether it is simple: one packet, that needs no cutting, to a node that it needs no encryption to. Whatever the
 * identity, the device has the same for it.
 */
static __always_inline int encap_is_simple(struct __sk_buff *skb, const struct node_value *node,
					   const struct ipcache_value *destination)
{
	return routes_past_host(node) && !skb->gso_size && !destination->key &&
	       !(destination->flags & IPCACHE_FLAG_ENDPOINTS) && skb->len <= node->tunnel_mtu + ETH_HLEN;
}

/* As the kernel makes it of the flow, so that all of a flow takes one way. 0: the kernel would do otherwise. */
static __always_inline __u16 encap_source_port(struct __sk_buff *skb, const struct node_value *node)
{
	__u32 min = node->tunnel_source_min, max = node->tunnel_source_max, hash = bpf_get_hash_recalc(skb);

	if (!hash || max < min)
		return 0;
	hash ^= hash << 16;
	return ((__u64)hash * (max - min) >> 32) + min;
}

/* The inner packet's congestion, as RFC 6040 has it on the outer one; what was met already stays inside. */
static __always_inline __u8 encap_congestion(struct __sk_buff *skb)
{
	__u8 head[2], ecn;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, head, sizeof(head)))
		return 0;
	ecn = (skb->protocol == bpf_htons(ETH_P_IP) ? head[1] : head[1] >> 4) & ECN_MASK;
	return ecn == ECN_CONGESTION ? ECN_CAPABLE : ecn;
}

/* What is behind the outer IP header; `len` is that of all of it. */
static __always_inline void encap_fill(struct tunnel_inside *in, struct ethhdr *eth, const struct node_value *node,
				       const struct bpf_fib_lookup *route, __u32 len, __u32 id, __be16 protocol)
{
	in->udp.source = route->sport;
	in->udp.dest = node->tunnel_port;
	in->udp.len = bpf_htons(len);
	in->udp.check = 0;
	in->head.first = tunnel_first_word(node);
	in->head.id = bpf_htonl(id << 8);
	eth_addr_copy(in->eth.h_dest, eth->h_dest);
	eth_addr_copy(in->eth.h_source, eth->h_source);
	in->eth.h_proto = protocol;
}

/* Returns 0, TC_ACT_UNSPEC: the packet is as it was; or a drop reason. */
static __always_inline int encap_write4(struct __sk_buff *skb, const struct node_value *node,
					const struct bpf_fib_lookup *route, __be32 destination, __u32 id, __u8 tos)
{
	const __u64 flags = ENCAP_ROOM_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	__be16 protocol = skb->protocol;
	struct ethhdr *eth;
	struct iphdr *ip4;

	if (bpf_skb_adjust_room(skb, TUNNEL_ROOM4, BPF_ADJ_ROOM_MAC, flags))
		return TC_ACT_UNSPEC;
	eth = frame_head(skb, ETH_HLEN + TUNNEL_ROOM4);
	if (!eth)
		return -DROP_WRITE_ERROR;
	ip4 = (void *)(eth + 1);
	encap_fill((void *)(ip4 + 1), eth, node, route, skb->len - IPV4_HEAD_LEN, id, protocol);
	eth->h_proto = bpf_htons(ETH_P_IP);
	*(__be16 *)ip4 = bpf_htons(0x4500 | tos);
	ip4->tot_len = bpf_htons(skb->len - ETH_HLEN);
	ip4->id = bpf_get_prandom_u32();
	ip4->frag_off = 0;
	ip4->ttl = TUNNEL_TTL;
	ip4->protocol = IPPROTO_UDP;
	ip4->check = 0;
	ip4->saddr = route->ipv4_src;
	ip4->daddr = destination;
	ip4->check = tunnel_checksum4(ip4);
	return 0;
}

static __always_inline int encap_write6(struct __sk_buff *skb, const struct node_value *node,
					const struct bpf_fib_lookup *route, const __be32 *destination, __u32 id,
					__u8 tos)
{
	const __u64 flags = ENCAP_ROOM_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	__be16 protocol = skb->protocol;
	struct ipv6hdr *ip6;
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(skb, TUNNEL_ROOM6, BPF_ADJ_ROOM_MAC, flags))
		return TC_ACT_UNSPEC;
	eth = frame_head(skb, ETH_HLEN + TUNNEL_ROOM6);
	if (!eth)
		return -DROP_WRITE_ERROR;
	ip6 = (void *)(eth + 1);
	encap_fill((void *)(ip6 + 1), eth, node, route, skb->len - IPV6_HEAD_LEN, id, protocol);
	eth->h_proto = bpf_htons(ETH_P_IPV6);
	*(__be32 *)ip6 = bpf_htonl(0x60000000 | tos << 20);
	ip6->payload_len = bpf_htons(skb->len - IPV6_HEAD_LEN);
	ip6->nexthdr = IPPROTO_UDP;
	ip6->hop_limit = TUNNEL_TTL;
	ipv6_copy(ip6->saddr.in6_u.u6_addr32, route->ipv6_src);
	ipv6_copy(ip6->daddr.in6_u.u6_addr32, destination);
	return 0;
}

/* The kernel's route to the other end, and the address that this end has by it. */
static __always_inline int encap_route(struct __sk_buff *skb, struct bpf_fib_lookup *route,
				       const struct ipcache_value *destination)
{
	long result;

	if (route->family == FAMILY_INET6)
		ipv6_copy(route->ipv6_dst, destination->tunnel_endpoint.v6);
	else
		route->ipv4_dst = destination->tunnel_endpoint.v4;
	result = bpf_fib_lookup(skb, route, sizeof(*route), FIB_LOOKUP_SRC | FIB_LOOKUP_SKIP_NEIGH);
	return result == BPF_FIB_LKUP_RET_SUCCESS || result == BPF_FIB_LKUP_RET_NO_NEIGH ? 0 : -1;
}

/*
 * Returns the verdict; TC_ACT_UNSPEC: the packet is as it was, and the device's; or a drop reason, which is less. Makes
 * packet pointers invalid. Out of line: for its stack.
 */
static __noinline int encap_past_host(struct __sk_buff *skb, const struct node_value *node,
				      const struct ipcache_value *destination, __u32 id)
{
	int v6 = destination->flags & IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT;
	struct bpf_fib_lookup route = {
		.family = v6 ? FAMILY_INET6 : FAMILY_INET,
		.l4_protocol = IPPROTO_UDP,
		.dport = node->tunnel_port,
		.tot_len = skb->len - ETH_HLEN + (v6 ? TUNNEL_ROOM6 : TUNNEL_ROOM4),
		.ifindex = skb->ifindex,
	};
	struct bpf_redir_neigh hop = {};
	__u8 tos = encap_congestion(skb);
	int result;

	route.sport = bpf_htons(encap_source_port(skb, node));
	if (!route.sport || encap_route(skb, &route, destination))
		return TC_ACT_UNSPEC;
	if (v6)
		result = encap_write6(skb, node, &route, destination->tunnel_endpoint.v6, id, tos);
	else
		result = encap_write4(skb, node, &route, destination->tunnel_endpoint.v4, id, tos);
	if (result)
		return result;
	/* The lookup put the next hop where the destination was. */
	hop.nh_family = route.family;
	ipv6_copy(hop.ipv6_nh, route.ipv6_dst);
	return bpf_redirect_neigh(route.ifindex, &hop, sizeof(hop), 0);
}

#endif
