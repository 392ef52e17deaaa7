/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services of IPv4 for clients outside, at the driver. */
#ifndef CILIATE_XDP4_H
#define CILIATE_XDP4_H

#include "frontend4.h"
#include "snat4.h"
#include "xdp.h"

#define XDP(name) xdp4_##name
#define NODEPORT(name) nodeport4_##name
#define SNAT(name) snat4_##name
#define CT(name) ct4_##name

#define XDP4_WORDS 3

/* What a packet is to be, and what it is: addresses and ports as they stand in it. */
struct xdp4_change {
	struct ct4_packet packet;
	__u32 was[XDP4_WORDS];
	__sum16 check;
	/* As long as it says. */
	__u16 len;
};

/*
 * The headers of a packet that can be handled here: whole, without options, with a checksum or without need for one,
 * and with a hop left. The others are tc's.
 */
static __noinline int xdp4_read(struct ctx_frame *ctx, struct xdp4_change *change)
{
	struct ethhdr *eth = frame_head(ctx, IPV4_HEAD_LEN + XDP_UDP_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ct4_packet *packet = &change->packet;
	__u32 l4_len, at;

	if (!eth || ip4->version != 4 || ip4->ihl != 5 || ip4->ttl <= 1 || ipv4_is_fragment(ip4) ||
	    (ip4->protocol != IPPROTO_TCP && ip4->protocol != IPPROTO_UDP))
		return 0;
	change->len = bpf_ntohs(ip4->tot_len);
	l4_len = change->len - sizeof(*ip4);
	if (change->len < sizeof(*ip4) + xdp_l4_len_min(ip4->protocol) || ETH_HLEN + change->len > ctx_len(ctx))
		return 0;
	change->was[0] = ip4->saddr;
	change->was[1] = ip4->daddr;
	at = ip4->protocol == IPPROTO_TCP ? XDP_TCP_CHECKSUM_AT : XDP_UDP_CHECKSUM_AT;
	if (ct4_read(ctx, ip4, packet, DIRECTION_INGRESS))
		return 0;
	change->was[2] = packet->l4.ports;
	if (ctx_load_bytes(ctx, IPV4_HEAD_LEN + at, &change->check, sizeof(change->check)))
		return 0;
	/* UDP may do without. */
	if (!change->check && packet->l4.protocol == IPPROTO_UDP)
		return 1;
	return !xdp_is_unfinished(change->check, change->was, 2, l4_len, packet->l4.protocol);
}

static __always_inline int xdp4_lookup(struct ctx_frame *ctx, const struct ct4_packet *packet,
				       struct bpf_fib_lookup *way)
{
	struct ethhdr *eth = frame_head(ctx, IPV4_HEAD_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);

	if (!eth)
		return 0;
	way->family = FAMILY_INET;
	way->l4_protocol = ip4->protocol;
	way->tos = ip4->tos;
	way->tot_len = bpf_ntohs(ip4->tot_len);
	way->ipv4_src = packet->key.saddr;
	way->ipv4_dst = packet->key.daddr;
	return xdp_lookup(ctx, way);
}

static __noinline void xdp4_write(struct ctx_frame *ctx, const struct xdp4_change *change,
				  const struct bpf_fib_lookup *way)
{
	const __u32 is[XDP4_WORDS] = { change->packet.key.saddr, change->packet.key.daddr, change->packet.l4.ports };
	int is_tcp = change->packet.l4.protocol == IPPROTO_TCP;
	struct ethhdr *eth = frame_head(ctx, IPV4_HEAD_LEN + XDP_UDP_LEN);
	struct iphdr *ip4 = (void *)(eth + 1);
	__sum16 check = xdp_checksum(change->check, change->was, is, XDP4_WORDS);

	if (!eth)
		return;
	xdp_address(eth, way);
	ip4->check = xdp_checksum(ip4->check, change->was, is, 2);
	ip4->saddr = is[0];
	ip4->daddr = is[1];
	ipv4_decrement_ttl(ip4);
	*(__u32 *)(ip4 + 1) = is[2];
	if (is_tcp)
		bpf_xdp_store_bytes(ctx, IPV4_HEAD_LEN + XDP_TCP_CHECKSUM_AT, &check, sizeof(check));
	else if (change->check)
		*(__sum16 *)((void *)(ip4 + 1) + XDP_UDP_CHECKSUM_AT) = check ? check : 0xffff;
}

#include "xdp_family.h"

#undef XDP
#undef NODEPORT
#undef SNAT
#undef CT

#endif
