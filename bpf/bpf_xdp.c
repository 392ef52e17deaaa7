/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The program of underlay devices at the driver, before the kernel has made anything of a frame.
 *
 * cil_xdp_entry  services for clients outside, whose backend is elsewhere; and its answers.
 *
 * XDP_PASS leaves a frame to cil_from_netdev, as it came.
 */
#define FILE_ID FILE_BPF_XDP
#define CTX_IS_XDP

#include "lib/xdp4.h"
#include "lib/xdp6.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* WireGuard has to see what is encrypted, and direct return adds to packets: neither can be done here. */
static __always_inline int is_for_tc(const struct node_value *node)
{
	return !node || !node_has_node_ports(node) || node->flags & NODE_FLAG_DSR || encryption_lookup();
}

SEC("xdp")
int cil_xdp_entry(struct xdp_md *ctx)
{
	struct event_scope scope = { .wanted = events_wanted() };
	const struct node_value *node = node_lookup();
	struct ethhdr *eth;

	if (is_for_tc(node))
		return XDP_PASS;
	eth = frame_head(ctx, ETH_HLEN);
	/* A VLAN's tag is in the frame here, if the device has not taken it off. */
	if (!eth)
		return XDP_PASS;
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return xdp4_received(ctx, &scope, node);
	case bpf_htons(ETH_P_IPV6):
		return xdp6_received(ctx, &scope, node);
	default:
		return XDP_PASS;
	}
}
