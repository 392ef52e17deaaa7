/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The identity behind an address, by longest prefix. */
#ifndef CILIATE_IPCACHE_H
#define CILIATE_IPCACHE_H

#include "ipv6.h"
#include "maps.h"

/* What the cache does not know is world. */
static __always_inline __u32 ipcache_lookup(const struct ipcache_key *key)
{
	const struct ipcache_value *value = bpf_map_lookup_elem(&cilium_ipcache_v2, key);

	return value ? value->identity : IDENTITY_WORLD;
}

static __always_inline __u32 ipcache_identity4(__be32 address)
{
	struct ipcache_key key = { .prefix_len = IPCACHE_STATIC_BITS + 32, .family = FAMILY_IPV4 };

	key.address.v4 = address;
	return ipcache_lookup(&key);
}

static __always_inline __u32 ipcache_identity6(const __be32 *address)
{
	struct ipcache_key key = { .prefix_len = IPCACHE_STATIC_BITS + 128, .family = FAMILY_IPV6 };

	ipv6_copy(key.address.v6, address);
	return ipcache_lookup(&key);
}

/* Both forms: 2 on nodes with one family, 9 and 10 on nodes with two. */
static __always_inline int identity_is_world(__u32 identity)
{
	return identity == IDENTITY_WORLD || identity == IDENTITY_WORLD_IPV4 ||
	       identity == IDENTITY_WORLD_IPV6;
}

#endif
