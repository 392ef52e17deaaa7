/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs of the node's own devices.
 *
 * cil_from_host    egress of cilium_host: what the host's stack sends or forwards to endpoint CIDRs.
 * cil_to_host      ingress of cilium_host and cilium_net: what comes to the host's stack.
 * cil_from_netdev  ingress of the underlay devices.
 * cil_to_netdev    egress of the same, where packets between nodes are encrypted, or there are services.
 */
#define FILE_ID FILE_BPF_HOST

#include "lib/conntrack4.h"
#include "lib/conntrack6.h"
#include "lib/decap_past_host.h"
#include "lib/encap.h"
#include "lib/encrypt.h"
#include "lib/endpoint.h"
#include "lib/eth.h"
#include "lib/events.h"
#include "lib/host_routing.h"
#include "lib/icmp6_error.h"
#include "lib/ipcache.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"
#include "lib/leaving.h"
#include "lib/local_delivery.h"
#include "lib/mark.h"
#include "lib/metrics.h"
#include "lib/nodeport4.h"
#include "lib/nodeport6.h"

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
static __always_inline int is_unroutable(const struct ipcache_value *destination, __u32 mark)
{
	return identity_is_world(ipcache_identity(destination)) && !mark_is_from_proxy(mark);
}

/* Who sent it, where the mark does not say. */
static __always_inline void identify4(struct __sk_buff *skb, struct event_scope *scope, __be32 source)
{
	if (scope->source_identity != IDENTITY_UNKNOWN)
		return;
	scope->source_identity = identity_or_world(ipcache_identity(ipcache_lookup4(source)));
	debug(skb, scope, DEBUG_IDENTITY4, source, scope->source_identity, 0);
}

static __always_inline void identify6(struct __sk_buff *skb, struct event_scope *scope, const __be32 *source)
{
	if (scope->source_identity != IDENTITY_UNKNOWN)
		return;
	scope->source_identity = identity_or_world(ipcache_identity(ipcache_lookup6(source)));
	debug(skb, scope, DEBUG_IDENTITY6, source[3], scope->source_identity, 0);
}

/* This node's own flow through the tunnel: off the ports of clients' flows. Returns 0 or a drop reason. */
static __noinline int keep_off4(struct __sk_buff *skb)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ct4_packet packet = {};

	if (!eth || !ipv4_is_valid(skb, ip4) || ct4_read(skb, ip4, &packet, DIRECTION_INGRESS))
		return 0;
	return snat4_keep_off(skb, &packet, SNAT_BY_TUNNEL);
}

static __noinline int keep_off6(struct __sk_buff *skb)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	struct ct6_packet packet = {};

	if (!eth || !ipv6_is_valid(ip6) || ct6_read(skb, ip6, &packet, DIRECTION_INGRESS))
		return 0;
	return snat6_keep_off(skb, &packet, SNAT_BY_TUNNEL);
}

/* To an endpoint of another node. */
static __always_inline int to_tunnel(struct __sk_buff *skb, struct event_scope *scope,
				     const struct node_value *node, const struct ipcache_value *destination)
{
	int result = 0;

	if (node_has_node_ports(node))
		result = skb->protocol == bpf_htons(ETH_P_IP) ? keep_off4(skb) : keep_off6(skb);
	if (!result)
		result = encap(skb, scope, node, destination, TRACE_REASON_UNKNOWN);
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	return bpf_redirect(node->tunnel_ifindex, 0);
}

static __always_inline int deliver4(struct __sk_buff *skb, struct event_scope *scope, struct ethhdr *eth,
				    const struct endpoint_value *endpoint)
{
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ct4_packet packet = {};
	int result;

	identify4(skb, scope, ip4->saddr);
	if (!ipv4_decrement_ttl(ip4))
		return drop(skb, scope, DROP_TTL_EXCEEDED, DIRECTION_INGRESS);
	result = ct4_read(skb, ip4, &packet, DIRECTION_INGRESS);
	if (!result)
		result = local_delivery4(skb, scope, eth, endpoint, &packet, CT_INGRESS);
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
	return bpf_redirect(endpoint->ifindex, 0);
}

