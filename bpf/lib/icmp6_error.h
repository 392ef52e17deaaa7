/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMPv6 errors (RFC 4443): for a packet whose hop limit is used up, which IPv4 has no counterpart to, for one that is
 * too long, and for one that nobody is there for.
 */
#ifndef CILIATE_ICMP6_ERROR_H
#define CILIATE_ICMP6_ERROR_H

#include "checksum.h"
#include "eth.h"
#include "icmp_quote.h"
#include "ipv6.h"
#include "metrics.h"

/* Type, and code. */
#define ICMP6_PORT_UNREACHABLE 0x0104
#define ICMP6_TOO_BIG 0x0200
#define ICMP6_TIME_EXCEEDED 0x0300
#define ICMP6_FIRST_INFORMATIONAL 128
#define ICMP6_REDIRECT 137
#define ICMP6_ERROR_HOP_LIMIT 64

/* Two bytes in front of the frame align all that follows the link header. */
struct icmp6_error {
	__u8 align[2];
	struct ethhdr eth;
	struct ipv6hdr ip6;
	__u8 type;
	__u8 code;
	__sum16 checksum;
	/* Of packet too big. */
	__be32 mtu;
};

/* Between the link header and the packet that caused the error: an IPv6 and an ICMPv6 header. */
#define ICMP6_ERROR_ROOM (sizeof(struct icmp6_error) - 2 - ETH_HLEN)

/* As much of the packet as fits the minimal MTU of IPv6. */
#define ICMP6_QUOTE_MAX (IPV6_MTU_MIN - ICMP6_ERROR_ROOM)

/* RFC 4443, 2.4 (e): no error about an error, a redirect, a group, or nobody in particular. */
static __always_inline int icmp6_error_allowed(struct __sk_buff *skb, const struct ipv6hdr *ip6)
{
	__u8 next = ip6->nexthdr, type;
	int offset;

	if (ipv6_is_multicast(ip6->daddr.in6_u.u6_addr32) || ipv6_is_multicast(ip6->saddr.in6_u.u6_addr32) ||
	    ipv6_is_unspecified(ip6->saddr.in6_u.u6_addr32))
		return 0;
	offset = ipv6_upper_layer(skb, &next);
	if (offset < 0)
		return 0;
	if (next != IPV6_NEXT_ICMP)
		return 1;
	if (bpf_skb_load_bytes(skb, offset, &type, sizeof(type)))
		return 0;
	return type >= ICMP6_FIRST_INFORMATIONAL && type != ICMP6_REDIRECT;
}

/*
 * Turns the frame into an error, from `source` to the packet's sender. Both link addresses are the caller's. `kind`:
 * type and code, and in the upper half the MTU. Returns 0, ICMP_ERROR_FORBIDDEN, or a drop reason. Out of line: rare,
 * and large.
 */
static __noinline int icmp6_error(struct __sk_buff *skb, const __be32 *source, const void *source_mac,
				  const void *destination_mac, __u64 kind)
{
	struct icmp6_error frame = {
		.eth.h_proto = bpf_htons(ETH_P_IPV6),
		.ip6.version = 6,
		.ip6.nexthdr = IPV6_NEXT_ICMP,
		.ip6.hop_limit = ICMP6_ERROR_HOP_LIMIT,
		.type = kind >> 8,
		.code = kind,
		.mtu = bpf_htonl(kind >> 32),
	};
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u32 len = skb->len;
	__u16 payload_len;
	__s64 sum;

	if (!eth || ipv6_is_unspecified(source) || !icmp6_error_allowed(skb, ip6))
		return ICMP_ERROR_FORBIDDEN;
	__builtin_memcpy(&frame.ip6.daddr, &ip6->saddr, sizeof(frame.ip6.daddr));
	__builtin_memcpy(&frame.ip6.saddr, source, sizeof(frame.ip6.saddr));
	__builtin_memcpy(frame.eth.h_source, source_mac, ETH_ADDR_LEN);
	__builtin_memcpy(frame.eth.h_dest, destination_mac, ETH_ADDR_LEN);

	if (len > ETH_HLEN + ICMP6_QUOTE_MAX)
		len = ETH_HLEN + ICMP6_QUOTE_MAX;
	/* Also when nothing is cut off: it makes one packet of a segmentation-offload batch. */
	if (bpf_skb_change_tail(skb, len, 0) || bpf_skb_pull_data(skb, len))
		return -DROP_WRITE_ERROR;
	payload_len = len - ETH_HLEN + ICMP6_ERROR_ROOM - sizeof(struct ipv6hdr);
	frame.ip6.payload_len = bpf_htons(payload_len);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&frame.ip6.saddr, 32 + 8,
			    bpf_htonl(payload_len + IPV6_NEXT_ICMP));
	frame.checksum = checksum_fold((__u64)(__u32)sum + icmp_quote_sum(skb));
	if (bpf_skb_adjust_room(skb, ICMP6_ERROR_ROOM, BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, 0, &frame.eth, ETH_HLEN + ICMP6_ERROR_ROOM, 0))
		return -DROP_WRITE_ERROR;
	return 0;
}

static __always_inline int icmp6_time_exceeded(struct __sk_buff *skb, const __be32 *router,
					       const void *source_mac, const void *destination_mac)
{
	return icmp6_error(skb, router, source_mac, destination_mac, ICMP6_TIME_EXCEEDED);
}

static __always_inline int icmp6_too_big(struct __sk_buff *skb, const __be32 *router, const void *source_mac,
					 const void *destination_mac, __u32 mtu)
{
	return icmp6_error(skb, router, source_mac, destination_mac, ICMP6_TOO_BIG | (__u64)mtu << 32);
}

#endif
