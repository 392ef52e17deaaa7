/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * cil_from_container: on the ingress of an endpoint's host-side device, so it sees what the endpoint
 * sends. One program serves all endpoints; ciliate_device says whose device it is.
 */
#define FILE_ID FILE_BPF_LXC

#include "lib/arp.h"
#include "lib/encap.h"
#include "lib/endpoint.h"
#include "lib/eth.h"
#include "lib/ipcache.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"
#include "lib/local_delivery.h"
#include "lib/mark.h"
#include "lib/metrics.h"
#include "lib/nd.h"
#include "lib/time_exceeded.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* To another endpoint of this node, past the host's stack. */
static __always_inline int deliver(struct __sk_buff *skb, struct ethhdr *eth,
				   const struct device_value *device, const struct endpoint_value *endpoint)
{
	local_delivery_prepare(skb, eth, endpoint, device->identity);
	/* Once for leaving the sender, once for arriving: as Cilium's two programs would. */
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

/* To the host's stack, which routes it or keeps it. */
static __always_inline int to_stack(struct __sk_buff *skb, struct ethhdr *eth,
				    const struct device_value *device)
{
	eth_addr_copy(eth->h_dest, device->node_mac);
	skb->mark = mark_with_identity(device->identity);
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	return TC_ACT_OK;
}

/* To an endpoint of another node. The hop is counted where the tunnel ends. */
static __always_inline int to_tunnel(struct __sk_buff *skb, const struct node_value *node,
				     const struct ipcache_value *destination, __u32 identity)
{
	int result = encap_set_key(skb, destination, identity);

	if (result)
		return drop(skb, -result, DIRECTION_EGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	return bpf_redirect(node->tunnel_ifindex, 0);
}

/* The node, when it has a tunnel. */
static __always_inline const struct node_value *tunnel_node(void)
{
	const struct node_value *node = node_lookup();

	return node && node->tunnel_ifindex ? node : NULL;
}

static __always_inline int from_container_ipv4(struct __sk_buff *skb, const struct device_value *device)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	const struct ipcache_value *destination;
	const struct endpoint_value *endpoint;
	const struct node_value *node;

	if (!eth || !ipv4_is_valid(skb, ip4))
		return drop(skb, DROP_INVALID_PACKET, DIRECTION_EGRESS);
	/* An endpoint without IPv4 has address 0, which is no source either. */
	if (ip4->saddr != device->ipv4 || !ip4->saddr)
		return drop(skb, DROP_INVALID_SOURCE_IP, DIRECTION_EGRESS);
	endpoint = endpoint_lookup4(ip4->daddr);
	node = tunnel_node();
	if (!endpoint && node) {
		destination = ipcache_lookup4(ip4->daddr);
		if (goes_by_tunnel(node, destination))
			return to_tunnel(skb, node, destination, device->identity);
	}
	if (!ipv4_decrement_ttl(ip4))
		return drop(skb, DROP_TTL_EXCEEDED, DIRECTION_EGRESS);
	if (endpoint && !endpoint_is_host(endpoint))
		return deliver(skb, eth, device, endpoint);
	return to_stack(skb, eth, device);
}

static __noinline int hop_limit_exceeded(struct __sk_buff *skb, const struct device_value *device)
{
	const struct node_value *node = node_lookup();
	int result = -DROP_TTL_EXCEEDED;

	if (node)
		result = icmp6_time_exceeded(skb, node->router_ipv6, device->node_mac, device->mac);
	if (result)
		return drop(skb, -result, DIRECTION_EGRESS);
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int from_container_ipv6(struct __sk_buff *skb, const struct device_value *device)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	const struct ipcache_value *destination;
	const struct endpoint_value *endpoint;
	const struct node_value *node;

	if (!eth || !ipv6_is_valid(ip6))
		return drop(skb, DROP_INVALID_PACKET, DIRECTION_EGRESS);
	if (ip6->hop_limit == ND_HOP_LIMIT &&
	    (ip6->nexthdr == IPV6_NEXT_ICMP || ipv6_is_extension(ip6->nexthdr))) {
		int result = nd_handle(skb, device, ip6->nexthdr);

		if (result < 0)
			return drop(skb, -result, DIRECTION_EGRESS);
		if (result != ND_NOT_ND)
			return result;
		/* To the verifier the answer may have been built all the same, and the pointers be stale. */
		eth = frame_head(skb, IPV6_HEAD_LEN);
		if (!eth)
			return drop(skb, DROP_INVALID_PACKET, DIRECTION_EGRESS);
		ip6 = (void *)(eth + 1);
	}
	/* Link-local sources end here as well: router solicitations and group reports are Cilium drops. */
	if (!ipv6_equal(ip6->saddr.in6_u.u6_addr32, device->ipv6) ||
	    ipv6_is_unspecified(ip6->saddr.in6_u.u6_addr32))
		return drop(skb, DROP_INVALID_SOURCE_IP, DIRECTION_EGRESS);
	endpoint = endpoint_lookup6(ip6->daddr.in6_u.u6_addr32);
	node = tunnel_node();
	if (!endpoint && node) {
		destination = ipcache_lookup6(ip6->daddr.in6_u.u6_addr32);
		if (goes_by_tunnel(node, destination))
			return to_tunnel(skb, node, destination, device->identity);
	}
	if (!ipv6_decrement_hop_limit(ip6))
		return hop_limit_exceeded(skb, device);
	if (endpoint && !endpoint_is_host(endpoint))
		return deliver(skb, eth, device, endpoint);
	return to_stack(skb, eth, device);
}

SEC("classifier")
int cil_from_container(struct __sk_buff *skb)
{
	const struct device_value *device;
	struct ethhdr *eth;

	/* The receive queue veth recorded would pick the transmit queue of the next device. */
	skb->queue_mapping = 0;
	device = device_lookup(skb->ifindex);
	if (!device)
		return drop(skb, DROP_NO_CONFIG, DIRECTION_EGRESS);
	eth = frame_head(skb, ETH_HLEN);
	if (!eth || !eth_is_ethernet_ii(eth))
		return drop(skb, DROP_UNSUPPORTED_L2, DIRECTION_EGRESS);
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return from_container_ipv4(skb, device);
	case bpf_htons(ETH_P_IPV6):
		return from_container_ipv6(skb, device);
	case bpf_htons(ETH_P_ARP):
		return arp_answer(skb, device);
	default:
		return drop(skb, DROP_UNSUPPORTED_L3, DIRECTION_EGRESS);
	}
}
