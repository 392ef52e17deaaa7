/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Handing a packet to an endpoint of this node. */
#ifndef CILIATE_LOCAL_DELIVERY_H
#define CILIATE_LOCAL_DELIVERY_H

#include "conntrack4.h"
#include "conntrack6.h"
#include "endpoint.h"
#include "eth.h"
#include "events.h"
#include "lb4.h"
#include "lb6.h"
#include "mark.h"

/*
 * Addresses the frame as if the endpoint's host-side device had sent it, and says who did. From here on
 * events are the receiver's.
 */
static __always_inline void local_delivery_prepare(struct __sk_buff *skb, struct event_scope *scope,
						   struct ethhdr *eth, const struct endpoint_value *endpoint)
{
	debug(skb, scope, DEBUG_DELIVERY, endpoint->endpoint_id, scope->source_identity, 0);
	eth_addr_copy(eth->h_source, endpoint->node_mac);
	eth_addr_copy(eth->h_dest, endpoint->mac);
	skb->mark = mark_with_identity(scope->source_identity);
	scope->destination_identity = endpoint->identity;
	scope->source = endpoint->endpoint_id;
	scope->destination = endpoint->endpoint_id;
}

static __always_inline void local_delivery_tell(struct __sk_buff *skb, const struct event_scope *scope,
						const struct endpoint_value *endpoint, int state)
{
	trace(skb, scope, TRACE_TO_ENDPOINT, state, endpoint->ifindex);
	capture(skb, scope, CAPTURE_DELIVERY, endpoint->ifindex);
}

/*
 * Returns 0, the packet can go to the endpoint, or a drop reason. `how` is CT_INGRESS and what belongs to it. Answers
 * of a service's backend come from the service again. Makes packet pointers invalid.
 */
static __always_inline int local_delivery4(struct __sk_buff *skb, struct event_scope *scope, struct ethhdr *eth,
					   const struct endpoint_value *endpoint,
					   struct ct4_packet *packet, __u32 how)
{
	int state;

	local_delivery_prepare(skb, scope, eth, endpoint);
	state = ct4_track(skb, scope, packet, how);
	if (state < 0)
		return state;
	if (packet->reverse) {
		int result;

		if (unlikely(scope->wanted))
			scope->original_source.v4 = packet->key.saddr;
		result = lb4_reverse(skb, packet);
		if (result)
			return result;
	}
	local_delivery_tell(skb, scope, endpoint, state);
	return 0;
}

static __always_inline int local_delivery6(struct __sk_buff *skb, struct event_scope *scope, struct ethhdr *eth,
					   const struct endpoint_value *endpoint,
					   struct ct6_packet *packet, __u32 how)
{
	int state;

	local_delivery_prepare(skb, scope, eth, endpoint);
	state = ct6_track(skb, scope, packet, how);
	if (state < 0)
		return state;
	if (packet->reverse) {
		int result;

		if (unlikely(scope->wanted))
			ipv6_copy(scope->original_source.v6, packet->key.saddr);
		result = lb6_reverse(skb, packet);
		if (result)
			return result;
	}
	local_delivery_tell(skb, scope, endpoint, state);
	return 0;
}

#endif
