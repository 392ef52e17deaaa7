/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Over the bytes of a frame: what the checksum of an ICMP error is of that quotes it. */
#ifndef CILIATE_FRAME_SUM_H
#define CILIATE_FRAME_SUM_H

#include "eth.h"

/* Of what is behind the link header, up to `max` bytes; they have to be linear. `max` is a constant. */
static __always_inline __u64 frame_sum(struct __sk_buff *skb, const __u32 max)
{
	void *end = frame_end(skb);
	void *at = frame_start(skb) + ETH_HLEN;
	__u64 sum = 0;
	int i;

	for (i = 0; i < (int)(max / 4); i++) {
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
