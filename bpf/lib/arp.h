/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ARP on an endpoint's device: every address but its own is at the host side of its veth. */
#ifndef CILIATE_ARP_H
#define CILIATE_ARP_H

#include <linux/pkt_cls.h>

#include "endpoint.h"
#include "eth.h"
#include "events.h"

#define ARP_HARDWARE_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

struct arp_ipv4 {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
	__u8 sender_mac[ETH_ADDR_LEN];
	__be32 sender;
	__u8 target_mac[ETH_ADDR_LEN];
	__be32 target;
} __attribute__((packed, aligned(2)));

static __always_inline int arp_is_request_for_us(const struct ethhdr *eth, const struct arp_ipv4 *arp,
						 const struct device_value *device)
{
	return arp->hardware == bpf_htons(ARP_HARDWARE_ETHERNET) && arp->protocol == bpf_htons(ETH_P_IP) &&
	       arp->hardware_len == ETH_ADDR_LEN && arp->protocol_len == sizeof(__be32) &&
	       arp->operation == bpf_htons(ARP_REQUEST) && arp->target != device->ipv4 &&
	       (eth_addr_is_broadcast(eth->h_dest) || eth_addr_equal(eth->h_dest, device->node_mac));
}

/* Answers a request in place and sends it back; whatever else it is goes to the stack as it came. */
static __always_inline int arp_answer(struct __sk_buff *skb, const struct event_scope *scope,
				      const struct device_value *device)
{
	struct ethhdr *eth = frame_head(skb, ETH_HLEN + sizeof(struct arp_ipv4));
	struct arp_ipv4 *arp = (void *)(eth + 1);
	__be32 target;

	if (!eth || !arp_is_request_for_us(eth, arp, device))
		return TC_ACT_OK;
	eth_addr_copy(eth->h_dest, eth->h_source);
	eth_addr_copy(eth->h_source, device->node_mac);
	target = arp->target;
	arp->operation = bpf_htons(ARP_REPLY);
	eth_addr_copy(arp->target_mac, arp->sender_mac);
	arp->target = arp->sender;
	eth_addr_copy(arp->sender_mac, device->node_mac);
	arp->sender = target;
	capture(skb, scope, CAPTURE_DELIVERY, skb->ifindex);
	return bpf_redirect(skb->ifindex, 0);
}

#endif
