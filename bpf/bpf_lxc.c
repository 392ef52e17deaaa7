/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * cil_from_container: on the ingress of an endpoint's host-side device, so it sees what the endpoint
 * sends. One program serves all endpoints; ciliate_device says whose device it is.
 */
#define FILE_ID FILE_BPF_LXC

#include "lib/arp.h"
#include "lib/conntrack4.h"
#include "lib/conntrack6.h"
#include "lib/dsr4.h"
#include "lib/dsr6.h"
#include "lib/encap.h"
#include "lib/encap_past_host.h"
#include "lib/encrypt.h"
#include "lib/endpoint.h"
#include "lib/eth.h"
#include "lib/events.h"
#include "lib/host_routing.h"
#include "lib/icmp4_error.h"
#include "lib/icmp6_error.h"
#include "lib/ipcache.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"
#include "lib/lb4.h"
#include "lib/lb6.h"
#include "lib/local_delivery.h"
#include "lib/mark.h"
#include "lib/metrics.h"
#include "lib/nd.h"
#include "lib/vlan.h"
#include "lib/way_out.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* For events alone: whom the packet is for. Where there is no tunnel, nothing else asks. */
static __noinline int tell_destination4(struct __sk_buff *skb, struct event_scope *scope, __be32 address)
{
	scope->destination_identity = ipcache_identity(ipcache_lookup4(address));
	debug(skb, scope, DEBUG_IDENTITY4, address, scope->destination_identity, 0);
	return 0;
}

static __noinline int tell_destination6(struct __sk_buff *skb, struct event_scope *scope, const __be32 *address)
{
	scope->destination_identity = ipcache_identity(ipcache_lookup6(address));
	debug(skb, scope, DEBUG_IDENTITY6, address[3], scope->destination_identity, 0);
	return 0;
}

/* To the host's stack, which routes it or keeps it. */
static __always_inline int to_stack(struct __sk_buff *skb, struct event_scope *scope, struct ethhdr *eth,
				    const struct device_value *device, int state)
{
	eth_addr_copy(eth->h_dest, device->node_mac);
	skb->mark = mark_with_identity(device->identity);
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	trace(skb, scope, TRACE_TO_STACK, state, 0);
	capture(skb, scope, CAPTURE_DELIVERY, 0);
	return TC_ACT_OK;
}

/* On its way to an endpoint of another node, by a device of this one. */
static __always_inline void to_network(struct __sk_buff *skb, struct event_scope *scope, __u32 ifindex,
				      const struct ipcache_value *destination, int state)
{
	scope->destination_identity = destination->identity;
	skb->mark = mark_with_identity(scope->source_identity);
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	trace(skb, scope, TRACE_TO_NETWORK, state, ifindex);
	capture(skb, scope, CAPTURE_DELIVERY, ifindex);
}

/*
 * To an endpoint of another node, encrypted: by WireGuard's device, where the host's rules lead the mark; past the
 * host at once, unless the packet is too long, which the stack tells its sender. Out of line: for its stack.
 */
static __noinline int to_crypto(struct __sk_buff *skb, struct event_scope *scope, const struct device_value *device,
				const struct l4 *l4, int state)
{
	const struct encryption_value *encryption = encryption_lookup();
	struct ethhdr *eth;

	skb->mark = mark_to_encrypt(device->identity);
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	if (encryption && encryption->ifindex && routes_past_host(node_lookup()) &&
	    !encap_is_too_long(skb, l4, encryption->mtu)) {
		trace(skb, scope, TRACE_TO_NETWORK, state, encryption->ifindex);
		capture(skb, scope, CAPTURE_DELIVERY, encryption->ifindex);
		return bpf_redirect(encryption->ifindex, 0);
	}
	eth = frame_head(skb, ETH_HLEN);
	if (!eth)
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_EGRESS);
	eth_addr_copy(eth->h_dest, device->node_mac);
	trace(skb, scope, TRACE_TO_STACK, state, 0);
	capture(skb, scope, CAPTURE_DELIVERY, 0);
	return TC_ACT_OK;
}

/*
 * To an endpoint of another node, through the tunnel: without its device, where that can be. The hop is taken where the
 * tunnel ends.
 */
static __always_inline int to_tunnel(struct __sk_buff *skb, struct event_scope *scope,
				     const struct node_value *node, const struct ipcache_value *destination,
				     int state)
{
	__u32 id = identity_on_wire(scope->source_identity), len = skb->len;
	int result = encap_check(destination);

	if (result)
		return drop(skb, scope, -result, DIRECTION_EGRESS);
	encap_tell(skb, scope, node, destination, id, state);
	result = TC_ACT_UNSPEC;
	if (encap_is_simple(skb, node, destination))
		result = encap_past_host(skb, node, destination, id);
	if (result == TC_ACT_UNSPEC)
		result = encap_by_device(skb, node, destination, id);
	if (result < 0)
		return drop(skb, scope, -result, DIRECTION_EGRESS);
	metric_add(len, REASON_FORWARDED, DIRECTION_EGRESS, __LINE__, FILE_ID);
	return result;
}

