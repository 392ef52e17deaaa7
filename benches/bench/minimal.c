/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * For benches only: the least that BPF can do to move a packet. TCP goes to the device `target`, the rest to
 * the stack; nothing is looked up, checked or counted.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IPV4_PROTOCOL_AT (ETH_HLEN + 9)
#define IPV6_NEXT_HEADER_AT (ETH_HLEN + 6)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 target = 0;

static __always_inline int is_tcp(struct __sk_buff *skb)
{
	__u32 at = skb->protocol == bpf_htons(ETH_P_IP) ? IPV4_PROTOCOL_AT : IPV6_NEXT_HEADER_AT;
	__u8 *protocol = (void *)(long)skb->data + at;

	return (void *)(protocol + 1) <= (void *)(long)skb->data_end && *protocol == IPPROTO_TCP;
}

/* Into the namespace of an endpoint. */
SEC("classifier")
int to_peer(struct __sk_buff *skb)
{
	return is_tcp(skb) ? bpf_redirect_peer(target, 0) : TC_ACT_OK;
}

/* To another node: route and neighbour are the kernel's. */
SEC("classifier")
int to_neighbour(struct __sk_buff *skb)
{
	return is_tcp(skb) ? bpf_redirect_neigh(target, NULL, 0, 0) : TC_ACT_OK;
}
