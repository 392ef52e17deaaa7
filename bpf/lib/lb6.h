/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services of IPv6. */
#ifndef CILIATE_LB6_H
#define CILIATE_LB6_H

#include "lb.h"
#include "nat6.h"

#define LB(name) lb6_##name
#define CT(name) ct6_##name
#define NAT(name) nat6_##name
#define CT_MAP_TCP cilium_ct6_global
#define CT_MAP_ANY cilium_ct_any6_global
#define LB_SERVICES cilium_lb6_services_v2
#define LB_BACKENDS cilium_lb6_backends_v3
#define LB_REVERSE_NAT cilium_lb6_reverse_nat
#define LB_AFFINITY cilium_lb6_affinity
/*
 * 64:ff9b:1::169.254.42.1, that of IPv4 in the prefix that is kept for local translation (RFC 8215). Cilium has
 * none. A link-local one would need a neighbour, and a scope in every socket.
 */
#define LB_LOOPBACK { bpf_htonl(0x0064ff9b), bpf_htonl(0x00010000), 0, bpf_htonl(0xa9fe2a01) }

static __always_inline void lb6_copy(__be32 *to, const __be32 *from)
{
	ipv6_copy(to, from);
}

static __always_inline int lb6_equal(const __be32 *a, const __be32 *b)
{
	return ipv6_equal(a, b);
}

#include "lb_family.h"

/* Whom an endpoint answers that is its own backend. */
static __always_inline int lb6_is_loopback(const __be32 *address)
{
	const __be32 loopback[] = LB_LOOPBACK;

	return lb6_equal(address, loopback);
}

#undef LB
#undef CT
#undef NAT
#undef CT_MAP_TCP
#undef CT_MAP_ANY
#undef LB_SERVICES
#undef LB_BACKENDS
#undef LB_REVERSE_NAT
#undef LB_AFFINITY
#undef LB_LOOPBACK

#endif