/* The frame is an error for its sender, who gets it from its own device; or it has become none. */
static __always_inline int tell_sender(struct __sk_buff *skb, struct event_scope *scope, int result, int forbidden)
{
	if (result == ICMP_ERROR_FORBIDDEN)
		result = -forbidden;
	if (result)
		return drop(skb, scope, -result, DIRECTION_EGRESS);
	capture(skb, scope, CAPTURE_DELIVERY, skb->ifindex);
	return bpf_redirect(skb->ifindex, 0);
}

static __noinline int no_backend4(struct __sk_buff *skb, struct event_scope *scope, const struct device_value *device,
				  const struct ct4_packet *packet)
{
	int result = icmp4_error(skb, packet->key.daddr, device->node_mac, device->mac, ICMP_PORT_UNREACHABLE);

	return tell_sender(skb, scope, result, DROP_NO_BACKEND);
}

static __noinline int no_backend6(struct __sk_buff *skb, struct event_scope *scope, const struct device_value *device,
				  const struct ct6_packet *packet)
{
	int result = icmp6_error(skb, packet->key.daddr, device->node_mac, device->mac, ICMP6_PORT_UNREACHABLE);

	return tell_sender(skb, scope, result, DROP_NO_BACKEND);
}

/* Too long for the tunnel: its sender is told, of the packet that it sent. */
static __noinline int frag_needed4(struct __sk_buff *skb, struct event_scope *scope,
				   const struct device_value *device, const struct node_value *node,
				   struct ct4_packet *packet)
{
	int result = packet->l4.is_error ? ICMP_ERROR_FORBIDDEN : lb4_undo(skb, packet);

	if (!result)
		result = icmp4_too_big(skb, node->router_ipv4, device->node_mac, device->mac, node->tunnel_mtu);
	return tell_sender(skb, scope, result, DROP_FRAG_NEEDED);
}

static __noinline int frag_needed6(struct __sk_buff *skb, struct event_scope *scope,
				   const struct device_value *device, const struct node_value *node,
				   struct ct6_packet *packet)
{
	int result = packet->l4.is_error ? ICMP_ERROR_FORBIDDEN : lb6_undo(skb, packet);

	if (!result)
		result = icmp6_too_big(skb, node->router_ipv6, device->node_mac, device->mac, encap_mtu6(node));
	return tell_sender(skb, scope, result, DROP_FRAG_NEEDED);
}

/* An answer, or an error, for a service's client outside. */
static __noinline int answer_outside4(struct __sk_buff *skb, struct event_scope *scope, struct ct4_packet *packet,
					int state)
{
	int result = packet->reverse_bits & CT_BIT_DSR_INTERNAL ? dsr4_answer(skb, packet) : lb4_reverse(skb, packet);

	if (result)
		return drop(skb, scope, -result, DIRECTION_EGRESS);
	return way_out4(skb, scope, state, WAY_OUT_EGRESS | WAY_OUT_HOP);
}

