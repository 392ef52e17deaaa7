/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whether a packet is to go by the tunnel, or looks as if it had come by it. */
#ifndef CILIATE_BY_TUNNEL_H
#define CILIATE_BY_TUNNEL_H

#include "ipcache.h"
#include "l4.h"
#include "maps.h"

/* Whether the way to the destination is the tunnel. The node has to have one. */
static __always_inline int goes_by_tunnel(const struct ipcache_value *destination)
{
	return destination &&
	       (destination->flags & (IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT | IPCACHE_FLAG_SKIP_TUNNEL)) ==
		       IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT;
}

/*
 * To the port where tunnels end. What takes the packet there takes its content for another node's, with any
 * sender and any identity; only nodes may send such. Fragments have the ports of the first one.
 */
static __always_inline int encap_is_forged(const struct l4 *l4, const struct node_value *node)
{
	return node && node->tunnel_port && l4->protocol == IPPROTO_UDP && l4->ports >> 16 == node->tunnel_port;
}

#endif
