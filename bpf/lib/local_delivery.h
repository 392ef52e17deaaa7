/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Handing a packet to an endpoint of this node. */
#ifndef CILIATE_LOCAL_DELIVERY_H
#define CILIATE_LOCAL_DELIVERY_H

#include "endpoint.h"
#include "eth.h"
#include "mark.h"

/* Addresses the frame as if the endpoint's host-side device had sent it, and says who did. */
static __always_inline void local_delivery_prepare(struct __sk_buff *skb, struct ethhdr *eth,
						   const struct endpoint_value *endpoint, __u32 source_identity)
{
	eth_addr_copy(eth->h_source, endpoint->node_mac);
	eth_addr_copy(eth->h_dest, endpoint->mac);
	skb->mark = mark_with_identity(source_identity);
}

#endif
