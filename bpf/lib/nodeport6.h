/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services of IPv6 for clients outside. */
#ifndef CILIATE_NODEPORT6_H
#define CILIATE_NODEPORT6_H

#include "dsr6.h"
#include "frontend6.h"
#include "nodeport.h"

#define NODEPORT(name) nodeport6_##name
#define SNAT(name) snat6_##name
#define LB(name) lb6_##name
#define CT(name) ct6_##name
#define NAT(name) nat6_##name
#define DSR(name) dsr6_##name
#define DSR_REVERSE_NAT cilium_lb6_reverse_nat
#define NODEPORT_SNAT_MAP cilium_snat_v6_external
#define NODEPORT_WAY_OUT way_out6
#define NODEPORT_UNREACHABLE ICMP6_PORT_UNREACHABLE
#define NODEPORT_TOO_BIG ICMP6_TOO_BIG

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
				     __u64 kind, __u8 forbidden)
{
	const struct node_value *node = node_lookup();
	__u8 macs[2 * ETH_ADDR_LEN] = {};
	int result = lb6_undo(skb, packet);

	if (node && kind == ICMP6_TOO_BIG)
		kind |= (__u64)encap_mtu6(node) << 32;
	if (!result)
		result = icmp6_error(skb, packet->key.daddr, macs, macs + ETH_ADDR_LEN, kind);
	if (result)
		return drop(skb, scope, result < 0 ? -result : forbidden, DIRECTION_INGRESS);
	return way_out6(skb, scope, CT_RELATED, 0);
}

/* Whether a packet says which service its client asked. */
static __always_inline int dsr6_find(struct __sk_buff *skb, struct dsr6_option *option)
{
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);

	if (!eth || ip6->nexthdr != IPV6_NEXT_DESTINATION ||
	    bpf_skb_load_bytes(skb, IPV6_HEAD_LEN, option, sizeof(*option)))
		return 0;
	return option->type == DSR_IPV6_TYPE && option->words == sizeof(*option) / 8 - 1;
}

/* Returns 0 or a drop reason. Makes packet pointers invalid. */
static __always_inline int dsr6_add(struct __sk_buff *skb, const struct lb6_reverse_nat *frontend)
{
	struct dsr6_option option = {
		.words = sizeof(option) / 8 - 1,
		.type = DSR_IPV6_TYPE,
		/* All behind this byte. */
		.len = sizeof(option) - 4,
		.port = frontend->port,
	};
	struct ethhdr *eth = frame_head(skb, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);

	if (!eth)
		return -DROP_INVALID_PACKET;
	ipv6_copy(option.address, (const __be32 *)(const void *)&frontend->address);
	option.next = ip6->nexthdr;
	ip6->nexthdr = IPV6_NEXT_DESTINATION;
	ip6->payload_len = bpf_htons(bpf_ntohs(ip6->payload_len) + sizeof(option));
	if (dsr_make_room(skb, sizeof(option)) ||
	    bpf_skb_store_bytes(skb, IPV6_HEAD_LEN, &option, sizeof(option), 0))
		return -DROP_WRITE_ERROR;
	return 0;
}

/* What the client is told of a packet that is too long; none has to be shorter than that. */
static __always_inline __u64 dsr6_too_big(struct __sk_buff *skb, __u32 mtu)
{
	if (mtu < IPV6_MTU_MIN)
		mtu = IPV6_MTU_MIN;
	return skb ? ICMP6_TOO_BIG | (__u64)mtu << 32 : 0;
}

#include "dsr_family.h"
#include "nodeport_family.h"

#undef NODEPORT
#undef SNAT
#undef LB
#undef CT
#undef NAT
#undef DSR
#undef DSR_REVERSE_NAT
#undef NODEPORT_SNAT_MAP
#undef NODEPORT_WAY_OUT
#undef NODEPORT_UNREACHABLE
#undef NODEPORT_TOO_BIG

#endif
