/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Frontends of IPv4 for clients outside. */
#ifndef CILIATE_FRONTEND4_H
#define CILIATE_FRONTEND4_H

#include "frontend.h"
#include "lb4.h"

#define NODEPORT(name) nodeport4_##name
#define LB(name) lb4_##name
#define CT(name) ct4_##name
#define LB_SERVICES cilium_lb4_services_v2
#define LB_SOURCE_RANGE cilium_lb4_source_range

static __always_inline __u32 nodeport4_hash(const struct ct4_packet *packet, int by_address)
{
	__u32 ports = by_address ? packet->l4.ports & 0xffff0000 : packet->l4.ports;

	return jhash3(packet->key.saddr, ports, packet->key.protocol, MAGLEV_SEED4);
}

static __always_inline const struct endpoint_value *nodeport4_endpoint(const struct ct4_packet *packet)
{
	return endpoint_lookup4(packet->key.daddr);
}

static __always_inline const struct ipcache_value *nodeport4_cached(const struct ct4_packet *packet)
{
	return ipcache_lookup4(packet->key.daddr);
}

static __always_inline __u32 nodeport4_identity(const struct ct4_packet *packet)
{
	return identity_or_world(ipcache_identity(ipcache_lookup4(packet->key.saddr)));
}

#include "frontend_family.h"

#undef NODEPORT
#undef LB
#undef CT
#undef LB_SERVICES
#undef LB_SOURCE_RANGE

#endif
