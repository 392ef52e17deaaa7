/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * For tests only: gives a packet of a test run the tunnel key that a tunnel's device would have given it,
 * and goes on with the program under test. The key comes in skb->cb: identifier, IPv4 address of the
 * sending node, flags of bpf_skb_set_tunnel_key.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
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
