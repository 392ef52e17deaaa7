/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services of IPv4 for clients outside. */
#ifndef CILIATE_NODEPORT4_H
#define CILIATE_NODEPORT4_H

#include "dsr4.h"
#include "frontend4.h"
#include "nodeport.h"

#define NODEPORT(name) nodeport4_##name
#define SNAT(name) snat4_##name
#define LB(name) lb4_##name
#define CT(name) ct4_##name
#define NAT(name) nat4_##name
#define DSR(name) dsr4_##name
#define DSR_REVERSE_NAT cilium_lb4_reverse_nat
#define NODEPORT_SNAT_MAP cilium_snat_v4_external
#define NODEPORT_WAY_OUT way_out4
#define NODEPORT_UNREACHABLE ICMP_PORT_UNREACHABLE
#define NODEPORT_TOO_BIG ICMP_FRAG_NEEDED

/* To an endpoint of this node. */
static __noinline int nodeport4_deliver(struct __sk_buff *skb, struct event_scope *scope, struct ct4_packet *packet,
					const struct endpoint_value *endpoint)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	int result;

	if (!eth)
		return drop(skb, scope, DROP_INVALID_PACKET, DIRECTION_INGRESS);
	if (!ipv4_decrement_ttl(ip4))
		return drop(skb, scope, DROP_TTL_EXCEEDED, DIRECTION_INGRESS);
	result = local_delivery4(skb, scope, eth, endpoint, packet, CT_INGRESS);
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_INGRESS);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

static __always_inline int nodeport4_too_long(struct __sk_buff *skb, const struct ct4_packet *packet,
					      const struct node_value *node)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);

	return eth && ip4->frag_off & bpf_htons(IPV4_DONT_FRAGMENT) &&
	       encap_is_too_long(skb, &packet->l4, node->tunnel_mtu);
}

/* An error for the client, from the service. `kind`: the code, and in the upper half an MTU; 0 is the tunnel's. */
static __noinline int nodeport4_tell(struct __sk_buff *skb, struct event_scope *scope, struct ct4_packet *packet,
				     __u64 kind, __u8 forbidden)
{
	const struct node_value *node = node_lookup();
	__u8 macs[2 * ETH_ADDR_LEN] = {};
	int result = lb4_undo(skb, packet);

	if (node && kind == ICMP_FRAG_NEEDED)
		kind |= (__u64)node->tunnel_mtu << 32;
	if (!result)
		result = icmp4_error(skb, packet->key.daddr, macs, macs + ETH_ADDR_LEN, kind);
	if (result)
		return drop(skb, scope, result < 0 ? -result : forbidden, DIRECTION_INGRESS);
	return way_out4(skb, scope, CT_RELATED, 0);
}

/* Whether a packet says which service its client asked. */
static __always_inline int dsr4_find(struct __sk_buff *skb, struct dsr4_option *option)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);

	if (!eth || ip4->ihl * 4 < sizeof(*ip4) + sizeof(*option) ||
	    bpf_skb_load_bytes(skb, IPV4_HEAD_LEN, option, sizeof(*option)))
		return 0;
	return option->type == DSR_IPV4_TYPE && option->len == sizeof(*option);
}

/* Returns 0 or a drop reason. Makes packet pointers invalid. */
static __always_inline int dsr4_add(struct __sk_buff *skb, const struct lb4_reverse_nat *frontend)
{
	struct dsr4_option option = {
		.type = DSR_IPV4_TYPE,
		.len = sizeof(option),
		.port = frontend->port,
		.address = frontend->address,
	};
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	__u32 before;

	/* 15 words is the longest header there is. */
	if (!eth || ip4->ihl > 15 - sizeof(option) / 4)
		return -DROP_INVALID_PACKET;
	before = *(__u32 *)ip4;
	ip4->ihl += sizeof(option) / 4;
	ip4->tot_len = bpf_htons(bpf_ntohs(ip4->tot_len) + sizeof(option));
	ip4->check = checksum_fold((__u64)(__u16)~ip4->check + (__u32)~before + *(__u32 *)ip4 +
				   *(__u32 *)&option + option.address);
	if (dsr_make_room(skb, sizeof(option)) ||
	    bpf_skb_store_bytes(skb, IPV4_HEAD_LEN, &option, sizeof(option), 0))
		return -DROP_WRITE_ERROR;
	return 0;
}

/* Whether a client wants to be told of a packet that is too long, and how. 0: it does not. */
static __always_inline __u64 dsr4_too_big(struct __sk_buff *skb, __u32 mtu)
{
	struct ethhdr *eth = frame_head(skb, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);

	if (!eth || !(ip4->frag_off & bpf_htons(IPV4_DONT_FRAGMENT)))
		return 0;
	return ICMP_FRAG_NEEDED | (__u64)mtu << 32;
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
