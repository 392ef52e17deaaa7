/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Clients that are kept at a backend. */
#ifndef CILIATE_LB_AFFINITY_H
#define CILIATE_LB_AFFINITY_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

/* Whether a client may be kept there: it was in time, and the backend is still one of the service's. */
static __always_inline int lb_affinity_holds(const struct lb_affinity_value *value, const struct lb_value *frontend,
					     __u32 now)
{
	struct lb_affinity_match match = { .rev_nat = frontend->rev_nat };

	if (value->last_used + (frontend->backend_id & LB_AFFINITY_MASK) <= now)
		return 0;
	match.backend_id = value->backend_id;
	return bpf_map_lookup_elem(&cilium_lb_affinity_match, &match) != NULL;
}

#endif
