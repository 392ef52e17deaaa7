/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Conntrack of IPv4. */
#ifndef CILIATE_CONNTRACK4_H
#define CILIATE_CONNTRACK4_H

#include <linux/ip.h>

#include "conntrack.h"
#include "ipv4.h"

#define CT(name) ct4_##name
#define CT_MAP_TCP cilium_ct4_global
#define CT_MAP_ANY cilium_ct_any4_global
#define CT_ICMP IPPROTO_ICMP
#define CT_DEBUG_LOOKUP_1 DEBUG_CT_LOOKUP4_1
#define CT_DEBUG_LOOKUP_2 DEBUG_CT_LOOKUP4_2
#define CT_DEBUG_CREATED DEBUG_CT_CREATED4

struct ct4_packet;

/* The two directions of a flow in one word: both ports at once. */
static __always_inline void ct4_set_ports(struct ct4_key *key, __u32 ports)
{
	key->dport = ports;
	key->sport = ports >> 16;
}

/* From an answer's key to that of the flow, and back. */
static __always_inline void ct4_flip(struct ct4_key *key)
{
	__be32 address = key->daddr;
	__be16 port = key->dport;

	key->daddr = key->saddr;
	key->saddr = address;
	key->dport = key->sport;
	key->sport = port;
	key->flags ^= CT_FLAG_IN;
}

static __always_inline __u32 ct4_debug_address(__be32 address)
{
	return address;
}

static __always_inline int ct4_quoted(struct ctx_frame *ctx, struct ct4_packet *packet,
				      struct ct4_key *key);

#include "conntrack_family.h"

#define ICMP_HEAD_LEN 8

/* The key of the packet that an ICMP error quotes. Negative when there is none to be had. */
static __always_inline int ct4_quoted(struct ctx_frame *ctx, struct ct4_packet *packet,
				      struct ct4_key *key)
{
	__u32 at = packet->l4.offset + ICMP_HEAD_LEN;
	struct l4 l4 = {};
	struct iphdr ip4;

	if (ctx_load_bytes(ctx, at, &ip4, sizeof(ip4)) || ip4.version != 4 || ip4.ihl < 5 ||
	    ip4.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return -1;
	/* Errors go to who sent the packet. */
	if (ip4.saddr != packet->key.daddr)
		return -1;
	l4.offset = at + ip4.ihl * 4;
	l4.protocol = ip4.protocol;
	if (l4_load(ctx, &l4, IPPROTO_ICMP, 1))
		return -1;
	packet->quoted_at = l4.offset;
	key->daddr = ip4.daddr;
	key->saddr = ip4.saddr;
	key->protocol = ip4.protocol;
	ct4_set_ports(key, l4.ports);
	return 0;
}

/* What conntrack has to know of a packet. Returns 0 or a drop reason. */
static __always_inline int ct4_read(struct ctx_frame *ctx, const struct iphdr *ip4, struct ct4_packet *packet,
				    __u8 direction)
{
	int result;

	packet->now = ct_now();
	packet->l4 = (struct l4){ .offset = ETH_HLEN + ip4->ihl * 4, .protocol = ip4->protocol };
	packet->key.daddr = ip4->daddr;
	packet->key.saddr = ip4->saddr;
	packet->key.protocol = ip4->protocol;
	if (unlikely(ipv4_is_fragment(ip4)))
		result = ipv4_fragment(ctx, &packet->l4, direction);
	else
		result = l4_read(ctx, &packet->l4, IPPROTO_ICMP);
	ct4_set_ports(&packet->key, packet->l4.ports);
	return result;
}

#undef CT
#undef CT_MAP_TCP
#undef CT_MAP_ANY
#undef CT_ICMP
#undef CT_DEBUG_LOOKUP_1
#undef CT_DEBUG_LOOKUP_2
#undef CT_DEBUG_CREATED

#endif
