/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services of IPv6 for clients outside. */
#ifndef CILIATE_NODEPORT6_H
#define CILIATE_NODEPORT6_H

#include "nodeport.h"

#define NODEPORT(name) nodeport6_##name
#define SNAT(name) snat6_##name
#define LB(name) lb6_##name
#define CT(name) ct6_##name
#define NAT(name) nat6_##name
#define LB_SERVICES cilium_lb6_services_v2
#define LB_SOURCE_RANGE cilium_lb6_source_range
#define NODEPORT_SNAT_MAP cilium_snat_v6_external
#define NODEPORT_WAY_OUT way_out6
#define NODEPORT_UNREACHABLE ICMP6_PORT_UNREACHABLE
#define NODEPORT_TOO_BIG ICMP6_TOO_BIG

static __always_inline __u32 nodeport6_hash(const struct ct6_packet *packet, int by_address)
{
	__u32 ports = by_address ? packet->l4.ports & 0xffff0000 : packet->l4.ports;

	return jhash6(packet->key.saddr, ports, packet->key.protocol, MAGLEV_SEED6);
}

static __always_inline const struct endpoint_value *nodeport6_endpoint(const struct ct6_packet *packet)
{
	return endpoint_lookup6(packet->key.daddr);
}

static __always_inline const struct ipcache_value *nodeport6_cached(const struct ct6_packet *packet)
{
	return ipcache_lookup6(packet->key.daddr);
}

static __always_inline __u32 nodeport6_identity(const struct ct6_packet *packet)
{
	return identity_or_world(ipcache_identity(ipcache_lookup6(packet->key.saddr)));
}

/* To an endpoint of this node. */
static __noinline int nodeport6_deliver(struct __sk_buff *skb, struct event_scope *scope, struct ct6_packet *packet,
					const struct endpoint_value *endpoint)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	int result;

	if (!eth)
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	if (!ipv6_decrement_hop_limit(ip6))
		return drop(skb, scope, DROP_TTL_EXCEEDED, DIRECTION_INGRESS);
	result = local_delivery6(skb, scope, eth, endpoint, packet, CT_INGRESS);
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

static __always_inline int nodeport6_too_long(struct __sk_buff *skb, const struct ct6_packet *packet,
					      const struct node_value *node)
{
	return encap_is_too_long(skb, &packet->l4, encap_mtu6(node));
}

/* An error for the client, from the service. `kind`: type and code. */
static __noinline int nodeport6_tell(struct __sk_buff *skb, struct event_scope *scope, struct ct6_packet *packet,
				     int kind, __u8 forbidden)
{
	const struct node_value *node = node_lookup();
	__u64 mtu = node && kind == ICMP6_TOO_BIG ? encap_mtu6(node) : 0;
	__u8 macs[2 * ETH_ADDR_LEN] = {};
	int result = lb6_undo(skb, packet);

	if (!result)
		result = icmp6_error(skb, packet->key.daddr, macs, macs + ETH_ADDR_LEN, kind | mtu << 32);
	if (result)
		return drop(skb, scope, result < 0 ? -result : forbidden, DIRECTION_INGRESS);
	return way_out6(skb, scope, CT_RELATED, 0);
}

#include "nodeport_family.h"

#undef NODEPORT
#undef SNAT
#undef LB
#undef CT
#undef NAT
#undef LB_SERVICES
#undef LB_SOURCE_RANGE
#undef NODEPORT_SNAT_MAP
#undef NODEPORT_WAY_OUT
#undef NODEPORT_UNREACHABLE
#undef NODEPORT_TOO_BIG

#endif
