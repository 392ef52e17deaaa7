/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services for clients outside, at the driver: packets of TCP and UDP that come in by a device and go out by it again,
 * to a backend elsewhere or from there to the client. What is the same for both families.
 *
 * Nothing is written to a packet before it is certain that it goes out: everything else is left to tc's programs as it
 * came. They find what was entered in the maps, and do the same once more.
 */
#ifndef CILIATE_XDP_H
#define CILIATE_XDP_H

#include "by_tunnel.h"
#include "checksum.h"
#include "encrypt.h"
#include "events.h"
#include "frontend.h"
#include "inet.h"
#include "metrics.h"
#include "snat.h"

/* What became of a packet, beside the states of conntrack and drop reasons: it is for tc's programs. */
#define XDP_LEFT 1000

/* As far as a header is read and written: in TCP up to its checksum. */
#define XDP_TCP_LEN 18
#define XDP_UDP_LEN 8

#define XDP_TCP_CHECKSUM_AT 16
#define XDP_UDP_CHECKSUM_AT 6

/*
 * The checksum once `len` words of what it is over are others. Of UDP it may come out as none; that is written as
 * 0xffff, which to a sum is the same.
 */
static __always_inline __sum16 xdp_checksum(__sum16 check, const __u32 *was, const __u32 *is, const int len)
{
	__u64 sum = (__u16)~check;
	int i;

	for (i = 0; i < len; i++)
		sum += (__u64)(__u32)~was[i] + is[i];
	return checksum_fold(sum);
}

/*
 * Whether a checksum is none yet: its sender has left it to a device that there is not, as on both ends of a veth, and
 * has put the sum of the pseudo header in its place. tc knows, and keeps it that way. Of one packet in 65536 the right
 * checksum looks like that; tc has it as well.
 */
static __always_inline int xdp_is_unfinished(__sum16 check, const __u32 *addresses, const int len, __u32 l4_len,
					     __u8 protocol)
{
	__u64 sum = (__u64)bpf_htonl(l4_len) + bpf_htonl(protocol);
	int i;

	for (i = 0; i < len; i++)
		sum += addresses[i];
	return (__u16)~checksum_fold(sum) == check;
}

static __always_inline __u32 xdp_l4_len_min(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? XDP_TCP_LEN : XDP_UDP_LEN;
}

/* The device's own address: frames for others are seen by devices that listen to all. */
static __always_inline int xdp_is_for_us(struct ctx_frame *ctx, const struct bpf_fib_lookup *way)
{
	struct ethhdr *eth = frame_head(ctx, ETH_HLEN);

	return eth && eth_addr_equal(eth->h_dest, way->smac);
}

/* To the next hop by the device that the packet came by. Returns 0 when the kernel does not know that, or it is another. */
static __always_inline int xdp_lookup(struct ctx_frame *ctx, struct bpf_fib_lookup *way)
{
	way->ifindex = ctx_ifindex(ctx);
	return bpf_fib_lookup(ctx, way, sizeof(*way), 0) == BPF_FIB_LKUP_RET_SUCCESS &&
	       way->ifindex == ctx_ifindex(ctx);
}

static __always_inline void xdp_address(struct ethhdr *eth, const struct bpf_fib_lookup *way)
{
	__builtin_memcpy(eth->h_dest, way->dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, way->smac, ETH_ALEN);
}

#endif
