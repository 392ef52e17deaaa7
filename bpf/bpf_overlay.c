/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs of the tunnel's device, cilium_vxlan or cilium_geneve.
 *
 * cil_from_overlay  ingress: what other nodes sent, without what the tunnel put around it.
 * cil_to_overlay    egress: what this node sends, before the tunnel puts that around it.
 */
#define FILE_ID FILE_BPF_OVERLAY

#include "lib/conntrack4.h"
#include "lib/conntrack6.h"
#include "lib/encap.h"
#include "lib/endpoint.h"
#include "lib/eth.h"
#include "lib/events.h"
#include "lib/from_tunnel.h"
#include "lib/icmp6_error.h"
#include "lib/ipcache.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"
#include "lib/mark.h"
#include "lib/metrics.h"
#include "lib/snat4.h"
#include "lib/snat6.h"
#include "lib/vlan.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The identifier of the virtual network, or a negative number when the packet did not come by a tunnel. */
static __always_inline __s64 tunnel_id(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key;

	/* The kernel wants to be told the outer packet's family. */
	if (bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_LEN, 0) &&
	    bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_LEN, BPF_F_TUNINFO_IPV6))
		return -1;
	return key.tunnel_id;
}

/*
 * Out of cilium_net, so that the stack finds it coming in by cilium_host. Not to the tunnel's port: the stack would
 * take off another one, whatever identity that has.
 */
static __always_inline int to_host(struct __sk_buff *skb, struct event_scope *scope, struct ethhdr *eth,
				   const struct node_value *node)
{
	eth_addr_copy(eth->h_source, node->tunnel_mac);
	eth_addr_copy(eth->h_dest, node->host_mac);
	skb->mark = mark_with_identity(scope->source_identity);
	scope->destination_identity = IDENTITY_HOST;
	trace(skb, scope, TRACE_TO_HOST, TRACE_REASON_UNKNOWN, node->host_ifindex);
	return bpf_redirect(node->net_ifindex, 0);
}

static __always_inline int from_overlay_ipv4(struct __sk_buff *skb, struct event_scope *scope,
					     const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	const struct endpoint_value *endpoint;
	struct ct4_packet packet = {};
	int result;

	if (!eth || !ipv4_is_valid(skb, ip4))
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	from_tunnel_identify4(scope, node, ip4->saddr);
	endpoint = endpoint_lookup4(ip4->daddr);
	if (!endpoint)
		return drop(skb, scope, DROP_UNROUTABLE, DIRECTION_INGRESS);
	/* Answers to what this node sent for clients come to its router's address. */
	if (endpoint_is_host(endpoint) && node_has_node_ports(node) &&
	    !ct4_read(skb, ip4, &packet, DIRECTION_INGRESS)) {
		result = snat4_returned(skb, scope, &packet);
		if (result != TC_ACT_UNSPEC)
			return result;
		eth = frame_head(skb, IPV4_HEAD_LEN);
		if (!eth)
			return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
		ip4 = (void *)(eth + 1);
	}
	if (!ipv4_decrement_ttl(ip4))
		return drop(skb, scope, DROP_TTL_EXCEEDED, DIRECTION_INGRESS);
	result = ct4_read(skb, ip4, &packet, DIRECTION_INGRESS);
	if (endpoint_is_host(endpoint)) {
		if (!result && encap_is_forged(&packet.l4, node))
			return drop(skb, scope, DROP_ENCAP_PROHIBITED, DIRECTION_INGRESS);
		return to_host(skb, scope, eth, node);
	}
	result = from_tunnel_deliver4(skb, scope, eth, endpoint, &packet, result);
	return result < 0 ? drop(skb, scope, -result, DIRECTION_INGRESS) : result;
}

/* The error enters the stack by cilium_host, which sends it back through the tunnel. */
static __noinline int hop_limit_exceeded(struct __sk_buff *skb, struct event_scope *scope,
					 const struct node_value *node)
{
	int result = icmp6_time_exceeded(skb, node->router_ipv6, node->host_mac, node->host_mac);

	if (result == ICMP_ERROR_FORBIDDEN)
		result = -DROP_TTL_EXCEEDED;
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	/* This node's own: without the mark it is the world's to the other end. */
	skb->mark = MARK_MAGIC_HOST;
	bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect(node->host_ifindex, BPF_F_INGRESS);
}

