/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the maps know: the endpoint behind a device, the endpoint that has an address, this node. */
#ifndef CILIATE_ENDPOINT_H
#define CILIATE_ENDPOINT_H

#include "ipv6.h"
#include "maps.h"

static __always_inline const struct device_value *device_lookup(__u32 ifindex)
{
	return bpf_map_lookup_elem(&ciliate_device, &ifindex);
}

static __always_inline const struct node_value *node_lookup(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ciliate_node, &zero);
}

static __always_inline const struct endpoint_value *endpoint_lookup4(__be32 address)
{
	struct endpoint_key key = { .address.v4 = address, .family = FAMILY_IPV4 };

	return bpf_map_lookup_elem(&cilium_lxc, &key);
}

static __always_inline const struct endpoint_value *endpoint_lookup6(const __be32 *address)
{
	struct endpoint_key key = { .family = FAMILY_IPV6 };

	ipv6_copy(key.address.v6, address);
	return bpf_map_lookup_elem(&cilium_lxc, &key);
}

/* The address is the node's own: its stack takes the packet. */
static __always_inline int endpoint_is_host(const struct endpoint_value *endpoint)
{
	return endpoint->flags & (ENDPOINT_FLAG_HOST | ENDPOINT_FLAG_AT_HOST_NETNS);
}

#endif
