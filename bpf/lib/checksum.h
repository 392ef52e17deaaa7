/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Arithmetic of the Internet checksum (RFC 1071). */
#ifndef CILIATE_CHECKSUM_H
#define CILIATE_CHECKSUM_H

#include <linux/types.h>

/* Sums of 16-bit words fit 64 bits for any packet; three folds reach 16 bits from there. */
static __always_inline __u16 checksum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~((sum & 0xffff) + (sum >> 16));
}

#endif
