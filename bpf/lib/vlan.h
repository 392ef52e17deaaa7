/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * VLAN tags. Before any program sees a frame the kernel takes the outermost tag off and keeps it beside the
 * packet. The Ethernet header then has the type of what was behind the tag: only these fields tell.
 */
#ifndef CILIATE_VLAN_H
#define CILIATE_VLAN_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "events.h"

#define VLAN_ID_MASK 0x0fff

/* A tag that has a priority and no VLAN is taken off. Out of line: rare. */
static __noinline int vlan_remains(struct __sk_buff *skb)
{
	if (skb->vlan_tci & VLAN_ID_MASK || bpf_skb_vlan_pop(skb))
		return 1;
	/* There was another one inside. */
	return !!skb->vlan_present;
}

/* Whether the frame is of a VLAN. Makes all earlier packet pointers invalid. */
static __always_inline int vlan_is_tagged(struct __sk_buff *skb)
{
	return unlikely(skb->vlan_present) && vlan_remains(skb);
}

#endif
