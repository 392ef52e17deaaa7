/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The IPv4 header: whether it is one, the time to live, kinds of addresses, fragments. */
#ifndef CILIATE_IPV4_H
#define CILIATE_IPV4_H

#include <linux/ip.h>

#include "checksum.h"
#include "eth.h"
#include "l4.h"
#include "maps.h"
#include "metrics.h"

#define IPV4_HEAD_LEN (ETH_HLEN + sizeof(struct iphdr))

/* Of the field frag_off. */
#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff

/* Version 4, and options, if any, lie inside the frame. Checksum and total length are the receiver's. */
static __always_inline int ipv4_is_valid(struct ctx_frame *ctx, const struct iphdr *ip4)
{
	return ip4->version == 4 && ip4->ihl >= 5 && ETH_HLEN + ip4->ihl * 4 <= ctx_len(ctx);
}

/* Returns 0, and changes nothing, when the packet must not go further. */
static __always_inline int ipv4_decrement_ttl(struct iphdr *ip4)
{
	__u16 *word = (__u16 *)&ip4->ttl;
	__u16 before = *word;

	if (ip4->ttl <= 1)
		return 0;
	ip4->ttl--;
	/* RFC 1624: the new checksum from the old one and the 16-bit word that changed. */
	ip4->check = checksum_fold((__u64)(__u16)~ip4->check + (__u16)~before + *word);
	return 1;
}

static __always_inline int ipv4_is_multicast_or_broadcast(__be32 address)
{
	return (address & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || address == 0xffffffff;
}

static __always_inline int ipv4_is_link_local(__be32 address)
{
	return (address & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
}

static __always_inline int ipv4_is_fragment(const struct iphdr *ip4)
{
	return ip4->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET);
}

/*
 * What tells the flow of a fragment: the first one has the ports, and leaves them for the others. `l4` has
 * offset and protocol. Returns 0 or a drop reason.
 */
static __noinline int ipv4_fragment(struct ctx_frame *ctx, struct l4 *l4, __u8 direction)
{
	struct frag4_key key = { .protocol = l4->protocol };
	struct iphdr ip4;
	int result;

	metric_add(ctx_len(ctx), REASON_FRAGMENT, direction, __LINE__, FILE_IPV4);
	/* Nothing in a later fragment tells which message it is of. */
	if (l4->protocol == IPPROTO_ICMP || ctx_load_bytes(ctx, ETH_HLEN, &ip4, sizeof(ip4)))
		return -DROP_INVALID_PACKET;
	if (!l4_has_ports(l4->protocol))
		return -DROP_CT_UNKNOWN_PROTOCOL;
	key.daddr = ip4.daddr;
	key.saddr = ip4.saddr;
	key.id = ip4.id;
	if (ip4.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET)) {
		const struct frag_value *first = bpf_map_lookup_elem(&cilium_ipv4_frag_datagrams, &key);

		if (!first)
			return -DROP_FRAGMENT_NOT_FOUND;
		l4->ports = *(const __u32 *)first;
		l4->is_elsewhere = 1;
		return 0;
	}
	result = l4_load(ctx, l4, IPPROTO_ICMP, 0);
	if (!result && bpf_map_update_elem(&cilium_ipv4_frag_datagrams, &key, &l4->ports, BPF_ANY))
		metric_add(ctx_len(ctx), REASON_FRAGMENT_UPDATE, direction, __LINE__, FILE_IPV4);
	return result;
}

#endif