static __always_inline int from_host_ipv4(struct __sk_buff *skb, struct event_scope *scope,
					  const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	const struct ipcache_value *destination;
	const struct endpoint_value *endpoint;

	if (!eth || !ipv4_is_valid(skb, ip4))
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	endpoint = endpoint_lookup4(ip4->daddr);
	if (endpoint && !endpoint_is_host(endpoint))
		return deliver4(skb, scope, eth, endpoint);
	/* Groups and the link itself are the kernel's business; such frames are addressed rightly already. */
	if (ipv4_is_multicast_or_broadcast(ip4->daddr))
		return TC_ACT_OK;
	if (endpoint)
		return cross_to_net(skb, eth, node);
	destination = ipcache_lookup4(ip4->daddr);
	if (node->tunnel_ifindex && goes_by_tunnel(destination)) {
		identify4(skb, scope, ip4->saddr);
		return to_tunnel(skb, scope, node, destination);
	}
	if (!ipv4_is_link_local(ip4->daddr) && is_unroutable(destination, skb->mark))
		return drop(skb, scope, DROP_UNROUTABLE, DIRECTION_INGRESS);
	return cross_to_net(skb, eth, node);
}

/* The error enters the stack by this device, as if it had come from the endpoints' side. */
static __noinline int hop_limit_exceeded(struct __sk_buff *skb, struct event_scope *scope,
					 const struct node_value *node)
{
	int result = icmp6_time_exceeded(skb, node->router_ipv6, node->host_mac, node->host_mac);

	if (result == ICMP_ERROR_FORBIDDEN)
		result = -DROP_TTL_EXCEEDED;
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	/* This node's own, should the sender be behind the tunnel. */
	skb->mark = MARK_MAGIC_HOST;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

static __always_inline int deliver6(struct __sk_buff *skb, struct event_scope *scope, struct ethhdr *eth,
				    const struct node_value *node, const struct endpoint_value *endpoint)
{
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	struct ct6_packet packet = {};
	int result;

	identify6(skb, scope, ip6->saddr.in6_u.u6_addr32);
	if (!ipv6_decrement_hop_limit(ip6))
		return hop_limit_exceeded(skb, scope, node);
	result = ct6_read(skb, ip6, &packet, DIRECTION_INGRESS);
	if (!result)
		result = local_delivery6(skb, scope, eth, endpoint, &packet, CT_INGRESS);
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
	return bpf_redirect(endpoint->ifindex, 0);
}

static __always_inline int from_host_ipv6(struct __sk_buff *skb, struct event_scope *scope,
					  const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	const struct ipcache_value *destination;
	const struct endpoint_value *endpoint;
	const __be32 *address;

	if (!eth || !ipv6_is_valid(ip6))
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	address = ip6->daddr.in6_u.u6_addr32;
	endpoint = endpoint_lookup6(address);
	if (endpoint && !endpoint_is_host(endpoint))
		return deliver6(skb, scope, eth, node, endpoint);
	if (ipv6_is_multicast(address))
		return TC_ACT_OK;
	if (endpoint)
		return cross_to_net(skb, eth, node);
	destination = ipcache_lookup6(address);
	if (node->tunnel_ifindex && goes_by_tunnel(destination)) {
		identify6(skb, scope, ip6->saddr.in6_u.u6_addr32);
		return to_tunnel(skb, scope, node, destination);
	}
	if (!ipv6_is_link_local(address) && is_unroutable(destination, skb->mark))
		return drop(skb, scope, DROP_UNROUTABLE, DIRECTION_INGRESS);
	return cross_to_net(skb, eth, node);
}

/* What the proxy sends on was counted when it first came. */
static __always_inline void enter(struct __sk_buff *skb, const struct event_scope *scope)
{
	if (scope->source_identity != IDENTITY_UNKNOWN)
		debug(skb, scope, DEBUG_INHERITED, scope->source_identity, 0, 0);
	if (mark_is_from_proxy(skb->mark)) {
		trace(skb, scope, TRACE_FROM_PROXY, TRACE_REASON_UNKNOWN, skb->ingress_ifindex);
		return;
	}
	count_forward(skb, REASON_INTERFACE, DIRECTION_INGRESS);
	trace(skb, scope, TRACE_FROM_HOST, TRACE_REASON_UNKNOWN, skb->ingress_ifindex);
}

SEC("classifier")
int cil_from_host(struct __sk_buff *skb)
{
	struct event_scope scope = {
		.wanted = events_wanted(),
		.source_identity = mark_identity(skb->mark),
	};
	const struct node_value *node = node_lookup();
	struct ethhdr *eth;

	/* Cannot be: an array has all its elements. The verifier asks. */
	if (!node)
		return drop(skb, &scope, DROP_NO_CONFIG, DIRECTION_INGRESS);
	enter(skb, &scope);
	eth = frame_head(skb, ETH_HLEN);
	/* What is of a VLAN is no IP to endpoints; the header does not show it. */
	if (!eth || skb->vlan_present)
		return TC_ACT_OK;
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return from_host_ipv4(skb, &scope, node);
	case bpf_htons(ETH_P_IPV6):
		return from_host_ipv6(skb, &scope, node);
	default:
		return TC_ACT_OK;
	}
}

