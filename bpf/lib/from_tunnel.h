/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What came by a tunnel, and is for an endpoint of this node: who sent it, and handing it over. */
#ifndef CILIATE_FROM_TUNNEL_H
#define CILIATE_FROM_TUNNEL_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include <linux/pkt_cls.h>

#include "conntrack4.h"
#include "conntrack6.h"
#include "endpoint.h"
#include "eth.h"
#include "events.h"
#include "ipcache.h"
#include "ipv4.h"
#include "ipv6.h"
#include "local_delivery.h"
#include "metrics.h"

/*
 * Who sent it, by what is on the wire, where there is one world. Returns whether that is another node's stack: of what
 * that sent, the ipcache may know more of the address.
 */
static __always_inline int from_tunnel_is_of_a_stack(struct event_scope *scope, const struct node_value *node,
						     __u32 world)
{
	if (scope->source_identity == IDENTITY_WORLD && node->flags & NODE_FLAG_TWO_WORLDS)
		scope->source_identity = world;
	return identity_is_remote_node(scope->source_identity);
}

static __always_inline void from_tunnel_learn(struct event_scope *scope, const struct ipcache_value *source)
{
	if (source)
		scope->source_identity = source->identity;
}

static __always_inline void from_tunnel_identify4(struct event_scope *scope, const struct node_value *node, __be32 address)
{
	if (from_tunnel_is_of_a_stack(scope, node, IDENTITY_WORLD_IPV4))
		from_tunnel_learn(scope, ipcache_lookup4(address));
}

static __always_inline void from_tunnel_identify6(struct event_scope *scope, const struct node_value *node,
						  const __be32 *address)
{
	if (from_tunnel_is_of_a_stack(scope, node, IDENTITY_WORLD_IPV6))
		from_tunnel_learn(scope, ipcache_lookup6(address));
}

static __always_inline int from_tunnel_hand_over(struct __sk_buff *skb, const struct endpoint_value *endpoint)
{
	/* To the tunnel's device the frame was somebody else's, by its address. */
	bpf_skb_change_type(skb, PACKET_HOST);
	count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

/* Past the host's stack. The hop is taken, `result` is what conntrack could read. Returns the verdict, or a drop reason. */
static __always_inline int from_tunnel_deliver4(struct __sk_buff *skb, struct event_scope *scope, struct ethhdr *eth,
						const struct endpoint_value *endpoint, struct ct4_packet *packet,
						int result)
{
	if (!result)
		result = local_delivery4(skb, scope, eth, endpoint, packet, CT_INGRESS | CT_FROM_TUNNEL);
	return result ? result : from_tunnel_hand_over(skb, endpoint);
}

static __always_inline int from_tunnel_deliver6(struct __sk_buff *skb, struct event_scope *scope, struct ethhdr *eth,
						const struct endpoint_value *endpoint, struct ct6_packet *packet,
						int result)
{
	if (!result)
		result = local_delivery6(skb, scope, eth, endpoint, packet, CT_INGRESS | CT_FROM_TUNNEL);
	return result ? result : from_tunnel_hand_over(skb, endpoint);
}

#endif
