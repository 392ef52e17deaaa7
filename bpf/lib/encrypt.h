/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Encryption between nodes. What has to be encrypted is marked; the host's rules lead the mark to WireGuard's
 * device. What WireGuard makes of a packet has a mark of its own, and is never encrypted again.
 */
#ifndef CILIATE_ENCRYPT_H
#define CILIATE_ENCRYPT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "ipcache.h"
#include "maps.h"
#include "mark.h"

/* NULL where nothing is encrypted. */
static __always_inline const struct encryption_value *encryption_lookup(void)
{
	__u32 zero = 0;
	const struct encryption_value *value = bpf_map_lookup_elem(&ciliate_encryption, &zero);

	return value && value->flags & ENCRYPTION_FLAG_ON ? value : NULL;
}

static __always_inline int has_key(const struct ipcache_value *value)
{
	return value && value->key;
}

/* The flag is there in strict mode alone. */
static __always_inline int is_guarded(const struct ipcache_value *value)
{
	return value && value->flags & IPCACHE_FLAG_ENDPOINTS;
}

/* To an endpoint of a node whose key is not known, where nothing leaves in plain text. */
static __always_inline int lacks_key(const struct ipcache_value *destination)
{
	return is_guarded(destination) && !has_key(destination);
}

#endif