SEC("classifier")
int cil_to_host(struct __sk_buff *skb)
{
	struct event_scope scope = { .wanted = events_wanted() };

	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	if (unlikely(scope.wanted)) {
		scope.source_identity = mark_identity(skb->mark);
		trace(skb, &scope, TRACE_TO_STACK, TRACE_REASON_UNKNOWN, skb->ifindex);
	}
	return TC_ACT_OK;
}

/*
 * Whether the device has no Ethernet, and gives the packet as it is. Nothing says so to a program; but then the
 * packet begins where its network header does.
 */
static __always_inline int begins_with_ip(struct __sk_buff *skb)
{
	__u64 packet[2], network[2];

	if (bpf_skb_load_bytes(skb, 0, packet, sizeof(packet)) ||
	    bpf_skb_load_bytes_relative(skb, 0, network, sizeof(network), BPF_HDR_START_NET))
		return 0;
	return packet[0] == network[0] && packet[1] == network[1];
}

/* To the tunnel's port of this node. `udp_at` is where the UDP header is. */
static __always_inline int is_to_tunnel(struct __sk_buff *skb, const struct node_value *node, __u32 udp_at,
					const struct endpoint_value *destination)
{
	__be16 port;

	return destination && endpoint_is_host(destination) &&
	       !bpf_skb_load_bytes(skb, udp_at + UDP_DESTINATION_AT, &port, sizeof(port)) &&
	       port == node->tunnel_port;
}

