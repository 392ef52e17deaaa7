/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The ICMP error for a packet that nobody is there for (RFC 792). Nobody is told of a used-up time to live. */
#ifndef CILIATE_ICMP4_ERROR_H
#define CILIATE_ICMP4_ERROR_H

#include "checksum.h"
#include "eth.h"
#include "frame_sum.h"
#include "ipv4.h"
#include "metrics.h"

#define ICMP_PORT_UNREACHABLE 3
#define ICMP_ERROR_TTL 64

/* Two bytes in front of the frame align all that follows the link header. */
struct icmp4_error {
	__u8 align[2];
	struct ethhdr eth;
	struct iphdr ip4;
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 unused;
};

#define ICMP4_ERROR_ROOM (sizeof(struct icmp4_error) - 2 - ETH_HLEN)

/* RFC 1812, 4.3.2.3: as much of the packet as fits 576 bytes. */
#define ICMP4_QUOTE_MAX (576 - ICMP4_ERROR_ROOM)

/*
 * Turns the frame into the error, from the packet's destination to its sender, who is a single host. Both link
 * addresses are the caller's. Returns 0 or a drop reason. Out of line: rare, and large.
 */
static __noinline int icmp4_port_unreachable(struct __sk_buff *skb, const void *source_mac,
					     const void *destination_mac)
{
	struct icmp4_error frame = {
		.eth.h_proto = bpf_htons(ETH_P_IP),
		.ip4.version = 4,
		.ip4.ihl = 5,
		.ip4.protocol = IPPROTO_ICMP,
		.ip4.ttl = ICMP_ERROR_TTL,
		.type = ICMP_DESTINATION_UNREACHABLE,
		.code = ICMP_PORT_UNREACHABLE,
	};
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	__u32 len = skb->len;
	__s64 sum;

	if (!eth)
		return -DROP_INVALID_PACKET;
	frame.ip4.daddr = ip4->saddr;
	frame.ip4.saddr = ip4->daddr;
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
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&frame.type, 8, 0);
	frame.checksum = checksum_fold((__u64)(__u32)sum + frame_sum(skb, ICMP4_QUOTE_MAX));
	if (bpf_skb_adjust_room(skb, ICMP4_ERROR_ROOM, BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, 0, &frame.eth, ETH_HLEN + ICMP4_ERROR_ROOM, 0))
		return -DROP_WRITE_ERROR;
	return 0;
}

#endif
