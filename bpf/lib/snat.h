/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows of clients outside that go on to a backend elsewhere: from an address of this node's, so that answers come back
 * here. What is the same for both families.
 *
 * A port is taken for one backend's address and port: others may have the same. This node's own flows from a port of
 * the range are entered as well, as what they are, so that the two never meet; where a client was first, the node's own
 * flow gets another port.
 */
#ifndef CILIATE_SNAT_H
#define CILIATE_SNAT_H

#include "conntrack.h"
#include "endpoint.h"
#ifndef CTX_IS_XDP
#include "way_out.h"
#endif

#define SNAT_TRIES 32

/* How a packet leaves: by the tunnel; and whether the flow is this node's own. */
#define SNAT_BY_TUNNEL 1
#define SNAT_OWN 2

/* What became of a packet to this node: nothing; or it is its own flow's; or on its way to a client. */
#define SNAT_NONE 0
#define SNAT_TO_NODE 1
#define SNAT_TO_CLIENT 2

static __always_inline const struct underlay_value *underlay_lookup(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ciliate_underlay, &zero);
}

static __always_inline int node_has_node_ports(const struct node_value *node)
{
	return node->flags & NODE_FLAG_NODE_PORT;
}

static __always_inline int snat_is_in_range(const struct underlay_value *underlay, __be16 port)
{
	return bpf_ntohs(port) >= underlay->port_min && bpf_ntohs(port) <= underlay->port_max;
}

/* Any number, made a port of the range. */
static __always_inline __be16 snat_scale(const struct underlay_value *underlay, __u16 number)
{
	__u32 ports = (__u32)underlay->port_max - underlay->port_min + 1;

	return bpf_htons(underlay->port_min + (number * ports >> 16));
}

/* How long nobody else gets a port of this node's own. */
static __always_inline __u32 snat_lifetime(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? ct_lifetime_tcp : ct_lifetime_other;
}

#endif
