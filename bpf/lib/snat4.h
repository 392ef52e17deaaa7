/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows of IPv4 from this node's address. */
#ifndef CILIATE_SNAT4_H
#define CILIATE_SNAT4_H

#include "lb4.h"
#include "snat.h"

#define SNAT(name) snat4_##name
#define LB(name) lb4_##name
#define CT(name) ct4_##name
#define NAT(name) nat4_##name
#define SNAT_MAP cilium_snat_v4_external
#define LB_REVERSE_NAT cilium_lb4_reverse_nat
#ifndef CTX_IS_XDP
#define SNAT_WAY_OUT way_out4
#endif
#define TUPLE_LEN sizeof(((struct bpf_sock_tuple *)NULL)->ipv4)

/* NULL when the node has none of the family. */
static __always_inline const __be32 *snat4_address(const struct node_value *node,
						   const struct underlay_value *underlay, __u32 how)
{
	const __be32 *address = how & SNAT_BY_TUNNEL ? &node->router_ipv4 : &underlay->ipv4;

	return *address ? address : NULL;
}

/* As the socket sees it that a packet with that key would go to. */
static __always_inline void snat4_tuple(struct bpf_sock_tuple *tuple, const struct ct4_key *key)
{
	tuple->ipv4.saddr = key->saddr;
	tuple->ipv4.daddr = key->daddr;
	tuple->ipv4.sport = key->sport;
	tuple->ipv4.dport = key->dport;
}

#include "snat_family.h"

#undef SNAT
#undef LB
#undef CT
#undef NAT
#undef SNAT_MAP
#undef LB_REVERSE_NAT
#undef SNAT_WAY_OUT
#undef TUPLE_LEN

#endif
