/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv6 addresses: four words in network order. */
#ifndef CILIATE_IPV6_ADDRESS_H
#define CILIATE_IPV6_ADDRESS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

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

#endif