static __always_inline int from_container_ipv4(struct __sk_buff *skb, struct event_scope *scope,
					       const struct device_value *device, const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	const struct ipcache_value *destination;
	const struct endpoint_value *endpoint;
	struct ct4_packet packet = {};
	__u32 ifindex = 0;
	int state, result;

	if (!eth || !ipv4_is_valid(skb, ip4))
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_EGRESS);
	/* An endpoint without IPv4 has address 0, which is no source either. */
	if (ip4->saddr != device->ipv4 || !ip4->saddr)
		return drop(skb, scope, DROP_INVALID_SOURCE_IP, DIRECTION_EGRESS);
	state = ct4_read(skb, ip4, &packet, DIRECTION_EGRESS);
	if (encap_is_forged(&packet.l4, node))
		return drop(skb, scope, DROP_ENCAP_PROHIBITED, DIRECTION_EGRESS);
	if (!state && !node_has_services(node)) {
		state = ct4_track(skb, scope, &packet, CT_EGRESS);
	} else if (!state) {
		state = lb4_track(skb, scope, &packet);
		if (state == -LB_REJECT)
			return no_backend4(skb, scope, device, &packet);
		eth = frame_head(skb, IPV4_HEAD_LEN);
		if (!eth)
			return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_EGRESS);
		ip4 = (void *)(eth + 1);
	}
	if (state < 0)
		return drop(skb, scope, -state, DIRECTION_EGRESS);
	if (unlikely(dsr_or_node_port(packet.reverse, packet.reverse_bits)))
		return answer_outside4(skb, scope, &packet, state);
	endpoint = endpoint_lookup4(packet.key.daddr);
	if (unlikely(state >= CT_REPLY && lb4_is_loopback(packet.key.daddr)))
		endpoint = endpoint_lookup4(device->ipv4);
	if (!endpoint && node->tunnel_ifindex) {
		destination = ipcache_lookup4(packet.key.daddr);
		if (goes_by_tunnel(destination)) {
			if (ip4->frag_off & bpf_htons(IPV4_DONT_FRAGMENT) &&
			    encap_is_too_long(skb, &packet.l4, node->tunnel_mtu))
				return frag_needed4(skb, scope, device, node, &packet);
			return to_tunnel(skb, scope, node, destination, state);
		}
	}
	if (!ipv4_decrement_ttl(ip4))
		return drop(skb, scope, DROP_TTL_EXCEEDED, DIRECTION_EGRESS);
	if (endpoint && !endpoint_is_host(endpoint)) {
		/* Once for leaving the sender, once for arriving: as Cilium's two programs would. */
		count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
		state = local_delivery4(skb, scope, eth, endpoint, &packet, CT_INGRESS);
		if (state < 0)
			return drop(skb, scope, -state, DIRECTION_INGRESS);
		count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
		return bpf_redirect_peer(endpoint->ifindex, 0);
	}
	if (!endpoint && (routes_past_host(node) || encryption_lookup())) {
		destination = ipcache_lookup4(packet.key.daddr);
		if (lacks_key(destination))
			return drop(skb, scope, DROP_UNENCRYPTED, DIRECTION_EGRESS);
		if (has_key(destination)) {
			scope->destination_identity = destination->identity;
			return to_crypto(skb, scope, device, &packet.l4, state);
		}
		result = TC_ACT_UNSPEC;
		if (routes_past_host(node) && is_direct(destination))
			result = route4(skb, ip4, &ifindex);
		if (result != TC_ACT_UNSPEC) {
			to_network(skb, scope, ifindex, destination, state);
			return result;
		}
	}
	if (unlikely(scope->wanted))
		tell_destination4(skb, scope, packet.key.daddr);
	return to_stack(skb, scope, eth, device, state);
}

static __noinline int hop_limit_exceeded(struct __sk_buff *skb, struct event_scope *scope,
					 const struct device_value *device, const struct node_value *node,
					 struct ct6_packet *packet)
{
	int result = lb6_undo(skb, packet);

	if (!result)
		result = icmp6_time_exceeded(skb, node->router_ipv6, device->node_mac, device->mac);
	return tell_sender(skb, scope, result, DROP_TTL_EXCEEDED);
}

/* An answer, or an error, for a service's client outside. */
static __noinline int answer_outside6(struct __sk_buff *skb, struct event_scope *scope, struct ct6_packet *packet,
					int state)
{
	int result = packet->reverse_bits & CT_BIT_DSR_INTERNAL ? dsr6_answer(skb, packet) : lb6_reverse(skb, packet);

	if (result)
		return drop(skb, scope, -result, DIRECTION_EGRESS);
	return way_out6(skb, scope, state, WAY_OUT_EGRESS | WAY_OUT_HOP);
}

