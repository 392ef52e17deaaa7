/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services of IPv6 for clients outside, at the driver. */
#ifndef CILIATE_XDP6_H
#define CILIATE_XDP6_H

#include "frontend6.h"
#include "snat6.h"
#include "xdp.h"

#define XDP(name) xdp6_##name
#define NODEPORT(name) nodeport6_##name
#define SNAT(name) snat6_##name
#define CT(name) ct6_##name

#define XDP6_WORDS 9

/* As struct xdp4_change. */
struct xdp6_change {
	struct ct6_packet packet;
	__u32 was[XDP6_WORDS];
	__sum16 check;
};

/* As xdp4_read; extension headers are what options are there. There is always a checksum. */
static __noinline int xdp6_read(struct ctx_frame *ctx, struct xdp6_change *change)
{
	struct ethhdr *eth = frame_head(ctx, IPV6_HEAD_LEN + XDP_UDP_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	struct ct6_packet *packet = &change->packet;
	__u32 len, at;

	if (!eth || ip6->version != 6 || ip6->hop_limit <= 1 ||
	    (ip6->nexthdr != IPPROTO_TCP && ip6->nexthdr != IPPROTO_UDP))
		return 0;
	len = bpf_ntohs(ip6->payload_len);
	if (len < xdp_l4_len_min(ip6->nexthdr) || IPV6_HEAD_LEN + len > ctx_len(ctx))
		return 0;
	ipv6_copy(change->was, ip6->saddr.in6_u.u6_addr32);
	ipv6_copy(change->was + 4, ip6->daddr.in6_u.u6_addr32);
	at = ip6->nexthdr == IPPROTO_TCP ? XDP_TCP_CHECKSUM_AT : XDP_UDP_CHECKSUM_AT;
	if (ct6_read(ctx, ip6, packet, DIRECTION_INGRESS))
		return 0;
	change->was[8] = packet->l4.ports;
	if (ctx_load_bytes(ctx, IPV6_HEAD_LEN + at, &change->check, sizeof(change->check)) ||
	    (!change->check && packet->l4.protocol == IPPROTO_UDP))
		return 0;
	return !xdp_is_unfinished(change->check, change->was, 8, len, packet->l4.protocol);
}

static __always_inline int xdp6_lookup(struct ctx_frame *ctx, const struct ct6_packet *packet,
				       struct bpf_fib_lookup *way)
{
	struct ethhdr *eth = frame_head(ctx, IPV6_HEAD_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);

	if (!eth)
		return 0;
	way->family = FAMILY_INET6;
	way->l4_protocol = ip6->nexthdr;
	way->flowinfo = *(const __be32 *)ip6 & bpf_htonl(0x0fffffff);
	way->tot_len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	ipv6_copy(way->ipv6_src, packet->key.saddr);
	ipv6_copy(way->ipv6_dst, packet->key.daddr);
	return xdp_lookup(ctx, way);
}

static __noinline void xdp6_write(struct ctx_frame *ctx, const struct xdp6_change *change,
				  const struct bpf_fib_lookup *way)
{
	int is_tcp = change->packet.l4.protocol == IPPROTO_TCP;
	struct ethhdr *eth = frame_head(ctx, IPV6_HEAD_LEN + XDP_UDP_LEN);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u32 is[XDP6_WORDS];
	__sum16 check;

	ipv6_copy(is, change->packet.key.saddr);
	ipv6_copy(is + 4, change->packet.key.daddr);
	is[8] = change->packet.l4.ports;
	check = xdp_checksum(change->check, change->was, is, XDP6_WORDS);
	if (!eth)
		return;
	xdp_address(eth, way);
	ipv6_copy(ip6->saddr.in6_u.u6_addr32, is);
	ipv6_copy(ip6->daddr.in6_u.u6_addr32, is + 4);
	ipv6_decrement_hop_limit(ip6);
	*(__u32 *)(ip6 + 1) = is[8];
	if (is_tcp)
		bpf_xdp_store_bytes(ctx, IPV6_HEAD_LEN + XDP_TCP_CHECKSUM_AT, &check, sizeof(check));
	else
		*(__sum16 *)((void *)(ip6 + 1) + XDP_UDP_CHECKSUM_AT) = check ? check : 0xffff;
}

#include "xdp_family.h"

#undef XDP
#undef NODEPORT
#undef SNAT
#undef CT

#endif
