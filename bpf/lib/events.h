/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Events: what happened to a packet, told to those who listen. Every listener has a ring and a filter.
 *
 * With no listener the cost is the lookup in events_wanted and a test of what it returned; all else is out
 * of line, in global functions: the verifier looks at those once, not at each of their callers.
 */
#ifndef CILIATE_EVENTS_H
#define CILIATE_EVENTS_H

#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "ctx.h"
#include "maps.h"

#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* Observation points and what conntrack knows there: Cilium's numbers. */
#define TRACE_TO_ENDPOINT 0
#define TRACE_TO_HOST 2
#define TRACE_TO_STACK 3
#define TRACE_TO_OVERLAY 4
#define TRACE_FROM_ENDPOINT 5
#define TRACE_FROM_PROXY 6
#define TRACE_FROM_HOST 7
#define TRACE_FROM_OVERLAY 9
#define TRACE_FROM_NETWORK 10
#define TRACE_TO_NETWORK 11
#define TRACE_FROM_CRYPTO 12
#define TRACE_TO_CRYPTO 13

#define TRACE_REASON_UNKNOWN 5
/* Beside any of the others: what is shown is encrypted. */
#define TRACE_REASON_ENCRYPTED 128

#define DEBUG_DELIVERY 2
#define DEBUG_ENCAP 3
#define DEBUG_CT_FOUND 8
#define DEBUG_CT_VERDICT 15
#define DEBUG_DECAP 16
#define DEBUG_CT_LOOKUP4_1 48
#define DEBUG_CT_LOOKUP4_2 49
#define DEBUG_CT_CREATED4 50
#define DEBUG_CT_LOOKUP6_1 51
#define DEBUG_CT_LOOKUP6_2 52
#define DEBUG_CT_CREATED6 53
#define DEBUG_IDENTITY4 58
#define DEBUG_IDENTITY6 59
#define DEBUG_INHERITED 61

#define CAPTURE_DELIVERY 4

#define DROP_EVENT_VERSION 2
#define TRACE_EVENT_VERSION 1

/* Bytes of the packet behind a record; more of it where a tunnel's header may be among them. */
#define CAPTURE_LEN 128
#define CAPTURE_LEN_OVERLAY 192

/* Who a packet is from and for, as far as a program knows by now, and which events of it anybody wants. */
struct event_scope {
	__u32 wanted;
	__u32 source_identity;
	__u32 destination_identity;
	/* Endpoint whose program this is; 0 for those of the node. */
	__u16 source;
	__u16 destination;
	/* Of the packet before it was translated; zero when it was not. */
	union address original_source;
	/* EVENT_FLAG_*, but for the family. */
	__u32 flags;
};

/* Bits: 1 << type. */
static __always_inline __u32 events_wanted(void)
{
	__u32 zero = 0;
	const struct monitor_value *monitor = bpf_map_lookup_elem(&ciliate_monitor, &zero);

	return monitor ? monitor->types : 0;
}

static __always_inline int event_passes(const struct monitor_filter *filter, __u8 type,
					const struct event_scope *scope)
{
	return filter->types & 1 << type && (!filter->from || filter->from == scope->source) &&
	       (!filter->to || filter->to == scope->destination) &&
	       (!filter->related || filter->related == scope->source ||
		filter->related == scope->destination);
}

/* Bit n: the reader in slot n wants this. Asked before anything is put together for it. */
__noinline int event_slots(const struct event_scope *scope, __u8 type)
{
	__u32 zero = 0, slot, slots = 0;
	const struct monitor_value *monitor = bpf_map_lookup_elem(&ciliate_monitor, &zero);

	if (!monitor || !scope)
		return 0;
	for (slot = 0; slot < MONITOR_SLOTS; slot++) {
		if (monitor->readers & 1 << slot && event_passes(&monitor->filters[slot], type, scope))
			slots |= 1 << slot;
	}
	return slots;
}

static __always_inline void event_lost(__u32 slot)
{
	__u64 *lost = bpf_map_lookup_elem(&ciliate_lost, &slot);

	if (lost)
		(*lost)++;
}

/*
 * Room in the ring of a slot, NULL when its reader just went, or the ring is full. What the verifier may assume
 * of the room is `len`, which has to be a constant.
 */
static __always_inline void *event_room(__u32 slot, const __u32 len)
{
	void *ring, *room;

	ring = bpf_map_lookup_elem(&ciliate_events, &slot);
	if (!ring)
		return NULL;
	room = bpf_ringbuf_reserve(ring, len, 0);
	if (!room)
		event_lost(slot);
	return room;
}

static __always_inline void event_head_fill(struct event_head *head, __u32 len)
{
	head->time_ns = bpf_ktime_get_ns();
	head->cpu = bpf_get_smp_processor_id();
	head->len = len;
}

static __always_inline struct event_common event_common_of(struct ctx_frame *ctx, __u8 type, __u8 subtype,
							   const struct event_scope *scope)
{
	return (struct event_common){
		.type = type,
		.subtype = subtype,
		.source = scope->source,
		.hash = ctx_hash(ctx),
	};
}

