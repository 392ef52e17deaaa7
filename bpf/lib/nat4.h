/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Other addresses and ports for an IPv4 packet, and for one that an ICMP error quotes. */
#ifndef CILIATE_NAT4_H
#define CILIATE_NAT4_H

#include "conntrack4.h"
#include "nat.h"

/* As they stand in a packet. */
struct nat4_ends {
	__be32 saddr;
	__be32 daddr;
	__u32 ports;
};

#ifdef CTX_IS_XDP

#include "nat_later4.h"

#else

static __always_inline __sum16 nat4_checksum(const struct iphdr *ip4, const struct nat4_ends *to)
{
	return checksum_fold((__u64)(__u16)~ip4->check + (__u32)~ip4->saddr + (__u32)~ip4->daddr + to->saddr +
			     to->daddr);
}

/* The header, and what conntrack has read of it. Makes packet pointers invalid. */
static __always_inline int nat4_header(struct __sk_buff *skb, struct ct4_packet *packet, const struct nat4_ends *to)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);

	if (!eth)
		return -DROP_WRITE_ERROR;
	ip4->check = nat4_checksum(ip4, to);
	ip4->saddr = packet->key.saddr = to->saddr;
	ip4->daddr = packet->key.daddr = to->daddr;
	return 0;
}

/*
 * Checksums are corrected by helpers, which know how much of one a device is still to fill in. Returns 0 or a drop
 * reason.
 */
__noinline int nat4_rewrite(struct __sk_buff *skb, struct ct4_packet *packet, const struct nat4_ends *to)
{
	__u32 at, flags;

	if (!packet || !to)
		return -DROP_WRITE_ERROR;
	at = nat_checksum_at(&packet->l4);
	flags = packet->l4.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	if (at && packet->key.saddr != to->saddr &&
	    bpf_l4_csum_replace(skb, at, packet->key.saddr, to->saddr, flags | BPF_F_PSEUDO_HDR | 4))
		return -DROP_L4_CHECKSUM;
	if (at && packet->key.daddr != to->daddr &&
	    bpf_l4_csum_replace(skb, at, packet->key.daddr, to->daddr, flags | BPF_F_PSEUDO_HDR | 4))
		return -DROP_L4_CHECKSUM;
	if (packet->l4.ports != to->ports) {
		int result = nat_ports(skb, &packet->l4, to->ports, at, flags);

		if (result)
			return result;
		ct4_set_ports(&packet->key, to->ports);
	}
	return nat4_header(skb, packet, to);
}

/*
 * An ICMP error: its own addresses are to be those of `outer`, and `inner` those of what it quotes, whose place
 * ct4_quoted has found. The checksum of a quoted segment is left: as a rule it is cut off, and nobody looks at it.
 */
__noinline int nat4_error(struct __sk_buff *skb, struct ct4_packet *packet, const struct nat4_ends *outer,
			  const struct nat4_ends *inner)
{
	struct iphdr ip4;
	__u32 at, ports;

	if (!packet || !outer || !inner)
		return -DROP_WRITE_ERROR;
	at = packet->l4.offset + ICMP_HEAD_LEN;
	if (bpf_skb_load_bytes(skb, at, &ip4, sizeof(ip4)) ||
	    bpf_skb_load_bytes(skb, packet->quoted_at, &ports, sizeof(ports)))
		return -DROP_INVALID_PACKET;
	/* To the sum of the message, the quoted header's checksum makes up for its addresses. */
	ip4.check = nat4_checksum(&ip4, inner);
	ip4.saddr = inner->saddr;
	ip4.daddr = inner->daddr;
	if (bpf_l4_csum_replace(skb, packet->l4.offset + ICMP_CHECKSUM_AT, ports, inner->ports, 4))
		return -DROP_L4_CHECKSUM;
	if (bpf_skb_store_bytes(skb, at, &ip4, sizeof(ip4), 0) ||
	    bpf_skb_store_bytes(skb, packet->quoted_at, &inner->ports, sizeof(ports), 0))
		return -DROP_WRITE_ERROR;
	return nat4_header(skb, packet, outer);
}

#endif

#endif
