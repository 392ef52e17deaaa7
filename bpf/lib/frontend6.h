/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Frontends of IPv6 for clients outside. */
#ifndef CILIATE_FRONTEND6_H
#define CILIATE_FRONTEND6_H

#include "frontend.h"
#include "lb6.h"

#define NODEPORT(name) nodeport6_##name
#define LB(name) lb6_##name
#define CT(name) ct6_##name
#define LB_SERVICES cilium_lb6_services_v2
#define LB_SOURCE_RANGE cilium_lb6_source_range

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

#include "frontend_family.h"

#undef NODEPORT
#undef LB
#undef CT
#undef LB_SERVICES
#undef LB_SOURCE_RANGE

#endif
