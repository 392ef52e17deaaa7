/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a tunnel puts around a frame, for the programs that put it there or take it off in place of the tunnel's device.
 * Sizes, and what is always the same in it: no options, no checksum of UDP.
 */
#ifndef CILIATE_TUNNEL_FRAME_H
#define CILIATE_TUNNEL_FRAME_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "checksum.h"
#include "maps.h"

/* Not in the headers of every kernel that programs are built on. Older kernels refuse them, and change nothing. */
#define ROOM_DECAP_L3_IPV4 (1ULL << 7)
#define ROOM_DECAP_L3_IPV6 (1ULL << 8)
#define FIB_LOOKUP_SKIP_NEIGH (1U << 2)
#define FIB_LOOKUP_SRC (1U << 4)

/* Congestion, in the byte that has the type of service. */
#define ECN_MASK 3
#define ECN_CAPABLE 2
#define ECN_CONGESTION 3

/* Of VXLAN: there is an identifier. All else in the header is reserved. */
#define VXLAN_FIRST_WORD 0x08000000
/* Of Geneve: version 0, no options, not critical; a frame of Ethernet is inside. */
#define GENEVE_FIRST_WORD 0x00006558

/* VXLAN's header or Geneve's: the identifier is in the upper three bytes of the second word. */
struct tunnel_head {
	__be32 first;
	__be32 id;
};

/* Behind the outer IP header. Longer than what is there, by what aligns it. */
struct tunnel_inside {
	struct udphdr udp;
	struct tunnel_head head;
	struct ethhdr eth;
};

/* What is put between the Ethernet header and the IP header of a frame. */
#define TUNNEL_ROOM (sizeof(struct udphdr) + sizeof(struct tunnel_head) + ETH_HLEN)
#define TUNNEL_ROOM4 (sizeof(struct iphdr) + TUNNEL_ROOM)
#define TUNNEL_ROOM6 (sizeof(struct ipv6hdr) + TUNNEL_ROOM)

static __always_inline __be32 tunnel_first_word(const struct node_value *node)
{
	return node->flags & NODE_FLAG_GENEVE ? bpf_htonl(GENEVE_FIRST_WORD) : bpf_htonl(VXLAN_FIRST_WORD);
}

/* Of the header of IPv4 without its checksum: that. Of one with it: 0 if it is right. */
static __always_inline __u16 tunnel_checksum4(const struct iphdr *ip4)
{
	const __u32 *words = (const void *)ip4;

	return checksum_fold((__u64)words[0] + words[1] + words[2] + words[3] + words[4]);
}

#endif
