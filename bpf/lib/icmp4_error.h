/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors: for a packet that is too long and must not be cut (RFC 1191), and for one that nobody is there for
 * (RFC 792). Nobody is told of a used-up time to live.
 */
#ifndef CILIATE_ICMP4_ERROR_H
#define CILIATE_ICMP4_ERROR_H

#include <linux/in.h>
#include <linux/ip.h>

#include "checksum.h"
#include "eth.h"
#include "icmp_quote.h"
#include "ipv4.h"
#include "metrics.h"

/* Codes of destination unreachable. */
#define ICMP_PORT_UNREACHABLE 3
#define ICMP_FRAG_NEEDED 4
#define ICMP4_ERROR_TTL 64

/* Two bytes in front of the frame align all that follows the link header. */
struct icmp4_error {
	__u8 align[2];
	struct ethhdr eth;
	struct iphdr ip4;
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 unused;
	/* Of fragmentation needed. */
	__be16 mtu;
};

/* Between the link header and the packet that caused the error: an IPv4 and an ICMP header. */
#define ICMP4_ERROR_ROOM (sizeof(struct icmp4_error) - 2 - ETH_HLEN)

/* RFC 1812, 4.3.2.3: as much of the packet as fits 576 bytes. */
#define ICMP4_QUOTE_MAX (576 - ICMP4_ERROR_ROOM)

/*
 * Turns the frame into the error, from `source` to the packet's sender. Both link addresses are the caller's. `kind`:
 * the code, and in the upper half the MTU. No error about an error is the caller's business. Returns 0,
 * ICMP_ERROR_FORBIDDEN, or a drop reason. Out of line: rare, and large.
 */
static __noinline int icmp4_error(struct __sk_buff *skb, __be32 source, const void *source_mac,
				  const void *destination_mac, __u64 kind)
{
	struct icmp4_error frame = {
		.eth.h_proto = bpf_htons(ETH_P_IP),
		.ip4.version = 4,
		.ip4.ihl = 5,
		.ip4.frag_off = bpf_htons(IPV4_DONT_FRAGMENT),
		.ip4.ttl = ICMP4_ERROR_TTL,
		.ip4.protocol = IPPROTO_ICMP,
		.ip4.saddr = source,
		.type = ICMP_DESTINATION_UNREACHABLE,
		.code = kind,
		.mtu = bpf_htons(kind >> 32),
	};
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	__u32 len = skb->len;
	__s64 sum;

	/* Of the fragments, only the first one may be told of. */
	if (!eth || !source || ip4->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return ICMP_ERROR_FORBIDDEN;
	frame.ip4.daddr = ip4->saddr;
	__builtin_memcpy(frame.eth.h_source, source_mac, ETH_ADDR_LEN);
	__builtin_memcpy(frame.eth.h_dest, destination_mac, ETH_ADDR_LEN);

	if (len > ETH_HLEN + ICMP4_QUOTE_MAX)
		len = ETH_HLEN + ICMP4_QUOTE_MAX;
	/* Also when nothing is cut off: it makes one packet of a segmentation-offload batch. */
	if (bpf_skb_change_tail(skb, len, 0) || bpf_skb_pull_data(skb, len))
		return -DROP_WRITE_ERROR;
	frame.ip4.tot_len = bpf_htons(len - ETH_HLEN + ICMP4_ERROR_ROOM);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&frame.ip4, sizeof(frame.ip4), 0);
	frame.ip4.check = checksum_fold((__u32)sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&frame.type, ICMP4_ERROR_ROOM - sizeof(frame.ip4), 0);
	frame.checksum = checksum_fold((__u64)(__u32)sum + icmp_quote_sum(skb));
	if (bpf_skb_adjust_room(skb, ICMP4_ERROR_ROOM, BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, 0, &frame.eth, ETH_HLEN + ICMP4_ERROR_ROOM, 0))
		return -DROP_WRITE_ERROR;
	return 0;
}

static __always_inline int icmp4_too_big(struct __sk_buff *skb, __be32 router, const void *source_mac,
					 const void *destination_mac, __u32 mtu)
{
	return icmp4_error(skb, router, source_mac, destination_mac, ICMP_FRAG_NEEDED | (__u64)mtu << 32);
}

#endif
