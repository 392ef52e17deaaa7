/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services of IPv4 in the socket. */
#ifndef CILIATE_SOCK4_H
#define CILIATE_SOCK4_H

#include "lb_affinity.h"
#include "sock.h"

#define SK(name) sock4_##name
#define LB(name) lb4_##name
#define SK_ADDRESS_WORDS 1
#define SK_SERVICES cilium_lb4_services_v2
#define SK_BACKENDS cilium_lb4_backends_v3
#define SK_AFFINITY cilium_lb4_affinity
#define SK_REVERSE cilium_lb4_reverse_sk

static __always_inline void sock4_copy(__be32 *to, const __be32 *from)
{
	*to = *from;
}

static __always_inline int sock4_is_loopback(const __be32 *address)
{
	return (*address & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

static __always_inline __u32 sock4_identity(const __be32 *address)
{
	return ipcache_identity(ipcache_lookup4(*address));
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