/*
 * Behind a record: the packet's first `len` bytes, of which there are `max` at most. Both limits are told to the
 * verifier right before the call, since older ones forget what was known of a number that lay on the stack. That
 * of Linux 6.1 learns nothing from a number that is not 0, and clang makes that of one that is at least 1; so it
 * is told of the one before.
 */
static __always_inline int event_copy(struct ctx_frame *ctx, void *to, __u32 len, const __u32 max)
{
	len--;
	asm volatile("" : "+r"(len));
	if (len >= max)
		return -1;
	return ctx_load_bytes(ctx, 0, to, len + 1);
}

/* Into the ring of a slot: a record, which is `len` bytes, and the packet's first ones. Both are constants. */
static __always_inline int event_put_slot(struct ctx_frame *ctx, const struct event_capture *record, __u32 slot,
					  const __u32 len, const __u32 capture_max)
{
	__u32 captured = record->len_captured;
	struct event_head *head;

	head = event_room(slot, sizeof(*head) + len + capture_max);
	if (!head)
		return 0;
	event_head_fill(head, len + captured);
	__builtin_memcpy(head + 1, record, len);
	if (event_copy(ctx, (void *)(head + 1) + len, captured, capture_max))
		bpf_ringbuf_discard(head, 0);
	else
		bpf_ringbuf_submit(head, 0);
	return 0;
}

static __always_inline struct event_capture event_capture_of(struct ctx_frame *ctx, __u8 type, __u8 subtype,
							     __u16 version, const struct event_scope *scope,
							     const __u32 capture_max)
{
	return (struct event_capture){
		.common = event_common_of(ctx, type, subtype, scope),
		.len_original = ctx_len(ctx),
		.len_captured = ctx_len(ctx) < capture_max ? ctx_len(ctx) : capture_max,
		.version = version,
	};
}

static __always_inline __u8 event_flags(struct ctx_frame *ctx, const struct event_scope *scope)
{
	return scope->flags | (ctx_protocol(ctx) == bpf_htons(ETH_P_IPV6) ? EVENT_FLAG_IPV6 : 0);
}

/* Where the IP header begins. */
static __always_inline __u32 event_ip_at(const struct event_scope *scope)
{
	return scope->flags & EVENT_FLAG_L3_DEVICE ? 0 : ETH_HLEN;
}

/* The packet's source address; zero when it has none. */
static __always_inline void event_source_address(struct ctx_frame *ctx, const struct event_scope *scope,
						 union address *address)
{
	if (ctx_protocol(ctx) == bpf_htons(ETH_P_IPV6))
		ctx_load_bytes(ctx, event_ip_at(scope) + 8, address->v6, 16);
	else if (ctx_protocol(ctx) == bpf_htons(ETH_P_IP))
		ctx_load_bytes(ctx, event_ip_at(scope) + 12, &address->v4, 4);
}

static __always_inline struct trace_event trace_event_of(struct ctx_frame *ctx, const struct event_scope *scope,
							 __u8 point, __u8 reason, __u32 ifindex,
							 const __u32 capture_max)
{
	return (struct trace_event){
		.head = event_capture_of(ctx, EVENT_TRACE, point, TRACE_EVENT_VERSION, scope, capture_max),
		.source_identity = scope->source_identity,
		.destination_identity = scope->destination_identity,
		.destination_id = scope->destination,
		.reason = reason,
		.flags = event_flags(ctx, scope),
		.ifindex = ifindex,
	};
}

__noinline int event_put_trace_slot(struct ctx_frame *ctx, const struct trace_event *record, __u32 slot)
{
	if (!record)
		return 0;
	return event_put_slot(ctx, &record->head, slot, sizeof(*record), CAPTURE_LEN);
}

__noinline int event_put_trace(struct ctx_frame *ctx, const struct event_scope *scope, __u8 point, __u8 reason,
			       __u32 ifindex)
{
	struct trace_event record;
	__u32 slot, slots;

	if (!scope)
		return 0;
	slots = event_slots(scope, EVENT_TRACE);
	if (!slots)
		return 0;
	record = trace_event_of(ctx, scope, point, reason, ifindex, CAPTURE_LEN);
	record.original_source = scope->original_source;
	if (point == TRACE_TO_ENDPOINT && !(record.original_source.v6[0] | record.original_source.v6[3]))
		event_source_address(ctx, scope, &record.original_source);
	for (slot = 0; slot < MONITOR_SLOTS; slot++) {
		if (slots & 1 << slot)
			event_put_trace_slot(ctx, &record, slot);
	}
	return 0;
}

__noinline int event_put_trace_overlay_slot(struct ctx_frame *ctx, const struct trace_event *record, __u32 slot)
{
	if (!record)
		return 0;
	return event_put_slot(ctx, &record->head, slot, sizeof(*record), CAPTURE_LEN_OVERLAY);
}

