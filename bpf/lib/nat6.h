/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Other addresses and ports for an IPv6 packet, and for one that an ICMPv6 error quotes. */
#ifndef CILIATE_NAT6_H
#define CILIATE_NAT6_H

#include "conntrack6.h"
#include "nat.h"

/* As they stand in a packet: the addresses side by side. */
struct nat6_ends {
	__be32 saddr[4];
	__be32 daddr[4];
	__u32 ports;
};

#ifdef CTX_IS_XDP

#include "nat_later6.h"

#else

#define NAT6_ADDRESSES 32
#define NAT6_ADDRESSES_AT 8

/*
 * What conntrack has read of the addresses, and the header. The sum a device may have made over the frame takes
 * notice of the header's bytes here, and of the checksum's by its own helper: the two make up for each other.
 */
static __always_inline int nat6_header(struct __sk_buff *skb, struct ct6_packet *packet, const struct nat6_ends *to)
{
	ipv6_copy(packet->key.saddr, to->saddr);
	ipv6_copy(packet->key.daddr, to->daddr);
	if (bpf_skb_store_bytes(skb, ETH_HLEN + NAT6_ADDRESSES_AT, to, NAT6_ADDRESSES, BPF_F_RECOMPUTE_CSUM))
		return -DROP_WRITE_ERROR;
	return 0;
}

/* What other addresses change of a checksum. To a sum the order of the two is all the same. */
static __always_inline __s64 nat6_difference(const struct ct6_packet *packet, const struct nat6_ends *to)
{
	return bpf_csum_diff((void *)packet->key.daddr, NAT6_ADDRESSES, (void *)to->saddr, NAT6_ADDRESSES, 0);
}

/* Returns 0 or a drop reason. Makes packet pointers invalid. */
__noinline int nat6_rewrite(struct __sk_buff *skb, struct ct6_packet *packet, const struct nat6_ends *to)
{
	__u32 at, flags;

	if (!packet || !to)
		return -DROP_WRITE_ERROR;
	at = nat_checksum_at(&packet->l4);
	flags = packet->l4.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	if (at && bpf_l4_csum_replace(skb, at, 0, nat6_difference(packet, to), flags | BPF_F_PSEUDO_HDR))
		return -DROP_L4_CHECKSUM;
	if (packet->l4.ports != to->ports) {
		int result = nat_ports(skb, &packet->l4, to->ports, at, flags);

		if (result)
			return result;
		ct6_set_ports(&packet->key, to->ports);
	}
	return nat6_header(skb, packet, to);
}

/* As nat4_error. */
__noinline int nat6_error(struct __sk_buff *skb, struct ct6_packet *packet, const struct nat6_ends *outer,
			  const struct nat6_ends *inner)
{
	struct nat6_ends quoted;
	__u32 at, checksum_at;
	__s64 difference;

	if (!packet || !outer || !inner)
		return -DROP_WRITE_ERROR;
	at = packet->l4.offset + ICMP6_HEAD_LEN + NAT6_ADDRESSES_AT;
	checksum_at = packet->l4.offset + ICMP_CHECKSUM_AT;
	if (bpf_skb_load_bytes(skb, at, &quoted, NAT6_ADDRESSES) ||
	    bpf_skb_load_bytes(skb, packet->quoted_at, &quoted.ports, sizeof(quoted.ports)))
		return -DROP_INVALID_PACKET;
	difference = bpf_csum_diff((void *)&quoted, sizeof(quoted), (void *)inner, sizeof(*inner), 0);
	if (bpf_l4_csum_replace(skb, checksum_at, 0, difference, 0) ||
	    bpf_l4_csum_replace(skb, checksum_at, 0, nat6_difference(packet, outer), BPF_F_PSEUDO_HDR))
		return -DROP_L4_CHECKSUM;
	if (bpf_skb_store_bytes(skb, at, inner, NAT6_ADDRESSES, 0) ||
	    bpf_skb_store_bytes(skb, packet->quoted_at, &inner->ports, sizeof(inner->ports), 0))
		return -DROP_WRITE_ERROR;
	return nat6_header(skb, packet, outer);
}

#endif

#endif
