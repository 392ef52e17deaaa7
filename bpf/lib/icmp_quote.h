/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What an ICMP error quotes of a packet. */
#ifndef CILIATE_ICMP_QUOTE_H
#define CILIATE_ICMP_QUOTE_H

#include "eth.h"

/* As the result of what builds an error: there is to be none about this packet. */
#define ICMP_ERROR_FORBIDDEN 1

/* More than any error quotes: they fit the minimal MTU of IPv6. */
#define ICMP_QUOTE_MAX 1280

/* Sum of the frame's bytes behind the link header, up to ICMP_QUOTE_MAX; they have to be linear. */
static __always_inline __u64 icmp_quote_sum(struct __sk_buff *skb)
{
	void *end = frame_end(skb);
	void *at = frame_start(skb) + ETH_HLEN;
	__u64 sum = 0;
	int i;

	for (i = 0; i < ICMP_QUOTE_MAX / 4; i++) {
		if (at + 4 > end)
			break;
		sum += *(__u32 *)at;
		at += 4;
	}
	if (at + 2 <= end) {
		sum += *(__u16 *)at;
		at += 2;
	}
	if (at + 1 <= end)
		sum += *(__u8 *)at;
	return sum;
}

#endif
