/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Out of the tunnel past the host: what another node sent through the tunnel to an endpoint of this one is taken out
 * of the outer packet at the underlay. Only what is simple; of all else the stack, the tunnel's device and its program
 * say what it is.
 */
#ifndef CILIATE_DECAP_PAST_HOST_H
#define CILIATE_DECAP_PAST_HOST_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "endpoint.h"
#include "eth.h"
#include "events.h"
#include "from_tunnel.h"
#include "ipv4.h"
#include "ipv6.h"
#include "tunnel_frame.h"

/* What is in the outer packet. */
struct decap {
	struct ethhdr eth;
	/* The lowest byte is reserved. */
	__u32 id;
	/* What is in the way, behind the outer Ethernet header. */
	__u32 room;
};

/* Whom the packet at `at` is for, if that is an endpoint, and the packet has a hop left. */
static __always_inline const struct endpoint_value *decap_receiver4(struct __sk_buff *skb, __u32 at)
{
	struct iphdr ip4;

	if (bpf_skb_load_bytes(skb, at, &ip4, sizeof(ip4)) || ip4.version != 4 || ip4.ihl < 5 || ip4.ttl <= 1 ||
	    at + ip4.ihl * 4 > skb->len)
		return NULL;
	return endpoint_lookup4(ip4.daddr);
}

static __always_inline const struct endpoint_value *decap_receiver6(struct __sk_buff *skb, __u32 at)
{
	struct ipv6hdr ip6;

	if (bpf_skb_load_bytes(skb, at, &ip6, sizeof(ip6)) || ip6.version != 6 || ip6.hop_limit <= 1)
		return NULL;
	return endpoint_lookup6(ip6.daddr.in6_u.u6_addr32);
}

/*
 * Whether the outer header is followed by that of UDP to the tunnel's port, without a checksum, as long as the packet,
 * and by the tunnel's, without what is reserved; and what is behind that.
 */
static __always_inline int decap_read(const struct tunnel_inside *in, const struct node_value *node, __u32 len,
				      struct decap *decap)
{
	if (in->udp.dest != node->tunnel_port || in->udp.check || in->udp.len != bpf_htons(len) ||
	    in->head.first != tunnel_first_word(node))
		return 0;
	decap->id = bpf_ntohl(in->head.id);
	__builtin_memcpy(&decap->eth, &in->eth, sizeof(in->eth));
	return !(decap->id & 0xff) && decap->id >> 8 != IDENTITY_HOST;
}

/* The same of the whole packet, which is for this node, and was met by no congestion. */
static __always_inline int decap_read4(struct __sk_buff *skb, const struct node_value *node, struct decap *decap)
{
	struct ethhdr *eth = frame_head(skb, ETH_HLEN + TUNNEL_ROOM4);
	struct iphdr *ip4 = (void *)(eth + 1);
	const struct endpoint_value *destination;

	if (!eth || eth->h_proto != bpf_htons(ETH_P_IP) || *(__u8 *)ip4 != 0x45 || ip4->protocol != IPPROTO_UDP ||
	    !decap_read((void *)(ip4 + 1), node, skb->len - IPV4_HEAD_LEN, decap) || ipv4_is_fragment(ip4) ||
	    (ip4->tos & ECN_MASK) == ECN_CONGESTION || ip4->tot_len != bpf_htons(skb->len - ETH_HLEN) ||
	    tunnel_checksum4(ip4))
		return 0;
	decap->room = TUNNEL_ROOM4;
	destination = endpoint_lookup4(ip4->daddr);
	return destination && endpoint_is_host(destination);
}

static __always_inline int decap_read6(struct __sk_buff *skb, const struct node_value *node, struct decap *decap)
{
	struct ethhdr *eth = frame_head(skb, ETH_HLEN + TUNNEL_ROOM6);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	const struct endpoint_value *destination;

	if (!eth || eth->h_proto != bpf_htons(ETH_P_IPV6) || ip6->version != 6 || ip6->nexthdr != IPPROTO_UDP ||
	    !decap_read((void *)(ip6 + 1), node, skb->len - IPV6_HEAD_LEN, decap) ||
	    (bpf_ntohs(*(__be16 *)ip6) >> 4 & ECN_MASK) == ECN_CONGESTION ||
	    ip6->payload_len != bpf_htons(skb->len - IPV6_HEAD_LEN))
		return 0;
	decap->room = TUNNEL_ROOM6;
	destination = endpoint_lookup6(ip6->daddr.in6_u.u6_addr32);
	return destination && endpoint_is_host(destination);
}

