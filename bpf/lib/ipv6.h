/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The IPv6 header: hop limit, extension headers, fragments. */
#ifndef CILIATE_IPV6_H
#define CILIATE_IPV6_H

#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ipv6.h>

#include "eth.h"
#include "ipv6_address.h"
#include "l4.h"
#include "maps.h"
#include "metrics.h"

#define IPV6_MTU_MIN 1280
#define IPV6_HEAD_LEN (ETH_HLEN + sizeof(struct ipv6hdr))

/* linux/in6.h has these only for user space without a libc. */
#define IPV6_NEXT_HOP_BY_HOP 0
#define IPV6_NEXT_ROUTING 43
#define IPV6_NEXT_FRAGMENT 44
#define IPV6_NEXT_AUTH 51
#define IPV6_NEXT_ICMP 58
#define IPV6_NEXT_NONE 59
#define IPV6_NEXT_DESTINATION 60

/* Of the field frag_off of a fragment header. */
#define IPV6_MORE_FRAGMENTS 1
#define IPV6_FRAGMENT_OFFSET 0xfff8

/* More than anything but an attack has; bounds the walk for the verifier. */
#define IPV6_EXTENSION_HEADERS_MAX 4

static __always_inline int ipv6_is_valid(const struct ipv6hdr *ip6)
{
	return ip6->version == 6;
}

/*
 * Returns 0, and changes nothing, when the packet must not go further. Written straight into the packet:
 * a veth carries no checksum that a device computed over it (CHECKSUM_COMPLETE), and the kernel gives it up when it
 * forwards.
 */
static __always_inline int ipv6_decrement_hop_limit(struct ipv6hdr *ip6)
{
	if (ip6->hop_limit <= 1)
		return 0;
	ip6->hop_limit--;
	return 1;
}

/* The same at the underlay, where there may be such a checksum: without it put right the receiver would find it wrong. */
static __always_inline int ipv6_decrement_at_underlay(struct __sk_buff *skb, struct ipv6hdr *ip6)
{
	__u16 *word = (__u16 *)&ip6->nexthdr;
	__u16 before = *word;

	if (!ipv6_decrement_hop_limit(ip6))
		return 0;
	bpf_csum_update(skb, (__u32)(__u16)~before + *word);
	return 1;
}

static __always_inline int ipv6_is_extension(__u8 next)
{
	return next == IPV6_NEXT_HOP_BY_HOP || next == IPV6_NEXT_ROUTING || next == IPV6_NEXT_AUTH ||
	       next == IPV6_NEXT_DESTINATION;
}

/*
 * Walks the extension headers. Sets `next` to the first type that is none and returns its offset in the
 * frame, or a negative number when a header is cut off or there are more than the maximum. A fragment
 * header ends the walk: what is behind it need not be the start of anything.
 */
static __always_inline int ipv6_upper_layer(struct ctx_frame *ctx, __u8 *next)
{
	struct {
		__u8 next;
		__u8 len;
	} extension;
	__u32 offset = IPV6_HEAD_LEN;
	int i;

	for (i = 0; i <= IPV6_EXTENSION_HEADERS_MAX; i++) {
		if (!ipv6_is_extension(*next))
			return offset;
		if (ctx_load_bytes(ctx, offset, &extension, sizeof(extension)))
			return -1;
		/* In 8 byte units without the first; the authentication header in 4 byte units without two. */
		offset += *next == IPV6_NEXT_AUTH ? (extension.len + 2) * 4 : (extension.len + 1) * 8;
		*next = extension.next;
	}
	return -1;
}

/* What stands behind the extension headers, and what a fragment header among them says. */
struct ipv6_upper {
	/* In the frame. Of the first header, before the search. */
	__u32 offset;
	__be32 id;
	/* As in the header; zero for what is whole. */
	__be16 fragment;
	/* Of the first header, before the search. */
	__u8 protocol;
	/* What the fragment header says comes next: the same in all fragments. */
	__u8 fragment_protocol;
};

