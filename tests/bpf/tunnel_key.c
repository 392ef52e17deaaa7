/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * For tests only: gives a packet of a test run what only the kernel can give it, and goes on with the program
 * under test.
 *
 * with_tunnel_key  the tunnel key that a tunnel's device would have given it. It comes in skb->cb: identifier,
 *                  IPv4 address of the sending node, flags of bpf_skb_set_tunnel_key.
 * with_vlan_tag    VLAN tags, the outermost one beside the packet. In skb->cb: first the inner tag or 0, then
 *                  the outer one, the protocol in the upper half of each; then the program's number.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4);
} under_test SEC(".maps");

SEC("classifier")
int with_tunnel_key(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = { .tunnel_id = skb->cb[0], .remote_ipv4 = skb->cb[1] };

	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), skb->cb[2]))
		return TC_ACT_STOLEN;
	bpf_tail_call(skb, &under_test, 0);
	return TC_ACT_QUEUED;
}

static __always_inline int push(struct __sk_buff *skb, __u32 tag)
{
	return tag && bpf_skb_vlan_push(skb, bpf_htons(tag >> 16), tag & 0xffff);
}

SEC("classifier")
int with_vlan_tag(struct __sk_buff *skb)
{
	__u32 program = skb->cb[2];

	if (push(skb, skb->cb[0]) || push(skb, skb->cb[1]))
		return TC_ACT_STOLEN;
	bpf_tail_call(skb, &under_test, program);
	return TC_ACT_QUEUED;
}
