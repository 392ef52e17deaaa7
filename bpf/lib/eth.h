/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The Ethernet header, and reaching the headers behind it. */
#ifndef CILIATE_ETH_H
#define CILIATE_ETH_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "ctx.h"

/* linux/if_packet.h has it beside what needs a libc. */
#define PACKET_HOST 0

/* Smaller values in the type field are lengths: 802.3, not Ethernet II. */
#define ETH_TYPE_MIN 0x0600

/*
 * Read by an instruction of our own: clang would keep the 32-bit field in a register and widen it again
 * later, which to the verifier is a number, no longer a packet pointer.
 */
static __always_inline void *frame_start(const struct ctx_frame *ctx)
{
	void *start;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(start)
		     : "r"(ctx), "i"(__builtin_offsetof(struct ctx_frame, data)));
	return start;
}

static __always_inline void *frame_end(const struct ctx_frame *ctx)
{
	void *end;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(end)
		     : "r"(ctx), "i"(__builtin_offsetof(struct ctx_frame, data_end)));
	return end;
}

/*
 * The frame's first `len` bytes, or NULL when it has not as many. `len` has to be a constant: it is what
 * the verifier learns. Headers that sit outside the linear part of the buffer are pulled in; that makes
 * all earlier packet pointers invalid.
 */
static __always_inline void *frame_head(struct ctx_frame *ctx, const __u32 len)
{
	void *head = frame_start(ctx);

	if (head + len <= frame_end(ctx))
		return head;
	if (ctx_pull(ctx, len))
		return NULL;
	head = frame_start(ctx);
	if (head + len <= frame_end(ctx))
		return head;
	return NULL;
}

static __always_inline int eth_is_ethernet_ii(const struct ethhdr *eth)
{
	return bpf_ntohs(eth->h_proto) >= ETH_TYPE_MIN;
}

/*
 * In a word and a half word: the C type is packed, which would make clang copy byte by byte. Map values
 * keep addresses 4-aligned; the frame's start is 2-aligned, which the kernel accepts from BPF on every
 * architecture with cheap unaligned access.
 */
static __always_inline void eth_addr_copy(void *to, const void *from)
{
	*(__u32 *)to = *(const __u32 *)from;
	*(__u16 *)(to + 4) = *(const __u16 *)(from + 4);
}

static __always_inline int eth_addr_equal(const void *a, const void *b)
{
	return *(const __u32 *)a == *(const __u32 *)b && *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

static __always_inline int eth_addr_is_broadcast(const void *a)
{
	return *(const __u32 *)a == 0xffffffff && *(const __u16 *)(a + 4) == 0xffff;
}

#endif
