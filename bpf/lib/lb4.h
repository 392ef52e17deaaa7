/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services of IPv4. */
#ifndef CILIATE_LB4_H
#define CILIATE_LB4_H

#include "lb.h"
#include "nat4.h"

#define LB(name) lb4_##name
#define CT(name) ct4_##name
#define NAT(name) nat4_##name
#define CT_MAP_TCP cilium_ct4_global
#define CT_MAP_ANY cilium_ct_any4_global
#define LB_SERVICES cilium_lb4_services_v2
#define LB_BACKENDS cilium_lb4_backends_v3
#define LB_REVERSE_NAT cilium_lb4_reverse_nat
#define LB_AFFINITY cilium_lb4_affinity
/* 169.254.42.1 */
#define LB_LOOPBACK { bpf_htonl(0xa9fe2a01) }

static __always_inline void lb4_copy(__be32 *to, const __be32 *from)
{
	*to = *from;
}

static __always_inline int lb4_equal(const __be32 *a, const __be32 *b)
{
	return *a == *b;
}

#include "lb_family.h"

/* Whom an endpoint answers that is its own backend. */
static __always_inline int lb4_is_loopback(__be32 address)
{
	const __be32 loopback[] = LB_LOOPBACK;

	return lb4_equal(&address, loopback);
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
