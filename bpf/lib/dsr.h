/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Direct return: a client's packet goes on to a backend of another node with the client's address, and with an option
 * in its IP header that says which service was asked. That node remembers it, and its backend's answers go to the client
 * straight away, from the service. What is the same for both families.
 *
 * What is remembered stands in the NAT map, by the answer's addresses and ports: SNAT_DSR. Conntrack's entry has
 * CT_BIT_DSR_INTERNAL.
 */
#ifndef CILIATE_DSR_H
#define CILIATE_DSR_H

#include "ipcache.h"
#include "lb.h"
#include "snat.h"

/* Cilium's. An IPv4 router looks no closer, and IPv6 skips what it doesn't know. */
#define DSR_IPV4_TYPE 0x9a
#define DSR_IPV6_TYPE 0x1b

/* Of an entry in conntrack. */
#define DSR_BITS (CT_BIT_NODE_PORT | CT_BIT_DSR_INTERNAL)

/* Behind the fixed part of the header. */
struct dsr4_option {
	__u8 type;
	__u8 len;
	__be16 port;
	__be32 address;
};

/* A header of its own, of destination options: `words` of eight bytes without the first. */
struct dsr6_option {
	__u8 next;
	__u8 words;
	__u8 type;
	__u8 len;
	__be32 address[4];
	__be16 port;
	__u16 pad;
};

static __always_inline int node_returns_directly(const struct node_value *node)
{
	return node->flags & NODE_FLAG_DSR;
}

/* Only a node takes the option off: one that can be reached without a tunnel. */
static __always_inline int dsr_is_possible(const struct ipcache_value *destination)
{
	return destination && !(destination->flags & IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT) &&
	       (destination->flags & IPCACHE_FLAG_SKIP_TUNNEL ||
		identity_is_remote_node(destination->identity));
}

/* Whether a packet carries the option: TCP's first one; with others any may be. Of fragments the first. */
static __always_inline int dsr_is_told(const struct l4 *l4)
{
	return !l4->is_elsewhere && (l4->protocol != IPPROTO_TCP || lb_is_syn(l4));
}

/* Whether conntrack's entry, that a packet answers, is of a client outside. */
static __always_inline int dsr_or_node_port(__u16 reverse, __u16 bits)
{
	return bits & CT_BIT_NODE_PORT && (reverse || bits & CT_BIT_DSR_INTERNAL);
}

/* Whether the option makes a packet longer than its device takes; `mtu` is then as long as it may be without. */
static __always_inline int dsr_is_too_long(struct __sk_buff *skb, __u32 room, __u32 *mtu)
{
	*mtu = 0;
	if (bpf_check_mtu(skb, 0, mtu, room, 0) != BPF_MTU_CHK_RET_FRAG_NEEDED)
		return 0;
	*mtu -= room;
	return 1;
}

/* Room behind the fixed part of the IP header. */
static __always_inline int dsr_make_room(struct __sk_buff *skb, __u32 room)
{
	return bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_NET,
				   BPF_F_ADJ_ROOM_NO_CSUM_RESET | BPF_F_ADJ_ROOM_FIXED_GSO);
}

#endif
