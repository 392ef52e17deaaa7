/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Past the host's stack: where the node is told so, packets between its endpoints and those of peers go from
 * device to device. The kernel's routes and neighbours decide where to; what they can't decide is the stack's,
 * and so is all that is not between endpoints, since masquerade has to see both directions of it.
 */
#ifndef CILIATE_HOST_ROUTING_H
#define CILIATE_HOST_ROUTING_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include "eth.h"
#include "inet.h"
#include "ipcache.h"

#define TCP_HEAD_LEN 20

static __always_inline int routes_past_host(const struct node_value *node)
{
	return node && node->flags & NODE_FLAG_HOST_ROUTING;
}

/* Whether an address is a peer's endpoint that no tunnel is needed for. */
static __always_inline int is_direct(const struct ipcache_value *value)
{
	return value && value->flags & IPCACHE_FLAG_SKIP_TUNNEL;
}

/*
 * By the kernel's route to the destination; neither stack nor netfilter sees the packet any more. Returns the
 * verdict, or TC_ACT_UNSPEC: no route, or none to a device, or the packet is too long for that.
 */
static __always_inline int route_by(struct __sk_buff *skb, struct bpf_fib_lookup *route, const __u32 head_len)
{
	struct bpf_redir_neigh hop = {};
	long result;

	route->ifindex = skb->ifindex;
	/* Of what is still to be cut up, the longest piece; options in TCP headers left out. */
	route->tot_len = skb->gso_size ? head_len + skb->gso_size : skb->len - ETH_HLEN;
	result = bpf_fib_lookup(skb, route, sizeof(*route), 0);
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return TC_ACT_UNSPEC;
	/* The lookup put the next hop where the destination was. Its address is the kernel's to find, and to keep. */
	hop.nh_family = route->family;
	ipv6_copy(hop.ipv6_nh, route->ipv6_dst);
	return bpf_redirect_neigh(route->ifindex, &hop, sizeof(hop), 0);
}

static __noinline int route4(struct __sk_buff *skb, const struct iphdr *ip4, __u32 *ifindex)
{
	struct bpf_fib_lookup route = {
		.family = FAMILY_INET,
		.l4_protocol = ip4->protocol,
		.tos = ip4->tos,
		.ipv4_src = ip4->saddr,
		.ipv4_dst = ip4->daddr,
	};
	int result;

	result = route_by(skb, &route, sizeof(struct iphdr) + TCP_HEAD_LEN);
	*ifindex = route.ifindex;
	return result;
}

static __noinline int route6(struct __sk_buff *skb, const struct ipv6hdr *ip6, __u32 *ifindex)
{
	struct bpf_fib_lookup route = {
		.family = FAMILY_INET6,
		.l4_protocol = ip6->nexthdr,
		.flowinfo = *(const __be32 *)ip6 & bpf_htonl(0x0fffffff),
	};
	int result;

	ipv6_copy(route.ipv6_src, ip6->saddr.in6_u.u6_addr32);
	ipv6_copy(route.ipv6_dst, ip6->daddr.in6_u.u6_addr32);
	result = route_by(skb, &route, sizeof(struct ipv6hdr) + TCP_HEAD_LEN);
	*ifindex = route.ifindex;
	return result;
}

#endif
