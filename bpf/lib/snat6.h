/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows of IPv6 from this node's address. */
#ifndef CILIATE_SNAT6_H
#define CILIATE_SNAT6_H

#include "lb6.h"
#include "snat.h"

#define SNAT(name) snat6_##name
#define LB(name) lb6_##name
#define CT(name) ct6_##name
#define NAT(name) nat6_##name
#define SNAT_MAP cilium_snat_v6_external
#define LB_REVERSE_NAT cilium_lb6_reverse_nat
#ifndef CTX_IS_XDP
#define SNAT_WAY_OUT way_out6
#endif
#define TUPLE_LEN sizeof(((struct bpf_sock_tuple *)NULL)->ipv6)

/* NULL when the node has none of the family. */
static __always_inline const __be32 *snat6_address(const struct node_value *node,
						   const struct underlay_value *underlay, __u32 how)
{
	const __be32 *address = how & SNAT_BY_TUNNEL ? node->router_ipv6 : underlay->ipv6;

	return ipv6_is_unspecified(address) ? NULL : address;
}

/* As the socket sees it that a packet with that key would go to. */
static __always_inline void snat6_tuple(struct bpf_sock_tuple *tuple, const struct ct6_key *key)
{
	ipv6_copy(tuple->ipv6.saddr, key->saddr);
	ipv6_copy(tuple->ipv6.daddr, key->daddr);
	tuple->ipv6.sport = key->sport;
	tuple->ipv6.dport = key->dport;
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
