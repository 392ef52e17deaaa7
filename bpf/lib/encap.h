/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Into the tunnel: the packet is given a tunnel key, and the tunnel's device, VXLAN or Geneve, does the
 * rest. The sender's identity travels as the virtual network identifier.
 */
#ifndef CILIATE_ENCAP_H
#define CILIATE_ENCAP_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "by_tunnel.h"
#include "mark.h"
#include "metrics.h"

#define TUNNEL_TTL 64

/* Without the source address, which the kernel chooses by route. Kernels know the structure at this length. */
#define TUNNEL_KEY_LEN __builtin_offsetof(struct bpf_tunnel_key, local_ipv4)

/* What the world is called on the wire, where families don't tell it apart, and this node by others. */
static __always_inline __u32 identity_on_wire(__u32 identity)
{
	switch (identity) {
	case IDENTITY_HOST:
		return IDENTITY_REMOTE_NODE;
	case IDENTITY_WORLD_IPV4:
	case IDENTITY_WORLD_IPV6:
		return IDENTITY_WORLD;
	default:
		return identity;
	}
}

/* No sender of IPv6 goes below that; 0 is no limit. */
static __always_inline __u32 encap_mtu6(const struct node_value *node)
{
	return node->tunnel_mtu && node->tunnel_mtu < IPV6_MTU_MIN ? IPV6_MTU_MIN : node->tunnel_mtu;
}

/*
 * Whether a packet is longer than what the tunnel leaves room for: what is still to be cut into segments, by the
 * longest of them. SCTP's are not of one length. Cutting the outer packet is what the kernel would do instead.
 */
static __always_inline int encap_is_too_long(struct __sk_buff *skb, const struct l4 *l4, __u32 mtu)
{
	__u32 len = skb->len - ETH_HLEN;
	__u8 words;

	if (len <= mtu || !mtu)
		return 0;
	if (!skb->gso_size)
		return 1;
	len = l4->offset - ETH_HLEN + skb->gso_size;
	if (l4->protocol == IPPROTO_UDP)
		return len + UDP_HEAD_LEN > mtu;
	if (l4->protocol != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, l4->offset + TCP_HEAD_WORDS_AT, &words, sizeof(words)))
		return 0;
	return len + (words >> 4) * 4 > mtu;
}

static __always_inline int encap_set_key(struct __sk_buff *skb, const struct ipcache_value *destination,
					 __u32 id)
{
	struct bpf_tunnel_key key = { .tunnel_id = id, .tunnel_ttl = TUNNEL_TTL };
	__u64 flags = BPF_F_ZERO_CSUM_TX;

	if (destination->flags & IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT) {
		flags |= BPF_F_TUNINFO_IPV6;
		ipv6_copy(key.remote_ipv6, destination->tunnel_endpoint.v6);
	} else {
		key.remote_ipv4 = bpf_ntohl(destination->tunnel_endpoint.v4);
	}
	if (bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY_LEN, flags))
		return -DROP_WRITE_ERROR;
	return 0;
}

/* Returns the verdict, or a drop reason. */
static __always_inline int encap_by_device(struct __sk_buff *skb, const struct node_value *node,
					   const struct ipcache_value *destination, __u32 id)
{
	int result = encap_set_key(skb, destination, id);

	return result ? result : (int)bpf_redirect(node->tunnel_ifindex, 0);
}

/* Whether there is where to send it to, and in which form. Returns 0 or a drop reason. */
static __always_inline int encap_check(const struct ipcache_value *destination)
{
	const union address *endpoint = &destination->tunnel_endpoint;

	if (destination->flags & IPCACHE_FLAG_ENDPOINTS && !destination->key)
		return -DROP_UNENCRYPTED;
	if (destination->flags & IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT ? ipv6_is_unspecified(endpoint->v6) : !endpoint->v4)
		return -DROP_NO_TUNNEL_ENDPOINT;
	return 0;
}

/* Tells of the packet, and marks it; `state` is what conntrack knows. */
static __always_inline void encap_tell(struct __sk_buff *skb, struct event_scope *scope, const struct node_value *node,
				       const struct ipcache_value *destination, __u32 id, int state)
{
	scope->destination_identity = destination->identity;
	/* The third argument: which family the first is of. */
	if (destination->flags & IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT)
		debug(skb, scope, DEBUG_ENCAP, destination->tunnel_endpoint.v6[3], scope->source_identity, 1);
	else
		debug(skb, scope, DEBUG_ENCAP, destination->tunnel_endpoint.v4, scope->source_identity, 0);
	trace_overlay(skb, scope, TRACE_TO_OVERLAY, state, node->tunnel_ifindex);
	/* The tunnel leaves the mark on the packet that it makes, and by that the packet finds its way. */
	skb->mark = destination->key ? mark_to_encrypt(id) : mark_overlay(id);
}

/*
 * To the node that the destination is behind. Returns 0, the packet can go to the tunnel's device, or a drop reason.
 */
static __always_inline int encap(struct __sk_buff *skb, struct event_scope *scope, const struct node_value *node,
				 const struct ipcache_value *destination, int state)
{
	__u32 id = identity_on_wire(scope->source_identity);
	int result = encap_check(destination);

	if (!result)
		result = encap_set_key(skb, destination, id);
	if (!result)
		encap_tell(skb, scope, node, destination, id, state);
	return result;
}

#endif