static __always_inline int from_container_ipv6(struct __sk_buff *skb, struct event_scope *scope,
					       const struct device_value *device, const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	const struct ipcache_value *destination;
	const struct endpoint_value *endpoint;
	struct ct6_packet packet = {};
	__u32 ifindex = 0;
	int state, result;

	if (!eth || !ipv6_is_valid(ip6))
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_EGRESS);
	if (ip6->hop_limit == ND_HOP_LIMIT &&
	    (ip6->nexthdr == IPV6_NEXT_ICMP || ipv6_is_extension(ip6->nexthdr))) {
		result = nd_handle(skb, scope, device, ip6->nexthdr);
		if (result < 0)
			return drop(skb, scope, -result, DIRECTION_EGRESS);
		if (result != ND_NOT_ND)
			return result;
		/* To the verifier the answer may have been built all the same, and the pointers be stale. */
		eth = frame_head(skb, IPV6_HEAD_LEN);
		if (!eth)
			return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_EGRESS);
		ip6 = (void *)(eth + 1);
	}
	/* Link-local sources end here as well: router solicitations and group reports are Cilium drops. */
	if (!ipv6_equal(ip6->saddr.in6_u.u6_addr32, device->ipv6) ||
	    ipv6_is_unspecified(ip6->saddr.in6_u.u6_addr32))
		return drop(skb, scope, DROP_INVALID_SOURCE_IP, DIRECTION_EGRESS);
	state = ct6_read(skb, ip6, &packet, DIRECTION_EGRESS);
	if (encap_is_forged(&packet.l4, node))
		return drop(skb, scope, DROP_ENCAP_PROHIBITED, DIRECTION_EGRESS);
	if (!state && !node_has_services(node)) {
		state = ct6_track(skb, scope, &packet, CT_EGRESS);
	} else if (!state) {
		state = lb6_track(skb, scope, &packet);
		if (state == -LB_REJECT)
			return no_backend6(skb, scope, device, &packet);
		eth = frame_head(skb, IPV6_HEAD_LEN);
		if (!eth)
			return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_EGRESS);
		ip6 = (void *)(eth + 1);
	}
	if (state < 0)
		return drop(skb, scope, -state, DIRECTION_EGRESS);
	if (unlikely(dsr_or_node_port(packet.reverse, packet.reverse_bits)))
		return answer_outside6(skb, scope, &packet, state);
	endpoint = endpoint_lookup6(packet.key.daddr);
	if (unlikely(state >= CT_REPLY && lb6_is_loopback(packet.key.daddr)))
		endpoint = endpoint_lookup6(device->ipv6);
	if (!endpoint && node->tunnel_ifindex) {
		destination = ipcache_lookup6(packet.key.daddr);
		if (goes_by_tunnel(destination)) {
			if (encap_is_too_long(skb, &packet.l4, encap_mtu6(node)))
				return frag_needed6(skb, scope, device, node, &packet);
			return to_tunnel(skb, scope, node, destination, state);
		}
	}
	if (!ipv6_decrement_hop_limit(ip6))
		return hop_limit_exceeded(skb, scope, device, node, &packet);
	if (endpoint && !endpoint_is_host(endpoint)) {
		count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
		state = local_delivery6(skb, scope, eth, endpoint, &packet, CT_INGRESS);
		if (state < 0)
			return drop(skb, scope, -state, DIRECTION_INGRESS);
		count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
		return bpf_redirect_peer(endpoint->ifindex, 0);
	}
	if (!endpoint && (routes_past_host(node) || encryption_lookup())) {
		destination = ipcache_lookup6(packet.key.daddr);
		if (lacks_key(destination))
			return drop(skb, scope, DROP_UNENCRYPTED, DIRECTION_EGRESS);
		if (has_key(destination)) {
			scope->destination_identity = destination->identity;
			return to_crypto(skb, scope, device, &packet.l4, state);
		}
		result = TC_ACT_UNSPEC;
		if (routes_past_host(node) && is_direct(destination))
			result = route6(skb, ip6, &ifindex);
		if (result != TC_ACT_UNSPEC) {
			to_network(skb, scope, ifindex, destination, state);
			return result;
		}
	}
	if (unlikely(scope->wanted))
		tell_destination6(skb, scope, packet.key.daddr);
	return to_stack(skb, scope, eth, device, state);
}

SEC("classifier")
int cil_from_container(struct __sk_buff *skb)
{
	struct event_scope scope = { .wanted = events_wanted() };
	const struct node_value *node = node_lookup();
	const struct device_value *device;
	struct ethhdr *eth;

	/* The receive queue veth recorded would pick the transmit queue of the next device. */
	skb->queue_mapping = 0;
	device = device_lookup(skb->ifindex);
	/* The node cannot be missing: an array has all its elements. The verifier asks. */
	if (!device || !node)
		return drop(skb, &scope, DROP_NO_CONFIG, DIRECTION_EGRESS);
	scope.source = device->endpoint_id;
	scope.source_identity = device->identity;
	trace(skb, &scope, TRACE_FROM_ENDPOINT, TRACE_REASON_UNKNOWN, 0);
	if (vlan_is_tagged(skb))
		return drop(skb, &scope, DROP_UNSUPPORTED_L3, DIRECTION_EGRESS);
	eth = frame_head(skb, ETH_HLEN);
	if (!eth || !eth_is_ethernet_ii(eth))
		return drop(skb, &scope, DROP_UNSUPPORTED_L2, DIRECTION_EGRESS);
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return from_container_ipv4(skb, &scope, device, node);
	case bpf_htons(ETH_P_IPV6):
		return from_container_ipv6(skb, &scope, device, node);
	case bpf_htons(ETH_P_ARP):
		return arp_answer(skb, &scope, device);
	default:
		return drop(skb, &scope, DROP_UNSUPPORTED_L3, DIRECTION_EGRESS);
	}
}