/* Whether another packet is inside. Only the first of several fragments can be told by its port. */
static __always_inline int is_of_tunnel4(struct __sk_buff *skb, __u32 at, const struct node_value *node)
{
	struct iphdr ip4;

	if (bpf_skb_load_bytes(skb, at, &ip4, sizeof(ip4)) || ip4.protocol != IPPROTO_UDP ||
	    ip4.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return 0;
	return is_to_tunnel(skb, node, at + ip4.ihl * 4, endpoint_lookup4(ip4.daddr));
}

static __always_inline int is_of_tunnel6(struct __sk_buff *skb, __u32 at, const struct node_value *node)
{
	struct ipv6hdr ip6;

	if (bpf_skb_load_bytes(skb, at, &ip6, sizeof(ip6)) || ip6.nexthdr != IPPROTO_UDP)
		return 0;
	return is_to_tunnel(skb, node, at + sizeof(ip6), endpoint_lookup6(ip6.daddr.in6_u.u6_addr32));
}

/* EVENT_FLAG_VXLAN, EVENT_FLAG_GENEVE, or 0. Out of line: for its stack. */
static __noinline __u32 tunnel_flag(struct __sk_buff *skb, __u32 at)
{
	const struct node_value *node = node_lookup();
	int inside = 0;

	if (!node || !node->tunnel_port)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		inside = is_of_tunnel4(skb, at, node);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		inside = is_of_tunnel6(skb, at, node);
	if (!inside)
		return 0;
	return node->flags & NODE_FLAG_GENEVE ? EVENT_FLAG_GENEVE : EVENT_FLAG_VXLAN;
}

/* The sender by its address; the underlay carries no identity. */
static __noinline int from_network(struct __sk_buff *skb, struct event_scope *scope)
{
	union address source = {};

	if (begins_with_ip(skb))
		scope->flags = EVENT_FLAG_L3_DEVICE;
	scope->flags |= tunnel_flag(skb, event_ip_at(scope));
	event_source_address(skb, scope, &source);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		identify4(skb, scope, source.v4);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		identify6(skb, scope, source.v6);
	if (scope->flags & (EVENT_FLAG_VXLAN | EVENT_FLAG_GENEVE))
		trace_overlay(skb, scope, TRACE_FROM_NETWORK, TRACE_REASON_UNKNOWN, skb->ingress_ifindex);
	else
		trace(skb, scope, TRACE_FROM_NETWORK, TRACE_REASON_UNKNOWN, skb->ingress_ifindex);
	return 0;
}

/*
 * From a peer's endpoint to one of this node, past the host's stack. TC_ACT_UNSPEC: the packet is the stack's,
 * which also says what is wrong with it, and answers when it has no hop left.
 */
static __noinline int past_host4(struct __sk_buff *skb, struct event_scope *scope)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	const struct endpoint_value *endpoint;
	const struct ipcache_value *source;
	struct ct4_packet packet = {};
	int result;

	/* A device without Ethernet has no such header. */
	if (!eth || eth->h_proto != bpf_htons(ETH_P_IP) || !ipv4_is_valid(skb, ip4) || ip4->ttl <= 1)
		return TC_ACT_UNSPEC;
	endpoint = endpoint_lookup4(ip4->daddr);
	if (!endpoint || endpoint_is_host(endpoint))
		return TC_ACT_UNSPEC;
	source = ipcache_lookup4(ip4->saddr);
	if (!is_direct(source))
		return TC_ACT_UNSPEC;
	scope->source_identity = source->identity;
	ipv4_decrement_ttl(ip4);
	result = ct4_read(skb, ip4, &packet, DIRECTION_INGRESS);
	if (!result)
		result = local_delivery4(skb, scope, eth, endpoint, &packet, CT_INGRESS);
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

static __noinline int past_host6(struct __sk_buff *skb, struct event_scope *scope)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	const struct endpoint_value *endpoint;
	const struct ipcache_value *source;
	struct ct6_packet packet = {};
	int result;

	if (!eth || eth->h_proto != bpf_htons(ETH_P_IPV6) || !ipv6_is_valid(ip6) || ip6->hop_limit <= 1)
		return TC_ACT_UNSPEC;
	endpoint = endpoint_lookup6(ip6->daddr.in6_u.u6_addr32);
	if (!endpoint || endpoint_is_host(endpoint))
		return TC_ACT_UNSPEC;
	source = ipcache_lookup6(ip6->saddr.in6_u.u6_addr32);
	if (!is_direct(source))
		return TC_ACT_UNSPEC;
	scope->source_identity = source->identity;
	ipv6_decrement_at_underlay(skb, ip6);
	result = ct6_read(skb, ip6, &packet, DIRECTION_INGRESS);
	if (!result)
		result = local_delivery6(skb, scope, eth, endpoint, &packet, CT_INGRESS);
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

/* Frames for another host are seen by devices that listen to all; those of a VLAN are for another device. */
static __always_inline int past_host(struct __sk_buff *skb, struct event_scope *scope)
{
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TC_ACT_UNSPEC;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return past_host4(skb, scope);
	case bpf_htons(ETH_P_IPV6):
		return past_host6(skb, scope);
	default:
		return TC_ACT_UNSPEC;
	}
}

/* Services for clients outside. TC_ACT_UNSPEC: what it is now is the stack's. */
static __noinline int node_port4(struct __sk_buff *skb, struct event_scope *scope, const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ct4_packet packet = {};

	/* What is wrong with a packet the stack says. */
	if (!eth || eth->h_proto != bpf_htons(ETH_P_IP) || !ipv4_is_valid(skb, ip4) ||
	    ct4_read(skb, ip4, &packet, DIRECTION_INGRESS))
		return TC_ACT_UNSPEC;
	return nodeport4_received(skb, scope, &packet, node);
}

static __noinline int node_port6(struct __sk_buff *skb, struct event_scope *scope, const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	struct ct6_packet packet = {};

	if (!eth || eth->h_proto != bpf_htons(ETH_P_IPV6) || !ipv6_is_valid(ip6) ||
	    ct6_read(skb, ip6, &packet, DIRECTION_INGRESS))
		return TC_ACT_UNSPEC;
	return nodeport6_received(skb, scope, &packet, node);
}

static __always_inline int node_port(struct __sk_buff *skb, struct event_scope *scope, const struct node_value *node)
{
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TC_ACT_UNSPEC;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return node_port4(skb, scope, node);
	case bpf_htons(ETH_P_IPV6):
		return node_port6(skb, scope, node);
	default:
		return TC_ACT_UNSPEC;
	}
}

