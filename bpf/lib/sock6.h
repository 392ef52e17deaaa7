/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services of IPv6 in the socket. */
#ifndef CILIATE_SOCK6_H
#define CILIATE_SOCK6_H

#include "ipv6_address.h"
#include "lb_affinity.h"
#include "sock.h"

#define SK(name) sock6_##name
#define LB(name) lb6_##name
#define SK_ADDRESS_WORDS 4
#define SK_SERVICES cilium_lb6_services_v2
#define SK_BACKENDS cilium_lb6_backends_v3
#define SK_AFFINITY cilium_lb6_affinity
#define SK_REVERSE cilium_lb6_reverse_sk

static __always_inline void sock6_copy(__be32 *to, const __be32 *from)
{
	ipv6_copy(to, from);
}

static __always_inline int sock6_is_loopback(const __be32 *address)
{
	return !(address[0] | address[1] | address[2]) && address[3] == bpf_htonl(1);
}

static __always_inline __u32 sock6_identity(const __be32 *address)
{
	return ipcache_identity(ipcache_lookup6(address));
}

/* ::ffff:a.b.c.d, IPv4 by a socket of IPv6. */
static __always_inline int sock6_is_mapped(const __be32 *address)
{
	return !(address[0] | address[1]) && address[2] == bpf_htonl(0xffff);
}

#include "sock_family.h"

#undef SK
#undef LB
#undef SK_ADDRESS_WORDS
#undef SK_SERVICES
#undef SK_BACKENDS
#undef SK_AFFINITY
#undef SK_REVERSE

#endif
