/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The IPv4 header: whether it is one, the time to live, kinds of addresses. */
#ifndef CILIATE_IPV4_H
#define CILIATE_IPV4_H

#include <linux/ip.h>

#include "checksum.h"
#include "eth.h"

#define IPV4_HEAD_LEN (ETH_HLEN + sizeof(struct iphdr))

/* Version 4, and options, if any, lie inside the frame. Checksum and total length are the receiver's. */
static __always_inline int ipv4_is_valid(struct __sk_buff *skb, const struct iphdr *ip4)
{
	return ip4->version == 4 && ip4->ihl >= 5 && ETH_HLEN + ip4->ihl * 4 <= skb->len;
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

#endif