SEC("classifier")
int cil_from_netdev(struct __sk_buff *skb)
{
	struct event_scope scope = { .wanted = events_wanted() };
	const struct node_value *node = node_lookup();

	count_forward(skb, REASON_INTERFACE, DIRECTION_INGRESS);
	if (unlikely(scope.wanted))
		from_network(skb, &scope);
	if (routes_past_host(node) && node->tunnel_port) {
		const struct endpoint_value *endpoint = decap_past_host(skb, &scope, node);

		if (endpoint && skb->protocol == bpf_htons(ETH_P_IP))
			return decap_deliver4(skb, &scope, node, endpoint);
		if (endpoint)
			return decap_deliver6(skb, &scope, node, endpoint);
	}
	if (node && node_has_node_ports(node)) {
		int result = node_port(skb, &scope, node);

		if (result != TC_ACT_UNSPEC)
			return result;
	}
	if (routes_past_host(node))
		return past_host(skb, &scope);
	/* Not OK: programs and filters of others that are attached behind this one shall run as well. */
	return TC_ACT_UNSPEC;
}

static __noinline int leave4(struct __sk_buff *skb)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	const struct endpoint_value *source;
	struct ct4_packet packet = {};

	if (!eth || eth->h_proto != bpf_htons(ETH_P_IP) || !ipv4_is_valid(skb, ip4))
		return 0;
	source = endpoint_lookup4(ip4->saddr);
	if (!source || !endpoint_is_host(source) || ct4_read(skb, ip4, &packet, DIRECTION_EGRESS))
		return 0;
	return nodeport4_leave(skb, &packet);
}

static __noinline int leave6(struct __sk_buff *skb)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	const struct endpoint_value *source;
	struct ct6_packet packet = {};

	if (!eth || eth->h_proto != bpf_htons(ETH_P_IPV6) || !ipv6_is_valid(ip6))
		return 0;
	source = endpoint_lookup6(ip6->saddr.in6_u.u6_addr32);
	if (!source || !endpoint_is_host(source) || ct6_read(skb, ip6, &packet, DIRECTION_EGRESS))
		return 0;
	return nodeport6_leave(skb, &packet);
}

/* Services. What the tunnel sends, and what was sent past the stack, has left this node already. */
static __noinline int leave(struct __sk_buff *skb, struct event_scope *scope)
{
	const struct node_value *node = node_lookup();
	__u32 magic = skb->mark & MARK_MAGIC_MASK;
	int result = 0;

	if (!node || !node_has_node_ports(node) || magic == MARK_MAGIC_SNAT_DONE || magic == MARK_MAGIC_OVERLAY ||
	    skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		result = leave4(skb);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		result = leave6(skb);
	if (result)
		return drop(skb, scope, -result, DIRECTION_EGRESS);
	return TC_ACT_UNSPEC;
}

/* Encryption. TC_ACT_UNSPEC: it may leave as it is. */
static __noinline int secure(struct __sk_buff *skb, struct event_scope *scope,
			     const struct encryption_value *encryption)
{
	int verdict = LEAVING_PASS;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		verdict = leaving4(skb, scope);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		verdict = leaving6(skb, scope);
	switch (verdict) {
	case LEAVING_PASS:
		return TC_ACT_UNSPEC;
	case LEAVING_ENCRYPT:
		skb->mark = mark_to_encrypt(scope->source_identity);
		return bpf_redirect(encryption->ifindex, 0);
	default:
		return drop(skb, scope, DROP_UNENCRYPTED, DIRECTION_EGRESS);
	}
}

/* Not OK: programs and filters of others that are attached behind this one shall run as well. */
SEC("classifier")
int cil_to_netdev(struct __sk_buff *skb)
{
	const struct encryption_value *encryption = encryption_lookup();
	struct event_scope scope = { .wanted = events_wanted() };

	if (encryption) {
		int result;

		/* Encrypted already, and no flow that services know. */
		if ((skb->mark & MARK_MAGIC_MASK) == MARK_MAGIC_WIREGUARD) {
			trace(skb, &scope, TRACE_TO_NETWORK, TRACE_REASON_UNKNOWN | TRACE_REASON_ENCRYPTED,
			      skb->ifindex);
			return TC_ACT_UNSPEC;
		}
		result = secure(skb, &scope, encryption);
		if (result != TC_ACT_UNSPEC)
			return result;
	}
	return leave(skb, &scope);
}