__noinline int event_put_trace_overlay(struct ctx_frame *ctx, const struct event_scope *scope, __u8 point,
				       __u8 reason, __u32 ifindex)
{
	struct trace_event record;
	__u32 slot, slots;

	if (!scope)
		return 0;
	slots = event_slots(scope, EVENT_TRACE);
	if (!slots)
		return 0;
	record = trace_event_of(ctx, scope, point, reason, ifindex, CAPTURE_LEN_OVERLAY);
	for (slot = 0; slot < MONITOR_SLOTS; slot++) {
		if (slots & 1 << slot)
			event_put_trace_overlay_slot(ctx, &record, slot);
	}
	return 0;
}

__noinline int event_put_drop_slot(struct ctx_frame *ctx, const struct drop_event *record, __u32 slot)
{
	if (!record)
		return 0;
	return event_put_slot(ctx, &record->head, slot, sizeof(*record), CAPTURE_LEN);
}

__noinline int event_put_drop(struct ctx_frame *ctx, const struct event_scope *scope, __u8 reason, __u16 line,
			      __u8 file)
{
	struct drop_event record;
	__u32 slot, slots;

	if (!scope)
		return 0;
	slots = event_slots(scope, EVENT_DROP);
	if (!slots)
		return 0;
	record = (struct drop_event){
		.head = event_capture_of(ctx, EVENT_DROP, reason, DROP_EVENT_VERSION, scope, CAPTURE_LEN),
		.source_identity = scope->source_identity,
		.destination_identity = scope->destination_identity,
		.destination_id = scope->destination,
		.line = line,
		.file = file,
		.ifindex = ctx_ifindex(ctx),
		.flags = event_flags(ctx, scope),
	};
	for (slot = 0; slot < MONITOR_SLOTS; slot++) {
		if (slots & 1 << slot)
			event_put_drop_slot(ctx, &record, slot);
	}
	return 0;
}

__noinline int event_put_capture_slot(struct ctx_frame *ctx, const struct capture_event *record, __u32 slot)
{
	if (!record)
		return 0;
	return event_put_slot(ctx, &record->head, slot, sizeof(*record), CAPTURE_LEN);
}

__noinline int event_put_capture(struct ctx_frame *ctx, const struct event_scope *scope, __u8 subtype, __u32 arg1)
{
	struct capture_event record;
	__u32 slot, slots;

	if (!scope)
		return 0;
	slots = event_slots(scope, EVENT_CAPTURE);
	if (!slots)
		return 0;
	record = (struct capture_event){
		.head = event_capture_of(ctx, EVENT_CAPTURE, subtype, 0, scope, CAPTURE_LEN),
		.arg1 = arg1,
	};
	for (slot = 0; slot < MONITOR_SLOTS; slot++) {
		if (slots & 1 << slot)
			event_put_capture_slot(ctx, &record, slot);
	}
	return 0;
}

__noinline int event_put_debug_slot(const struct debug_event *record, __u32 slot)
{
	struct event_head *head;

	if (!record)
		return 0;
	head = event_room(slot, sizeof(*head) + sizeof(*record));
	if (!head)
		return 0;
	event_head_fill(head, sizeof(*record));
	__builtin_memcpy(head + 1, record, sizeof(*record));
	bpf_ringbuf_submit(head, 0);
	return 0;
}

/* `args`: the first two, the second one in the upper half. */
__noinline int event_put_debug(struct ctx_frame *ctx, const struct event_scope *scope, __u8 subtype, __u64 args,
			       __u32 arg3)
{
	struct debug_event record;
	__u32 slot, slots;

	if (!scope)
		return 0;
	slots = event_slots(scope, EVENT_DEBUG);
	if (!slots)
		return 0;
	record = (struct debug_event){
		.common = event_common_of(ctx, EVENT_DEBUG, subtype, scope),
		.arg1 = args,
		.arg2 = args >> 32,
		.arg3 = arg3,
	};
	for (slot = 0; slot < MONITOR_SLOTS; slot++) {
		if (slots & 1 << slot)
			event_put_debug_slot(&record, slot);
	}
	return 0;
}

#define event_is_wanted(scope, type) unlikely((scope)->wanted & 1 << (type))

#define trace(ctx, scope, point, reason, ifindex)                           \
	do {                                                                \
		if (event_is_wanted(scope, EVENT_TRACE))                    \
			event_put_trace(ctx, scope, point, reason, ifindex);    \
	} while (0)

#define trace_overlay(ctx, scope, point, reason, ifindex)                        \
	do {                                                                     \
		if (event_is_wanted(scope, EVENT_TRACE))                         \
			event_put_trace_overlay(ctx, scope, point, reason, ifindex); \
	} while (0)

#define debug(ctx, scope, subtype, arg1, arg2, arg3)                                                  \
	do {                                                                                          \
		if (event_is_wanted(scope, EVENT_DEBUG))                                              \
			event_put_debug(ctx, scope, subtype, (__u32)(arg1) | (__u64)(arg2) << 32, arg3); \
	} while (0)

#define capture(ctx, scope, subtype, arg1)                       \
	do {                                                     \
		if (event_is_wanted(scope, EVENT_CAPTURE))       \
			event_put_capture(ctx, scope, subtype, arg1); \
	} while (0)

#endif
