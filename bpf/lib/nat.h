/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Translation of ports: what is the same for both families. */
#ifndef CILIATE_NAT_H
#define CILIATE_NAT_H

#include "l4.h"
#include "metrics.h"

#define TCP_CHECKSUM_AT 16
#define UDP_CHECKSUM_AT 6
#define ICMP_CHECKSUM_AT 2

/* Where the checksum is that covers addresses and ports; 0: there is none, or it is in another fragment. */
static __always_inline __u32 nat_checksum_at(const struct l4 *l4)
{
	if (l4->is_elsewhere)
		return 0;
	if (l4->protocol == IPPROTO_TCP)
		return l4->offset + TCP_CHECKSUM_AT;
	return l4->protocol == IPPROTO_UDP ? l4->offset + UDP_CHECKSUM_AT : 0;
}

/* Returns 0 or a drop reason. */
static __always_inline int nat_ports(struct __sk_buff *skb, struct l4 *l4, __u32 ports, __u32 checksum_at,
				     __u32 flags)
{
	/* Its checksum is over all the packet, and another one than programs can make. */
	if (l4->protocol == IPPROTO_SCTP)
		return -DROP_L4_CHECKSUM;
	if (checksum_at && bpf_l4_csum_replace(skb, checksum_at, l4->ports, ports, flags | 4))
		return -DROP_L4_CHECKSUM;
	if (!l4->is_elsewhere && bpf_skb_store_bytes(skb, l4->offset, &ports, sizeof(ports), 0))
		return -DROP_WRITE_ERROR;
	l4->ports = ports;
	return 0;
}

#endif
