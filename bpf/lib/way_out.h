/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Out of this node by the kernel's route, past its stack, for packets that are from a service or to its backend. */
#ifndef CILIATE_WAY_OUT_H
#define CILIATE_WAY_OUT_H

#include "eth.h"
#include "events.h"
#include "host_routing.h"
#include "ipv4.h"
#include "ipv6.h"
#include "mark.h"
#include "metrics.h"

/* What else a packet is told of: what its program counts drops as, and whether a hop is taken. */
#define WAY_OUT_EGRESS 1
#define WAY_OUT_HOP 2

static __always_inline __u8 way_out_direction(__u32 how)
{
	return how & WAY_OUT_EGRESS ? DIRECTION_EGRESS : DIRECTION_INGRESS;
}

/* The mark: nothing is to exchange its source once more. */
static __always_inline int way_out_taken(struct __sk_buff *skb, struct event_scope *scope, int verdict,
					 __u32 ifindex, int state, __u32 how)
{
	if (verdict == TC_ACT_UNSPEC)
		return drop(skb, scope, DROP_NO_ROUTE, way_out_direction(how));
	skb->mark = MARK_MAGIC_SNAT_DONE;
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	trace(skb, scope, TRACE_TO_NETWORK, state, ifindex);
	capture(skb, scope, CAPTURE_DELIVERY, ifindex);
	return verdict;
}

/* `state` is what conntrack knows. Makes packet pointers invalid. */
static __noinline int way_out4(struct __sk_buff *skb, struct event_scope *scope, int state, __u32 how)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	__u32 ifindex = 0;
	int verdict;

	if (!eth)
		return drop(skb, scope, DROP_INVALID_PACKET, way_out_direction(how));
	if (how & WAY_OUT_HOP && !ipv4_decrement_ttl(ip4))
		return drop(skb, scope, DROP_TTL_EXCEEDED, way_out_direction(how));
	verdict = route4(skb, ip4, &ifindex);
	return way_out_taken(skb, scope, verdict, ifindex, state, how);
}

static __noinline int way_out6(struct __sk_buff *skb, struct event_scope *scope, int state, __u32 how)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u32 ifindex = 0;
	int verdict;

	if (!eth)
		return drop(skb, scope, DROP_INVALID_PACKET, way_out_direction(how));
	if (how & WAY_OUT_HOP && !ipv6_decrement_hop_limit(ip6))
		return drop(skb, scope, DROP_TTL_EXCEEDED, way_out_direction(how));
	verdict = route6(skb, ip6, &ifindex);
	return way_out_taken(skb, scope, verdict, ifindex, state, how);
}

#endif
