/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet as tc has it: the kernel has looked at it already, and its bytes may lie in several places. */
#ifndef CILIATE_CTX_SKB_H
#define CILIATE_CTX_SKB_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define ctx_frame __sk_buff

#define CTX_DROP TC_ACT_SHOT

static __always_inline __u32 ctx_len(const struct __sk_buff *skb)
{
	return skb->len;
}

static __always_inline __be16 ctx_protocol(const struct __sk_buff *skb)
{
	return skb->protocol;
}

static __always_inline __u32 ctx_ifindex(const struct __sk_buff *skb)
{
	return skb->ifindex;
}

static __always_inline __u32 ctx_hash(struct __sk_buff *skb)
{
	return bpf_get_hash_recalc(skb);
}

static __always_inline long ctx_load_bytes(const struct __sk_buff *skb, __u32 at, void *to, __u32 len)
{
	return bpf_skb_load_bytes(skb, at, to, len);
}

/* So many bytes are to be reached without a helper. */
static __always_inline long ctx_pull(struct __sk_buff *skb, __u32 len)
{
	return bpf_skb_pull_data(skb, len);
}

#endif
