/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Conntrack: what is the same for both families. States, lifetimes and flags are Cilium's.
 *
 * A flow has an entry in the direction it was begun in.
 */
#ifndef CILIATE_CONNTRACK_H
#define CILIATE_CONNTRACK_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>

#include "l4.h"
#include "maps.h"

#define CT_NEW 0
#define CT_ESTABLISHED 1
#define CT_REPLY 2
#define CT_RELATED 3
/* No state: see CT_OFFER. */
#define CT_OFFERED 4

/* How a packet passes an endpoint: out of it, into it, and that from the tunnel. */
#define CT_EGRESS 0
#define CT_INGRESS 1
#define CT_FROM_TUNNEL 2
/* The entry is that of a service's client. */
#define CT_TO_SERVICE 4
/*
 * Flows that would be begun are offered to the caller first: CT_OFFERED. So are those that the endpoint began, once
 * a second, since what they go to may have become a service since.
 */
#define CT_OFFER 8

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

/* Not more often than this is the time of a report written, when no new flag is seen. */
#define CT_REPORT_INTERVAL 5

/* A service's client that begins a flow anew this soon after its end is kept at the backend. */
#define CT_SERVICE_GRACE 60

#define NSEC_PER_SEC 1000000000ULL

/* Seconds. Read-only once loaded, and known to the verifier; user space may set others before. */
const volatile __u32 ct_lifetime_tcp = 8000;
const volatile __u32 ct_lifetime_tcp_syn = 60;
const volatile __u32 ct_lifetime_tcp_closing = 10;
const volatile __u32 ct_lifetime_other = 60;

/* Whether entries count packets and bytes. */
const volatile __u8 ct_accounting = 0;

/* Of the last clock tick: a reading of the exact time costs as much as a lookup. */
static __always_inline __u32 ct_now(void)
{
	return bpf_ktime_get_coarse_ns() / NSEC_PER_SEC;
}

static __always_inline int ct_is_alive(__u16 bits)
{
	return (bits & (CT_BIT_RX_CLOSING | CT_BIT_TX_CLOSING)) != (CT_BIT_RX_CLOSING | CT_BIT_TX_CLOSING);
}

/* A changed value dirties a cache line that other CPUs read: once a second is enough. */
static __always_inline void ct_extend(struct ct_value *value, __u32 end)
{
	if (value->lifetime != end)
		value->lifetime = end;
}

static __always_inline void ct_report(__u8 *seen, __u32 *reported, __u8 flags, __u32 now)
{
	flags |= *seen;
	if (flags == *seen && *reported + CT_REPORT_INTERVAL >= now)
		return;
	*seen = flags;
	*reported = now;
}

/* The flow lives on: until when, and which flags were seen in this direction. */
static __always_inline void ct_refresh(struct ct_value *value, __u32 lifetime, __u8 flags, __u32 how, __u32 now)
{
	ct_extend(value, now + lifetime);
	if (how & CT_INGRESS)
		ct_report(&value->rx_flags, &value->last_rx_report, flags, now);
	else
		ct_report(&value->tx_flags, &value->last_tx_report, flags, now);
}

static __always_inline void ct_close(struct ct_value *value, __u8 flags, __u32 how, __u32 now)
{
	/* Sees one direction only. */
	if (how & CT_TO_SERVICE) {
		value->bits |= CT_BIT_RX_CLOSING | CT_BIT_TX_CLOSING;
		ct_extend(value, now + CT_SERVICE_GRACE);
		return;
	}
	/* Refused before it was answered. */
	if (flags & TCP_RST && !(value->rx_flags & value->tx_flags & TCP_SYN))
		value->bits |= CT_BIT_RX_CLOSING | CT_BIT_TX_CLOSING;
	else
		value->bits |= how & CT_INGRESS ? CT_BIT_RX_CLOSING : CT_BIT_TX_CLOSING;
	if (!ct_is_alive(value->bits))
		ct_extend(value, now + ct_lifetime_tcp_closing);
}

static __always_inline __u32 ct_lifetime(__u8 protocol, __u16 bits)
{
	if (protocol != IPPROTO_TCP)
		return ct_lifetime_other;
	return bits & CT_BIT_SEEN_NON_SYN ? ct_lifetime_tcp : ct_lifetime_tcp_syn;
}

/* What an entry says of a service. */
#define CT_BITS_OF_SERVICE (CT_BIT_LB_LOOPBACK | CT_BIT_NODE_PORT | CT_BIT_DSR_INTERNAL)

/*
 * Whether the entry says which service the flow was sent to. Answers are the client's business, and its entry's; that
 * of a client outside is at the backend.
 */
static __always_inline int ct_tells_service(__u16 rev_bits, __u32 how)
{
	return !(how & CT_INGRESS) || rev_bits & CT_BIT_NODE_PORT;
}

/* No packet of the flow was seen in this second. */
static __always_inline int ct_is_due(const struct ct_value *value, __u8 protocol, __u32 now)
{
	return ct_is_alive(value->bits) && value->lifetime != now + ct_lifetime(protocol, value->bits);
}

/*
 * A packet of the entry's flow. Returns 0 when it is the first of a new one with the same addresses and
 * ports.
 */
static __always_inline int ct_update(struct ct_value *value, const struct l4 *l4, __u32 how, __u32 now,
				     __u32 len)
{
	__u8 flags = l4->tcp_flags;
	__u16 bits = value->bits;

	if (l4->protocol == IPPROTO_TCP) {
		if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && bits & (CT_BIT_RX_CLOSING | CT_BIT_TX_CLOSING))
			return 0;
		if (!(flags & TCP_SYN) && !(bits & CT_BIT_SEEN_NON_SYN))
			value->bits = bits |= CT_BIT_SEEN_NON_SYN;
	}
	if (ct_is_alive(bits))
		ct_refresh(value, ct_lifetime(l4->protocol, bits), flags, how, now);
	if (unlikely(flags & (TCP_FIN | TCP_RST)))
		ct_close(value, flags, how, now);
	if (ct_accounting) {
		__sync_fetch_and_add(&value->packets, 1);
		__sync_fetch_and_add(&value->bytes, len);
	}
	return 1;
}

/*
 * The entry of a new flow. The first packet of a TCP flow counts as SYN whatever it was: a flow that was
 * there before its entry has to show by its next packet that it lives.
 */
static __always_inline void ct_begin(struct ct_value *value, __u8 protocol, __u32 how, __u32 identity,
				     __u32 now, __u32 len)
{
	int is_tcp = protocol == IPPROTO_TCP;

	value->source_identity = identity;
	if (how & CT_FROM_TUNNEL)
		value->bits = CT_BIT_FROM_TUNNEL;
	ct_refresh(value, is_tcp ? ct_lifetime_tcp_syn : ct_lifetime_other, is_tcp ? TCP_SYN : 0, how, now);
	if (ct_accounting) {
		value->packets = 1;
		value->bytes = len;
	}
}

#endif
