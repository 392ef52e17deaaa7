/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counting: every drop, and every forward at the points where Cilium counts one. A counter is named by
 * reason, direction and the place in the source. Drops are events as well. Only the programs drop
 * (FILE_ID is theirs); the headers return a verdict, or a drop reason as a negative number.
 */
#ifndef CILIATE_METRICS_H
#define CILIATE_METRICS_H

#include <linux/pkt_cls.h>

#include "events.h"
#include "maps.h"

/* Cilium's numbers, also those of its user-space tables. 0 and 3 are forwards, 128 and up are drops. */
#define REASON_FORWARDED 0
#define REASON_INTERFACE 3
#define REASON_FRAGMENT 9
#define REASON_FRAGMENT_UPDATE 10
#define REASON_DECRYPTING 12
#define REASON_ENCRYPTING 13
#define DROP_INVALID_SOURCE_IP 132
#define DROP_INVALID_PACKET 134
#define DROP_CT_INVALID_HEADER 135
#define DROP_FRAG_NEEDED 136
#define DROP_CT_UNKNOWN_PROTOCOL 137
#define DROP_UNSUPPORTED_L3 139
#define DROP_WRITE_ERROR 141
#define DROP_NO_TUNNEL_KEY 147
#define DROP_UNKNOWN_TARGET 150
#define DROP_UNROUTABLE 151
#define DROP_L4_CHECKSUM 154
#define DROP_CT_INSERT_FAILED 155
#define DROP_INVALID_EXTENSION_HEADER 156
#define DROP_NO_BACKEND 158
#define DROP_NO_TUNNEL_ENDPOINT 160
#define DROP_NO_CONFIG 165
#define DROP_UNSUPPORTED_L2 166
#define DROP_NO_MAPPING 167
#define DROP_NO_ROUTE 169
#define DROP_ENCAP_PROHIBITED 170
#define DROP_INVALID_IDENTITY 171
#define DROP_CLUSTER_IP 174
#define DROP_FRAGMENT_NOT_FOUND 175
#define DROP_SOURCE_RANGE 177
#define DROP_VLAN_FILTERED 182
#define DROP_UNENCRYPTED 195
#define DROP_TTL_EXCEEDED 196

#define DIRECTION_INGRESS 1
#define DIRECTION_EGRESS 2

#define FILE_BPF_HOST 1
#define FILE_BPF_LXC 2
#define FILE_BPF_OVERLAY 3
#define FILE_BPF_XDP 4
#define FILE_BPF_WIREGUARD 7
#define FILE_IPV4 108
#define FILE_IPV6 116

/* The first packet of a kind on any CPU; out of line, because it happens once. */
static __noinline int metric_create(struct metrics_key key, __u64 bytes)
{
	struct metrics_value value = { .packets = 1, .bytes = bytes };

	/* BPF_ANY touches only this CPU's slot, so a race with another CPU loses nothing. */
	return bpf_map_update_elem(&cilium_metrics, &key, &value, BPF_ANY);
}

static __always_inline void metric_add(__u32 bytes, __u8 reason, __u8 direction, __u16 line, __u8 file)
{
	struct metrics_key key = { .reason = reason, .direction = direction, .line = line, .file = file };
	struct metrics_value *value = bpf_map_lookup_elem(&cilium_metrics, &key);

	if (value) {
		value->packets++;
		value->bytes += bytes;
	} else {
		metric_create(key, bytes);
	}
}

/* Out of line: keeps drops, which are rare, from growing the path of packets that pass. */
__noinline int drop_account(struct ctx_frame *ctx, const struct event_scope *scope, __u8 reason,
				   __u8 direction, __u32 place)
{
	__u16 line = place;
	__u8 file = place >> 16;

	metric_add(ctx_len(ctx), reason, direction, line, file);
	if (scope && event_is_wanted(scope, EVENT_DROP))
		event_put_drop(ctx, scope, reason, line, file);
	return CTX_DROP;
}

#define count_forward(ctx, reason, direction) \
	metric_add(ctx_len(ctx), reason, direction, __LINE__, FILE_ID)

/* An expression: the verdict of a packet that is dropped here. */
#define drop(ctx, scope, reason, direction) \
	drop_account(ctx, scope, reason, direction, __LINE__ | FILE_ID << 16)

#endif
