/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What leaves by the underlay: whether it has to be encrypted first, or must not leave at all. */
#ifndef CILIATE_LEAVING_H
#define CILIATE_LEAVING_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "encrypt.h"
#include "endpoint.h"
#include "events.h"
#include "ipcache.h"
#include "ipv4.h"
#include "ipv6.h"
#include "mark.h"

#define LEAVING_PASS 0
#define LEAVING_ENCRYPT 1
#define LEAVING_FORBID 2

/* Solicitations and advertisements of routers and neighbours, and redirects. */
#define ND_TYPE_MIN 133
#define ND_TYPE_MAX 137
#define ND_HOP_LIMIT 255

/* What a packet is that is about to leave. */
struct leaving {
	__u32 magic;
	const struct ipcache_value *source;
	const struct ipcache_value *destination;
	__u8 protocol;
	__be16 source_port;
	__be16 destination_port;
};

/* The ports of UDP behind a header of `len` bytes; of a fragment that is not the first, nothing. */
static __always_inline void leaving_ports(struct __sk_buff *skb, struct leaving *leaving, __u32 len)
{
	__be16 ports[2];

	if (leaving->protocol != IPPROTO_UDP ||
	    bpf_skb_load_bytes_relative(skb, len, ports, sizeof(ports), BPF_HDR_START_NET))
		return;
	leaving->source_port = ports[0];
	leaving->destination_port = ports[1];
}

static __always_inline int is_of_host(const struct ipcache_value *value)
{
	return value && value->identity == IDENTITY_HOST;
}

/* Whether the packet has to be encrypted, and was not. */
static __always_inline int is_to_encrypt(const struct leaving *leaving, const struct encryption_value *encryption)
{
	const struct ipcache_value *source = leaving->source;

	if (leaving->magic == MARK_MAGIC_ENCRYPT)
		return 1;
	if (!has_key(leaving->destination) || !source)
		return 0;
	/* WireGuard's own, should somebody have taken away its mark. */
	if (is_of_host(source) && leaving->protocol == IPPROTO_UDP && leaving->source_port == encryption->port)
		return 0;
	if (is_guarded(source))
		return 1;
	if (is_of_host(source))
		return encryption->flags & ENCRYPTION_FLAG_NODES;
	/* What the host forwards for others is theirs; peers would not take it from here. */
	return !identity_is_world(source->identity) && !identity_is_remote_node(source->identity);
}

/* Whether the packet must not leave as it is, and cannot be encrypted either. */
static __always_inline int is_forbidden(const struct leaving *leaving, const struct encryption_value *encryption,
					const struct node_value *node)
{
	if (!(encryption->flags & ENCRYPTION_FLAG_STRICT))
		return 0;
	if (leaving->magic == MARK_MAGIC_OVERLAY)
		return 1;
	if (is_guarded(leaving->source) && is_guarded(leaving->destination))
		return 1;
	/* Of the tunnel, should somebody have taken away its mark. */
	return node && node->tunnel_port && is_of_host(leaving->source) && leaving->protocol == IPPROTO_UDP &&
	       leaving->destination_port == node->tunnel_port;
}

/* For events, and as the mark: who sent it. */
static __always_inline void leaving_identify(const struct __sk_buff *skb, struct event_scope *scope,
					     const struct leaving *leaving)
{
	scope->source_identity = mark_identity(skb->mark);
	if (scope->source_identity == IDENTITY_UNKNOWN && leaving->source)
		scope->source_identity = leaving->source->identity;
	scope->destination_identity = ipcache_identity(leaving->destination);
}

static __always_inline int leaving_verdict(struct __sk_buff *skb, struct event_scope *scope,
					   const struct leaving *leaving,
					   const struct encryption_value *encryption)
{
	if (is_to_encrypt(leaving, encryption)) {
		leaving_identify(skb, scope, leaving);
		return encryption->ifindex ? LEAVING_ENCRYPT : LEAVING_FORBID;
	}
	if (is_forbidden(leaving, encryption, node_lookup())) {
		leaving_identify(skb, scope, leaving);
		return LEAVING_FORBID;
	}
	return LEAVING_PASS;
}

static __noinline int leaving4(struct __sk_buff *skb, struct event_scope *scope)
{
	const struct encryption_value *encryption = encryption_lookup();
	struct leaving leaving = { .magic = skb->mark & MARK_MAGIC_MASK };
	struct iphdr ip4;

	if (!encryption || bpf_skb_load_bytes_relative(skb, 0, &ip4, sizeof(ip4), BPF_HDR_START_NET))
		return LEAVING_PASS;
	leaving.source = ipcache_lookup4(ip4.saddr);
	leaving.destination = ipcache_lookup4(ip4.daddr);
	leaving.protocol = ip4.protocol;
	if (!(ip4.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET)))
		leaving_ports(skb, &leaving, ip4.ihl * 4);
	return leaving_verdict(skb, scope, &leaving, encryption);
}

/* Neighbours have to be found before anything can be encrypted. */
static __always_inline int is_neighbour_discovery(struct __sk_buff *skb, const struct ipv6hdr *ip6)
{
	__u8 type;

	return ip6->nexthdr == IPV6_NEXT_ICMP && ip6->hop_limit == ND_HOP_LIMIT &&
	       !bpf_skb_load_bytes_relative(skb, sizeof(*ip6), &type, sizeof(type), BPF_HDR_START_NET) &&
	       type >= ND_TYPE_MIN && type <= ND_TYPE_MAX;
}

static __noinline int leaving6(struct __sk_buff *skb, struct event_scope *scope)
{
	const struct encryption_value *encryption = encryption_lookup();
	struct leaving leaving = { .magic = skb->mark & MARK_MAGIC_MASK };
	struct ipv6hdr ip6;

	if (!encryption || bpf_skb_load_bytes_relative(skb, 0, &ip6, sizeof(ip6), BPF_HDR_START_NET) ||
	    is_neighbour_discovery(skb, &ip6))
		return LEAVING_PASS;
	leaving.source = ipcache_lookup6(ip6.saddr.in6_u.u6_addr32);
	leaving.destination = ipcache_lookup6(ip6.daddr.in6_u.u6_addr32);
	leaving.protocol = ip6.nexthdr;
	leaving_ports(skb, &leaving, sizeof(ip6));
	return leaving_verdict(skb, scope, &leaving, encryption);
}

#endif
