/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Conntrack of IPv6. */
#ifndef CILIATE_CONNTRACK6_H
#define CILIATE_CONNTRACK6_H

#include <linux/ipv6.h>

#include "conntrack.h"
#include "ipv6.h"

#define CT(name) ct6_##name
#define CT_MAP_TCP cilium_ct6_global
#define CT_MAP_ANY cilium_ct_any6_global
#define CT_ICMP IPV6_NEXT_ICMP
#define CT_DEBUG_LOOKUP_1 DEBUG_CT_LOOKUP6_1
#define CT_DEBUG_LOOKUP_2 DEBUG_CT_LOOKUP6_2
#define CT_DEBUG_CREATED DEBUG_CT_CREATED6

struct ct6_packet;

static __always_inline void ct6_set_ports(struct ct6_key *key, __u32 ports)
{
	key->dport = ports;
	key->sport = ports >> 16;
}

static __always_inline void ct6_flip(struct ct6_key *key)
{
	__be32 address[4];
	__be16 port = key->dport;

	ipv6_copy(address, key->daddr);
	ipv6_copy(key->daddr, key->saddr);
	ipv6_copy(key->saddr, address);
	key->dport = key->sport;
	key->sport = port;
	key->flags ^= CT_FLAG_IN;
}

/* There is room for the last word. */
static __always_inline __u32 ct6_debug_address(const __be32 *address)
{
	return address[3];
}

static __always_inline int ct6_quoted(struct ctx_frame *ctx, struct ct6_packet *packet,
				      struct ct6_key *key);

#include "conntrack_family.h"

#define ICMP6_HEAD_LEN 8

/* The key of the packet that an ICMPv6 error quotes. Negative when there is none to be had. */
static __always_inline int ct6_quoted(struct ctx_frame *ctx, struct ct6_packet *packet,
				      struct ct6_key *key)
{
	__u32 at = packet->l4.offset + ICMP6_HEAD_LEN;
	struct ipv6_upper upper = {};
	struct l4 l4 = {};
	struct ipv6hdr ip6;

	if (ctx_load_bytes(ctx, at, &ip6, sizeof(ip6)) || ip6.version != 6)
		return -1;
	/* Errors go to who sent the packet. */
	if (!ipv6_equal(ip6.saddr.in6_u.u6_addr32, packet->key.daddr))
		return -1;
	upper.offset = at + sizeof(ip6);
	upper.protocol = ip6.nexthdr;
	if (ipv6_find_upper(ctx, &upper) || upper.fragment & bpf_htons(IPV6_FRAGMENT_OFFSET))
		return -1;
	l4.offset = upper.offset;
	l4.protocol = upper.protocol;
	if (l4_load(ctx, &l4, IPV6_NEXT_ICMP, 1))
		return -1;
	packet->quoted_at = l4.offset;
	ipv6_copy(key->daddr, ip6.daddr.in6_u.u6_addr32);
	ipv6_copy(key->saddr, ip6.saddr.in6_u.u6_addr32);
	key->protocol = l4.protocol;
	ct6_set_ports(key, l4.ports);
	return 0;
}

/* What conntrack has to know of a packet. Returns 0 or a drop reason. */
static __always_inline int ct6_read(struct ctx_frame *ctx, const struct ipv6hdr *ip6, struct ct6_packet *packet,
				    __u8 direction)
{
	int result;

	packet->now = ct_now();
	packet->l4 = (struct l4){ .offset = IPV6_HEAD_LEN, .protocol = ip6->nexthdr };
	ipv6_copy(packet->key.daddr, ip6->daddr.in6_u.u6_addr32);
	ipv6_copy(packet->key.saddr, ip6->saddr.in6_u.u6_addr32);
	if (unlikely(ipv6_is_extension(ip6->nexthdr) || ip6->nexthdr == IPV6_NEXT_FRAGMENT ||
		     ip6->nexthdr == IPV6_NEXT_NONE))
		result = ipv6_l4(ctx, &packet->l4, direction);
	else
		result = l4_read(ctx, &packet->l4, IPV6_NEXT_ICMP);
	packet->key.protocol = packet->l4.protocol;
	ct6_set_ports(&packet->key, packet->l4.ports);
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
