/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What of the header behind the IP header tells flows apart: ports, TCP flags, kind of ICMP message. */
#ifndef CILIATE_L4_H
#define CILIATE_L4_H

#include <linux/in.h>

#include "eth.h"
#include "metrics.h"

/* As far as a TCP header is read: its flags. */
#define TCP_LEN 14
#define TCP_FLAGS_AT 13
/* In the upper half of the byte. */
#define TCP_HEAD_WORDS_AT 12
#define UDP_HEAD_LEN 8
#define UDP_DESTINATION_AT 2

/* linux/icmp.h needs a libc. */
#define ICMP_ECHO_REPLY 0
#define ICMP_DESTINATION_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

#define ICMP6_DESTINATION_UNREACHABLE 1
#define ICMP6_PARAMETER_PROBLEM 4
#define ICMP6_ECHO_REQUEST 128
#define ICMP6_ECHO_REPLY 129

#define ICMP_ECHO_ID_AT 4

/*
 * `ports` is both, as they stand in a packet: source, then destination. An ICMP echo's identifier stands for
 * the port of who asks; other messages have none. `offset` is where the header begins.
 */
struct l4 {
	__u32 ports;
	__u32 offset;
	__u8 protocol;
	__u8 tcp_flags;
	/* An ICMP error: about another packet, which it quotes. */
	__u8 is_error;
	/* A later fragment: the header is in the first one. */
	__u8 is_elsewhere;
};

/* The first of the two ports as they stand in a packet, and the second one. */
static __always_inline __u32 l4_port_first(__be16 port)
{
	return port;
}

static __always_inline __u32 l4_port_second(__be16 port)
{
	return (__u32)port << 16;
}

static __always_inline int l4_has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static __always_inline int l4_icmp_id(struct ctx_frame *ctx, struct l4 *l4, int is_request)
{
	__be16 id;

	if (ctx_load_bytes(ctx, l4->offset + ICMP_ECHO_ID_AT, &id, sizeof(id)))
		return -DROP_CT_INVALID_HEADER;
	l4->ports = is_request ? l4_port_first(id) : l4_port_second(id);
	return 0;
}

static __always_inline int l4_icmp4(struct ctx_frame *ctx, struct l4 *l4, __u8 type)
{
	switch (type) {
	case ICMP_ECHO_REQUEST:
	case ICMP_ECHO_REPLY:
		return l4_icmp_id(ctx, l4, type == ICMP_ECHO_REQUEST);
	case ICMP_DESTINATION_UNREACHABLE:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER_PROBLEM:
		l4->is_error = 1;
	}
	return 0;
}

static __always_inline int l4_icmp6(struct ctx_frame *ctx, struct l4 *l4, __u8 type)
{
	if (type == ICMP6_ECHO_REQUEST || type == ICMP6_ECHO_REPLY)
		return l4_icmp_id(ctx, l4, type == ICMP6_ECHO_REQUEST);
	if (type >= ICMP6_DESTINATION_UNREACHABLE && type <= ICMP6_PARAMETER_PROBLEM)
		l4->is_error = 1;
	return 0;
}

/*
 * Fills in the rest of `l4`, whose offset and protocol the caller knows. `icmp` is the family's protocol
 * number of ICMP. Of a packet that an ICMP error quotes there may be no more than eight bytes; its TCP flags
 * are not read. Returns 0 or a drop reason. Out of line: all but plain TCP and UDP.
 */
__noinline int l4_load(struct ctx_frame *ctx, struct l4 *l4, __u8 icmp, int is_quoted)
{
	__u8 type;

	if (!l4)
		return -DROP_CT_INVALID_HEADER;
	if (l4_has_ports(l4->protocol)) {
		if (ctx_load_bytes(ctx, l4->offset, &l4->ports, sizeof(l4->ports)))
			return -DROP_CT_INVALID_HEADER;
		if (l4->protocol == IPPROTO_TCP && !is_quoted &&
		    ctx_load_bytes(ctx, l4->offset + TCP_FLAGS_AT, &l4->tcp_flags, sizeof(l4->tcp_flags)))
			return -DROP_CT_INVALID_HEADER;
		return 0;
	}
	if (l4->protocol != icmp)
		return -DROP_CT_UNKNOWN_PROTOCOL;
	if (ctx_load_bytes(ctx, l4->offset, &type, sizeof(type)))
		return -DROP_CT_INVALID_HEADER;
	return icmp == IPPROTO_ICMP ? l4_icmp4(ctx, l4, type) : l4_icmp6(ctx, l4, type);
}

/* The same, for what an IP header without extension headers is followed by. */
static __always_inline int l4_read(struct ctx_frame *ctx, struct l4 *l4, __u8 icmp)
{
	/* Changes nothing: the longest IPv4 header ends before. The verifier forgets what it was on the way. */
	void *at = frame_start(ctx) + (l4->offset & 127);

	if (l4->protocol == IPPROTO_TCP && at + TCP_LEN <= frame_end(ctx)) {
		l4->ports = *(__u32 *)at;
		l4->tcp_flags = *(__u8 *)(at + TCP_FLAGS_AT);
		return 0;
	}
	if (l4->protocol == IPPROTO_UDP && at + sizeof(__u32) <= frame_end(ctx)) {
		l4->ports = *(__u32 *)at;
		return 0;
	}
	return l4_load(ctx, l4, icmp, 0);
}

#endif
