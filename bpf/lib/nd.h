/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv6 neighbour discovery (RFC 4861) on an endpoint's device: solicitations are answered here. */
#ifndef CILIATE_ND_H
#define CILIATE_ND_H

#include <linux/pkt_cls.h>

#include "checksum.h"
#include "endpoint.h"
#include "eth.h"
#include "events.h"
#include "ipv6.h"
#include "metrics.h"

/* Proves that no router has forwarded the packet; with any other hop limit it is not ND. */
#define ND_HOP_LIMIT 255
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_OPTION_TARGET_ADDRESS 2
#define ND_FLAG_ROUTER 0x80
#define ND_FLAG_SOLICITED 0x40
#define ND_FLAG_OVERRIDE 0x20

/* Result of nd_handle: the packet is an ordinary one. Neither a TC verdict nor a drop reason. */
#define ND_NOT_ND 1000

struct nd_message {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__u8 flags;
	__u8 reserved[3];
	__be32 target[4];
};

/* Two bytes in front of the frame align all that follows the link header. */
struct nd_advertisement {
	__u8 align[2];
	struct ethhdr eth;
	struct ipv6hdr ip6;
	struct nd_message message;
	__u8 option_type;
	__u8 option_len;
	__u8 option_mac[ETH_ADDR_LEN];
};

#define ND_FRAME_LEN (sizeof(struct nd_advertisement) - 2)

#define ND_PAYLOAD_LEN (sizeof(struct nd_message) + 8)

static __always_inline void nd_sign(struct nd_advertisement *frame)
{
	/* The two addresses of the pseudo header and the message lie side by side. */
	__s64 sum = bpf_csum_diff(NULL, 0, (__be32 *)&frame->ip6.saddr, 32 + ND_PAYLOAD_LEN,
				  bpf_htonl(ND_PAYLOAD_LEN + IPV6_NEXT_ICMP));

	frame->message.checksum = checksum_fold((__u32)sum);
}

/*
 * Turns the frame into the advertisement that answers it. It is written whole: the solicitation may lack
 * the address option, have others, or stand behind extension headers.
 */
static __always_inline int nd_advertise(struct __sk_buff *skb, const struct event_scope *scope,
					const struct device_value *device, const __be32 *target, __u8 flags)
{
	struct nd_advertisement frame = {
		.eth.h_proto = bpf_htons(ETH_P_IPV6),
		.ip6.version = 6,
		.ip6.payload_len = bpf_htons(ND_PAYLOAD_LEN),
		.ip6.nexthdr = IPV6_NEXT_ICMP,
		.ip6.hop_limit = ND_HOP_LIMIT,
		.message.type = ND_ADVERTISEMENT,
		.message.flags = flags,
		.option_type = ND_OPTION_TARGET_ADDRESS,
		.option_len = 1,
	};

	if (bpf_skb_load_bytes(skb, ETH_ADDR_LEN, frame.eth.h_dest, ETH_ADDR_LEN) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, saddr), &frame.ip6.daddr,
			       sizeof(frame.ip6.daddr)))
		return -DROP_INVALID_PACKET;
	__builtin_memcpy(frame.eth.h_source, device->node_mac, ETH_ADDR_LEN);
	__builtin_memcpy(frame.option_mac, device->node_mac, ETH_ADDR_LEN);
	__builtin_memcpy(&frame.ip6.saddr, target, sizeof(frame.ip6.saddr));
	__builtin_memcpy(frame.message.target, target, sizeof(frame.message.target));
	nd_sign(&frame);
	if (bpf_skb_change_tail(skb, ND_FRAME_LEN, 0) ||
	    bpf_skb_store_bytes(skb, 0, &frame.eth, ND_FRAME_LEN, 0))
		return -DROP_WRITE_ERROR;
	capture(skb, scope, CAPTURE_DELIVERY, skb->ifindex);
	return bpf_redirect(skb->ifindex, 0);
}

/*
 * `from_unspecified` marks duplicate address detection, which asks whether anyone else has the address.
 * It gets no answer: that an endpoint only uses its own addresses is seen to by the source check.
 */
static __always_inline int nd_solicitation(struct __sk_buff *skb, const struct event_scope *scope,
					   const struct device_value *device, const __be32 *target,
					   int from_unspecified)
{
	const struct endpoint_value *endpoint = endpoint_lookup6(target);
	const struct node_value *node = node_lookup();
	__u8 flags = ND_FLAG_SOLICITED | ND_FLAG_OVERRIDE;

	/* The router first: its address is usually among the host's as well. */
	if (node && ipv6_equal(target, node->router_ipv6))
		flags = ND_FLAG_ROUTER | ND_FLAG_SOLICITED;
	else if (endpoint && endpoint_is_host(endpoint))
		return TC_ACT_OK;
	else if (!endpoint || ipv6_equal(target, device->ipv6))
		return -DROP_UNKNOWN_TARGET;
	if (from_unspecified || ipv6_is_unspecified(target))
		return -DROP_UNKNOWN_TARGET;
	return nd_advertise(skb, scope, device, target, flags);
}

/* Out of line: one packet in many thousands. */
static __noinline int nd_handle(struct __sk_buff *skb, const struct event_scope *scope,
				const struct device_value *device, __u8 next)
{
	struct nd_message message;
	int offset = ipv6_upper_layer(skb, &next);
	__be32 source[4];

	if (offset < 0)
		return -DROP_INVALID_EXTENSION_HEADER;
	if (next != IPV6_NEXT_ICMP)
		return ND_NOT_ND;
	if (bpf_skb_load_bytes(skb, offset, &message.type, sizeof(message.type)))
		return -DROP_INVALID_PACKET;
	if (message.type != ND_SOLICITATION && message.type != ND_ADVERTISEMENT)
		return ND_NOT_ND;
	if (bpf_skb_load_bytes(skb, offset, &message, sizeof(message)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, saddr), source,
			       sizeof(source)) ||
	    message.code)
		return -DROP_INVALID_PACKET;
	if (ipv6_is_unspecified(source))
		return message.type == ND_SOLICITATION ? nd_solicitation(skb, scope, device, message.target, 1)
						       : -DROP_INVALID_SOURCE_IP;
	if (!ipv6_is_link_local(source) && !ipv6_equal(source, device->ipv6))
		return -DROP_INVALID_SOURCE_IP;
	if (message.type == ND_ADVERTISEMENT)
		return TC_ACT_OK;
	return nd_solicitation(skb, scope, device, message.target, 0);
}

#endif
