/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs of the node's own devices.
 *
 * cil_from_host    egress of cilium_host: what the host's stack sends or forwards to endpoint CIDRs.
 * cil_to_host      ingress of cilium_host and cilium_net: what comes to the host's stack.
 * cil_from_netdev  ingress of the underlay devices.
 */
#define FILE_ID FILE_BPF_HOST

#include "lib/encap.h"
#include "lib/endpoint.h"
#include "lib/eth.h"
#include "lib/ipcache.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"
#include "lib/local_delivery.h"
#include "lib/mark.h"
#include "lib/metrics.h"
#include "lib/time_exceeded.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Through the pair into the stack once more. The stack addressed the frame to cilium_host itself (the
 * device has no ARP), so it is given cilium_net's address, or its receiver would not take it. The mark
 * goes, or rules that sent the packet here would match again.
 */
static __always_inline int cross_to_net(struct __sk_buff *skb, struct ethhdr *eth, const struct node_value *node)
{
	eth_addr_copy(eth->h_dest, node->net_mac);
	skb->mark = 0;
	return TC_ACT_OK;
}

/*
 * Only destinations the ipcache knows by more than the default route are worth another pass; the rest
 * would go round in circles. Packets of the proxy may go anywhere.
 */
static __always_inline int is_unroutable(__u32 destination_identity, __u32 mark)
{
	return identity_is_world(destination_identity) && !mark_is_from_proxy(mark);
}

/* An address in the ipcache that says host is a guess: traffic rewritten to the host's address has it. */
static __always_inline __u32 identity_or_world(__u32 identity)
{
	return identity == IDENTITY_HOST ? IDENTITY_WORLD : identity;
}

static __always_inline int deliver(struct __sk_buff *skb, struct ethhdr *eth,
				   const struct endpoint_value *endpoint, __u32 source_identity)
{
	local_delivery_prepare(skb, eth, endpoint, source_identity);
	count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
	return bpf_redirect(endpoint->ifindex, 0);
}

/* To another node, or an endpoint of one. As what came by the stack has no tunnel key, it is set here. */
static __always_inline int to_tunnel(struct __sk_buff *skb, const struct node_value *node,
				     const struct ipcache_value *destination, __u32 source_identity)
{
	int result = encap_set_key(skb, destination, source_identity);

	if (result)
		return drop(skb, -result, DIRECTION_EGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	return bpf_redirect(node->tunnel_ifindex, 0);
}

static __always_inline int from_host_ipv4(struct __sk_buff *skb, const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	__u32 identity = mark_identity(skb->mark);
	const struct ipcache_value *target;
	const struct endpoint_value *endpoint;

	if (!eth || !ipv4_is_valid(skb, ip4))
		return drop(skb, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	if (identity == IDENTITY_UNKNOWN)
		identity = identity_or_world(ipcache_identity(ipcache_lookup4(ip4->saddr)));
	endpoint = endpoint_lookup4(ip4->daddr);
	if (endpoint && !endpoint_is_host(endpoint)) {
		if (!ipv4_decrement_ttl(ip4))
			return drop(skb, DROP_TTL_EXCEEDED, DIRECTION_INGRESS);
		return deliver(skb, eth, endpoint, identity);
	}
	/* Groups and the link itself are the kernel's business; such frames are addressed rightly already. */
	if (ipv4_is_multicast_or_broadcast(ip4->daddr))
		return TC_ACT_OK;
	if (endpoint)
		return cross_to_net(skb, eth, node);
	target = ipcache_lookup4(ip4->daddr);
	if (goes_by_tunnel(node, target))
		return to_tunnel(skb, node, target, identity);
	if (!ipv4_is_link_local(ip4->daddr) && is_unroutable(ipcache_identity(target), skb->mark))
		return drop(skb, DROP_UNROUTABLE, DIRECTION_INGRESS);
	return cross_to_net(skb, eth, node);
}

/* The error enters the stack by this device, as if it had come from the endpoints' side. */
static __noinline int hop_limit_exceeded(struct __sk_buff *skb, const struct node_value *node)
{
	int result = icmp6_time_exceeded(skb, node->router_ipv6, node->host_mac, node->host_mac);

	if (result)
		return drop(skb, -result, DIRECTION_INGRESS);
	skb->mark = 0;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

static __always_inline int from_host_ipv6(struct __sk_buff *skb, const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u32 identity = mark_identity(skb->mark);
	const struct endpoint_value *endpoint;
	const struct ipcache_value *target;
	const __be32 *destination;

	if (!eth || !ipv6_is_valid(ip6))
		return drop(skb, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	if (identity == IDENTITY_UNKNOWN)
		identity = identity_or_world(ipcache_identity(ipcache_lookup6(ip6->saddr.in6_u.u6_addr32)));
	destination = ip6->daddr.in6_u.u6_addr32;
	endpoint = endpoint_lookup6(destination);
	if (endpoint && !endpoint_is_host(endpoint)) {
		if (!ipv6_decrement_hop_limit(ip6))
			return hop_limit_exceeded(skb, node);
		return deliver(skb, eth, endpoint, identity);
	}
	if (ipv6_is_multicast(destination))
		return TC_ACT_OK;
	if (endpoint)
		return cross_to_net(skb, eth, node);
	target = ipcache_lookup6(destination);
	if (goes_by_tunnel(node, target))
		return to_tunnel(skb, node, target, identity);
	if (!ipv6_is_link_local(destination) && is_unroutable(ipcache_identity(target), skb->mark))
		return drop(skb, DROP_UNROUTABLE, DIRECTION_INGRESS);
	return cross_to_net(skb, eth, node);
}

SEC("classifier")
int cil_from_host(struct __sk_buff *skb)
{
	const struct node_value *node = node_lookup();
	struct ethhdr *eth = frame_head(skb, ETH_HLEN);

	/* Cannot be: an array has all its elements. The verifier asks. */
	if (!node)
		return drop(skb, DROP_NO_CONFIG, DIRECTION_INGRESS);
	/* What the proxy sends on was counted when it first came. */
	if (!mark_is_from_proxy(skb->mark))
		count_forward(skb, REASON_INTERFACE, DIRECTION_INGRESS);
	if (!eth)
		return TC_ACT_OK;
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return from_host_ipv4(skb, node);
	case bpf_htons(ETH_P_IPV6):
		return from_host_ipv6(skb, node);
	default:
		return TC_ACT_OK;
	}
}

SEC("classifier")
int cil_to_host(struct __sk_buff *skb)
{
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	return TC_ACT_OK;
}

SEC("classifier")
int cil_from_netdev(struct __sk_buff *skb)
{
	count_forward(skb, REASON_INTERFACE, DIRECTION_INGRESS);
	/* Not OK: programs and filters of others that are attached behind this one shall run as well. */
	return TC_ACT_UNSPEC;
}