static __always_inline int from_overlay_ipv6(struct __sk_buff *skb, struct event_scope *scope,
					     const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	const struct endpoint_value *endpoint;
	struct ct6_packet packet = {};
	int result;

	if (!eth || !ipv6_is_valid(ip6))
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	from_tunnel_identify6(scope, node, ip6->saddr.in6_u.u6_addr32);
	endpoint = endpoint_lookup6(ip6->daddr.in6_u.u6_addr32);
	if (!endpoint)
		return drop(skb, scope, DROP_UNROUTABLE, DIRECTION_INGRESS);
	/* Answers to what this node sent for clients come to its router's address. */
	if (endpoint_is_host(endpoint) && node_has_node_ports(node) &&
	    !ct6_read(skb, ip6, &packet, DIRECTION_INGRESS)) {
		result = snat6_returned(skb, scope, &packet);
		if (result != TC_ACT_UNSPEC)
			return result;
		eth = frame_head(skb, IPV6_HEAD_LEN);
		if (!eth)
			return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
		ip6 = (void *)(eth + 1);
	}
	if (!ipv6_decrement_hop_limit(ip6))
		return hop_limit_exceeded(skb, scope, node);
	result = ct6_read(skb, ip6, &packet, DIRECTION_INGRESS);
	if (endpoint_is_host(endpoint)) {
		if (!result && encap_is_forged(&packet.l4, node))
			return drop(skb, scope, DROP_ENCAP_PROHIBITED, DIRECTION_INGRESS);
		return to_host(skb, scope, eth, node);
	}
	result = from_tunnel_deliver6(skb, scope, eth, endpoint, &packet, result);
	return result < 0 ? drop(skb, scope, -result, DIRECTION_INGRESS) : result;
}

SEC("classifier")
int cil_from_overlay(struct __sk_buff *skb)
{
	struct event_scope scope = { .wanted = events_wanted() };
	const struct node_value *node = node_lookup();
	struct ethhdr *eth;
	__s64 id;

	count_forward(skb, REASON_INTERFACE, DIRECTION_INGRESS);
	/* Cannot be: an array has all its elements. The verifier asks. */
	if (!node)
		return drop(skb, &scope, DROP_NO_CONFIG, DIRECTION_INGRESS);
	if (vlan_is_tagged(skb))
		return drop(skb, &scope, DROP_VLAN_FILTERED, DIRECTION_INGRESS);
	eth = frame_head(skb, ETH_HLEN);
	/* Whatever nodes do not send each other; the stack knows best what it is. */
	if (!eth || (eth->h_proto != bpf_htons(ETH_P_IP) && eth->h_proto != bpf_htons(ETH_P_IPV6))) {
		trace_overlay(skb, &scope, TRACE_FROM_OVERLAY, TRACE_REASON_UNKNOWN, skb->ifindex);
		return TC_ACT_OK;
	}
	id = tunnel_id(skb);
	if (id < 0)
		return drop(skb, &scope, DROP_NO_TUNNEL_KEY, DIRECTION_INGRESS);
	debug(skb, &scope, DEBUG_DECAP, id, 0, 0);
	/* No node calls itself that to others. */
	if (id == IDENTITY_HOST)
		return drop(skb, &scope, DROP_INVALID_IDENTITY, DIRECTION_INGRESS);
	scope.source_identity = id;
	trace_overlay(skb, &scope, TRACE_FROM_OVERLAY, TRACE_REASON_UNKNOWN, skb->ifindex);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return from_overlay_ipv4(skb, &scope, node);
	return from_overlay_ipv6(skb, &scope, node);
}

SEC("classifier")
int cil_to_overlay(struct __sk_buff *skb)
{
	__u32 magic = skb->mark & MARK_MAGIC_MASK;
	__s64 id;

	/* The tunnel leaves the mark on the outer packet: whatever sees that knows it is of the tunnel. */
	if (magic != MARK_MAGIC_OVERLAY && magic != MARK_MAGIC_ENCRYPT) {
		id = tunnel_id(skb);
		if (id >= 0)
			skb->mark = mark_overlay(id);
	}
	return TC_ACT_OK;
}
