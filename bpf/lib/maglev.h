/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Backends by consistent hashing: every node that is asked for a flow takes the same one. */
#ifndef CILIATE_MAGLEV_H
#define CILIATE_MAGLEV_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "jhash.h"
#include "maps.h"

/* Of all nodes alike. */
#define MAGLEV_SEED4 0x6d61676c
#define MAGLEV_SEED6 0x65763600

/* Entries of a table. Read-only once loaded; user space may set another number before. */
const volatile __u64 maglev_table_size = LB_MAGLEV_TABLE_SIZE;

/* 0 where the service has no table. */
static __always_inline __u32 maglev_backend(__u16 rev_nat, __u32 hash)
{
	const __u64 size = maglev_table_size;
	const struct maglev_value *table;
	__u64 at = hash % size;
	__u32 index = rev_nat;
	const __u32 *number;

	number = bpf_map_lookup_elem(&ciliate_maglev_index, &index);
	if (!number || !*number)
		return 0;
	index = *number;
	table = bpf_map_lookup_elem(&ciliate_maglev, &index);
	if (!table)
		return 0;
	/* Holds. To the verifier a remainder is any number; clang is kept from comparing a copy of it. */
	asm volatile("" : "+r"(at));
	if (at >= size)
		return 0;
	asm volatile("" : "+r"(at));
	return table->backend_ids[at];
}

#endif
