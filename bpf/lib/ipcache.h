/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The identity behind an address, by longest prefix. */
#ifndef CILIATE_IPCACHE_H
#define CILIATE_IPCACHE_H

#include "ipv6_address.h"
#include "maps.h"

/* NULL when nothing covers the address. */
static __always_inline const struct ipcache_value *ipcache_lookup4(__be32 address)
{
	struct ipcache_key key = { .prefix_len = IPCACHE_STATIC_BITS + 32, .family = FAMILY_IPV4 };

	key.address.v4 = address;
	return bpf_map_lookup_elem(&cilium_ipcache_v2, &key);
}

static __always_inline const struct ipcache_value *ipcache_lookup6(const __be32 *address)
{
	struct ipcache_key key = { .prefix_len = IPCACHE_STATIC_BITS + 128, .family = FAMILY_IPV6 };

	ipv6_copy(key.address.v6, address);
	return bpf_map_lookup_elem(&cilium_ipcache_v2, &key);
}

/* What the cache does not know is world. */
static __always_inline __u32 ipcache_identity(const struct ipcache_value *value)
{
	return value ? value->identity : IDENTITY_WORLD;
}

/* An address in the ipcache that says host is a guess: traffic rewritten to the host's address has it. */
static __always_inline __u32 identity_or_world(__u32 identity)
{
	return identity == IDENTITY_HOST ? IDENTITY_WORLD : identity;
}

/* Both forms: 2 on nodes with one family, 9 and 10 on nodes with two. */
static __always_inline int identity_is_world(__u32 identity)
{
	return identity == IDENTITY_WORLD || identity == IDENTITY_WORLD_IPV4 ||
	       identity == IDENTITY_WORLD_IPV6;
}

/* Other nodes; 7 is one that has the API server. */
static __always_inline int identity_is_remote_node(__u32 identity)
{
	return identity == IDENTITY_REMOTE_NODE || identity == IDENTITY_KUBE_APISERVER;
}

#endif
