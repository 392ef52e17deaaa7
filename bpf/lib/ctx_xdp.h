/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet as its device's driver has it: bytes side by side, of which nobody has read any. */
#ifndef CILIATE_CTX_XDP_H
#define CILIATE_CTX_XDP_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define ctx_frame xdp_md

#define CTX_DROP XDP_DROP

/* Where the Ethernet header has the type of what is behind it. */
#define CTX_TYPE_AT 12

/* As frame_start in eth.h does it, and for its reason. */
static __always_inline __u32 ctx_len(const struct xdp_md *xdp)
{
	void *start, *end;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(start)
		     : "r"(xdp), "i"(__builtin_offsetof(struct xdp_md, data)));
	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(end)
		     : "r"(xdp), "i"(__builtin_offsetof(struct xdp_md, data_end)));
	return end - start;
}

static __always_inline long ctx_load_bytes(struct xdp_md *xdp, __u32 at, void *to, __u32 len)
{
	return bpf_xdp_load_bytes(xdp, at, to, len);
}

/* 0 when it is cut off, which no type is. */
static __always_inline __be16 ctx_protocol(struct xdp_md *xdp)
{
	__be16 type = 0;

	return bpf_xdp_load_bytes(xdp, CTX_TYPE_AT, &type, sizeof(type)) ? 0 : type;
}

static __always_inline __u32 ctx_ifindex(const struct xdp_md *xdp)
{
	return xdp->ingress_ifindex;
}

/*
 * The kernel makes one later. It counts as a use of the packet all the same: of what a global function does not use clang
 * passes anything, and the verifier asks for a packet.
 */
static __always_inline __u32 ctx_hash(const struct xdp_md *xdp)
{
	asm volatile("" : : "r"(xdp));
	return 0;
}

/* There is no more than what can be reached. */
static __always_inline long ctx_pull(const struct xdp_md *xdp __attribute__((unused)),
				     __u32 len __attribute__((unused)))
{
	return -1;
}

#endif