/* Returns 0 or a drop reason. Behind the header of a later fragment there is nothing to be found. */
static __noinline int ipv6_find_upper(struct ctx_frame *ctx, struct ipv6_upper *upper)
{
	struct {
		__u8 next;
		__u8 len;
		__be16 fragment;
		__be32 id;
	} header;
	int i;

	for (i = 0; i <= IPV6_EXTENSION_HEADERS_MAX; i++) {
		int is_fragment = upper->protocol == IPV6_NEXT_FRAGMENT;

		if (upper->protocol == IPV6_NEXT_NONE)
			break;
		if (!is_fragment && !ipv6_is_extension(upper->protocol))
			return 0;
		/* None is shorter. */
		if (ctx_load_bytes(ctx, upper->offset, &header, sizeof(header)))
			break;
		if (is_fragment) {
			upper->offset += sizeof(header);
			upper->fragment = header.fragment & bpf_htons(IPV6_FRAGMENT_OFFSET | IPV6_MORE_FRAGMENTS);
			upper->id = header.id;
			upper->fragment_protocol = header.next;
		} else if (upper->protocol == IPV6_NEXT_AUTH) {
			upper->offset += (header.len + 2) * 4;
		} else {
			upper->offset += (header.len + 1) * 8;
		}
		upper->protocol = header.next;
		if (upper->fragment & bpf_htons(IPV6_FRAGMENT_OFFSET))
			return 0;
	}
	return -DROP_INVALID_EXTENSION_HEADER;
}

/* As ipv4_fragment. */
static __always_inline int ipv6_fragment(struct ctx_frame *ctx, struct l4 *l4, const struct ipv6_upper *upper,
					 __u8 direction)
{
	struct frag6_key key = { .id = upper->id, .protocol = upper->fragment_protocol };
	struct ipv6hdr ip6;
	int result;

	metric_add(ctx_len(ctx), REASON_FRAGMENT, direction, __LINE__, FILE_IPV6);
	if (l4->protocol == IPV6_NEXT_ICMP || ctx_load_bytes(ctx, ETH_HLEN, &ip6, sizeof(ip6)))
		return -DROP_INVALID_PACKET;
	if (!l4_has_ports(l4->protocol))
		return -DROP_CT_UNKNOWN_PROTOCOL;
	ipv6_copy(key.daddr, ip6.daddr.in6_u.u6_addr32);
	ipv6_copy(key.saddr, ip6.saddr.in6_u.u6_addr32);
	if (upper->fragment & bpf_htons(IPV6_FRAGMENT_OFFSET)) {
		const struct frag_value *first = bpf_map_lookup_elem(&cilium_ipv6_frag_datagrams, &key);

		if (!first)
			return -DROP_FRAGMENT_NOT_FOUND;
		l4->ports = *(const __u32 *)first;
		l4->is_elsewhere = 1;
		return 0;
	}
	result = l4_load(ctx, l4, IPV6_NEXT_ICMP, 0);
	if (!result && bpf_map_update_elem(&cilium_ipv6_frag_datagrams, &key, &l4->ports, BPF_ANY))
		metric_add(ctx_len(ctx), REASON_FRAGMENT_UPDATE, direction, __LINE__, FILE_IPV6);
	return result;
}

/* Ports and the like of a packet with extension headers. Returns 0 or a drop reason. */
__attribute__((unused)) static __noinline int ipv6_l4(struct ctx_frame *ctx, struct l4 *l4, __u8 direction)
{
	struct ipv6_upper upper = { .offset = l4->offset, .protocol = l4->protocol };
	int result = ipv6_find_upper(ctx, &upper);

	if (result)
		return result;
	l4->offset = upper.offset;
	l4->protocol = upper.protocol;
	if (upper.fragment)
		return ipv6_fragment(ctx, l4, &upper, direction);
	return l4_load(ctx, l4, IPV6_NEXT_ICMP, 0);
}

#endif
