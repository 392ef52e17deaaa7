/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs of WireGuard's device, cilium_wg0. It has no Ethernet: packets begin with their IP header.
 *
 * cil_from_wireguard  ingress: what other nodes sent, decrypted. The host's stack takes it from here.
 * cil_to_wireguard    egress: what this node sends, before it is encrypted.
 */
#define FILE_ID FILE_BPF_WIREGUARD

#include "lib/eth.h"
#include "lib/events.h"
#include "lib/ipcache.h"
#include "lib/mark.h"
#include "lib/metrics.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define IPV4_SOURCE_AT 12
#define IPV4_DESTINATION_AT 16
#define IPV6_SOURCE_AT 8
#define IPV6_DESTINATION_AT 24

/* The identity behind an address of the packet, by where that is in each family's header. */
static __always_inline __u32 identity_at(struct __sk_buff *skb, __u32 at4, __u32 at6)
{
	union address address = {};

	if (skb->protocol == bpf_htons(ETH_P_IP) && !bpf_skb_load_bytes(skb, at4, &address.v4, sizeof(address.v4)))
		return ipcache_identity(ipcache_lookup4(address.v4));
	if (skb->protocol == bpf_htons(ETH_P_IPV6) && !bpf_skb_load_bytes(skb, at6, address.v6, sizeof(address.v6)))
		return ipcache_identity(ipcache_lookup6(address.v6));
	return IDENTITY_UNKNOWN;
}

/* Out of line: for its stack, and because nobody may listen. */
static __noinline int tell(struct __sk_buff *skb, struct event_scope *scope, __u8 point)
{
	if (scope->source_identity == IDENTITY_UNKNOWN)
		scope->source_identity = identity_at(skb, IPV4_SOURCE_AT, IPV6_SOURCE_AT);
	scope->destination_identity = identity_at(skb, IPV4_DESTINATION_AT, IPV6_DESTINATION_AT);
	trace(skb, scope, point, TRACE_REASON_UNKNOWN, skb->ifindex);
	return 0;
}

SEC("classifier")
int cil_from_wireguard(struct __sk_buff *skb)
{
	struct event_scope scope = { .wanted = events_wanted(), .flags = EVENT_FLAG_L3_DEVICE };

	count_forward(skb, REASON_DECRYPTING, DIRECTION_INGRESS);
	if (unlikely(scope.wanted))
		tell(skb, &scope, TRACE_FROM_CRYPTO);
	/* Not OK: programs and filters of others that are attached behind this one shall run as well. */
	return TC_ACT_UNSPEC;
}

SEC("classifier")
int cil_to_wireguard(struct __sk_buff *skb)
{
	struct event_scope scope = { .wanted = events_wanted(), .flags = EVENT_FLAG_L3_DEVICE };

	count_forward(skb, REASON_ENCRYPTING, DIRECTION_EGRESS);
	if (unlikely(scope.wanted)) {
		scope.source_identity = mark_identity(skb->mark);
		tell(skb, &scope, TRACE_TO_CRYPTO);
	}
	return TC_ACT_UNSPEC;
}
