/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The IPv6 header: addresses, hop limit, extension headers. Addresses are four words in network order. */
#ifndef CILIATE_IPV6_H
#define CILIATE_IPV6_H

#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ipv6.h>

#include "eth.h"

#define IPV6_HEAD_LEN (ETH_HLEN + sizeof(struct ipv6hdr))

/* linux/in6.h has these only for user space without a libc. */
#define IPV6_NEXT_HOP_BY_HOP 0
#define IPV6_NEXT_ROUTING 43
#define IPV6_NEXT_AUTH 51
#define IPV6_NEXT_ICMP 58
#define IPV6_NEXT_DESTINATION 60

/* More than anything but an attack has; bounds the walk for the verifier. */
#define IPV6_EXTENSION_HEADERS_MAX 4

static __always_inline int ipv6_is_valid(const struct ipv6hdr *ip6)
{
	return ip6->version == 6;
}

static __always_inline int ipv6_equal(const __be32 *a, const __be32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline void ipv6_copy(__be32 *to, const __be32 *from)
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

static __always_inline int ipv6_is_unspecified(const __be32 *address)
{
	return !(address[0] | address[1] | address[2] | address[3]);
}

static __always_inline int ipv6_is_link_local(const __be32 *address)
{
	return (address[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline int ipv6_is_multicast(const __be32 *address)
{
	return (address[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

/*
 * Returns 0, and changes nothing, when the packet must not go further. Written straight into the packet:
 * a checksum the device computed over it (CHECKSUM_COMPLETE) never gets here, a veth carries none and
 * the kernel gives it up when it forwards.
 */
static __always_inline int ipv6_decrement_hop_limit(struct ipv6hdr *ip6)
{
	if (ip6->hop_limit <= 1)
		return 0;
	ip6->hop_limit--;
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
static __always_inline int ipv6_upper_layer(struct __sk_buff *skb, __u8 *next)
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
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return -1;
		/* In 8 byte units without the first; the authentication header in 4 byte units without two. */
		offset += *next == IPV6_NEXT_AUTH ? (extension.len + 2) * 4 : (extension.len + 1) * 8;
		*next = extension.next;
	}
	return -1;
}

#endif