/* Until Linux 6.3 programs could not take off a header of another family than what is inside. */
static __always_inline __u64 decap_flags(const struct __sk_buff *skb, const struct decap *decap)
{
	if (skb->protocol == decap->eth.h_proto)
		return 0;
	return decap->eth.h_proto == bpf_htons(ETH_P_IP) ? ROOM_DECAP_L3_IPV4 : ROOM_DECAP_L3_IPV6;
}

/*
 * The endpoint that the frame is for, which has become the one that was inside; NULL: the packet is as it was. What it
 * is told of then is what the tunnel's device would have brought. Makes packet pointers invalid. Out of line: for its
 * stack.
 */
static __noinline const struct endpoint_value *decap_past_host(struct __sk_buff *skb, struct event_scope *scope,
							       const struct node_value *node)
{
	const struct endpoint_value *endpoint;
	struct decap decap = {};
	__u32 at;

	if (skb->pkt_type != PACKET_HOST || skb->vlan_present || skb->gso_size)
		return NULL;
	if (!(skb->protocol == bpf_htons(ETH_P_IP)     ? decap_read4(skb, node, &decap) :
	      skb->protocol == bpf_htons(ETH_P_IPV6) ? decap_read6(skb, node, &decap) :
							 0))
		return NULL;
	at = ETH_HLEN + decap.room;
	if (decap.eth.h_proto == bpf_htons(ETH_P_IP))
		endpoint = decap_receiver4(skb, at);
	else if (decap.eth.h_proto == bpf_htons(ETH_P_IPV6))
		endpoint = decap_receiver6(skb, at);
	else
		return NULL;
	if (!endpoint || endpoint_is_host(endpoint) ||
	    bpf_skb_adjust_room(skb, -(__s32)decap.room, BPF_ADJ_ROOM_MAC, decap_flags(skb, &decap)))
		return NULL;
	/* There is one: the kernel made sure of it. */
	bpf_skb_store_bytes(skb, 0, &decap.eth, sizeof(decap.eth), 0);
	scope->source_identity = decap.id >> 8;
	scope->flags = 0;
	count_forward(skb, REASON_INTERFACE, DIRECTION_INGRESS);
	debug(skb, scope, DEBUG_DECAP, scope->source_identity, 0, 0);
	trace_overlay(skb, scope, TRACE_FROM_OVERLAY, TRACE_REASON_UNKNOWN, node->tunnel_ifindex);
	return endpoint;
}

static __noinline int decap_deliver4(struct __sk_buff *skb, struct event_scope *scope, const struct node_value *node,
				     const struct endpoint_value *endpoint)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ct4_packet packet = {};
	int result;

	if (!eth)
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	from_tunnel_identify4(scope, node, ip4->saddr);
	ipv4_decrement_ttl(ip4);
	result = ct4_read(skb, ip4, &packet, DIRECTION_INGRESS);
	result = from_tunnel_deliver4(skb, scope, eth, endpoint, &packet, result);
	return result < 0 ? drop(skb, scope, -result, DIRECTION_INGRESS) : result;
}

static __noinline int decap_deliver6(struct __sk_buff *skb, struct event_scope *scope, const struct node_value *node,
				     const struct endpoint_value *endpoint)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	struct ct6_packet packet = {};
	int result;

	if (!eth)
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	from_tunnel_identify6(scope, node, ip6->saddr.in6_u.u6_addr32);
	ipv6_decrement_at_underlay(skb, ip6);
	result = ct6_read(skb, ip6, &packet, DIRECTION_INGRESS);
	result = from_tunnel_deliver6(skb, scope, eth, endpoint, &packet, result);
	return result < 0 ? drop(skb, scope, -result, DIRECTION_INGRESS) : result;
}

#endif
