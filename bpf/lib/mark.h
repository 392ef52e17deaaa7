/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The packet mark: bits 0x0f00 say what it carries. An identity of 24 bits lies with its low 16 bits in
 * the upper half and its high 8 bits in the lowest byte.
 */
#ifndef CILIATE_MARK_H
#define CILIATE_MARK_H

#include "abi.h"

#define MARK_MAGIC_MASK 0x0f00
/* The source is exchanged, or is to stay. */
#define MARK_MAGIC_SNAT_DONE 0x0300
#define MARK_MAGIC_OVERLAY 0x0400
#define MARK_MAGIC_WIREGUARD 0x0600
#define MARK_MAGIC_PROXY_INGRESS 0x0a00
#define MARK_MAGIC_PROXY_EGRESS 0x0b00
#define MARK_MAGIC_HOST 0x0c00
#define MARK_MAGIC_ENCRYPT 0x0e00
#define MARK_MAGIC_IDENTITY 0x0f00

static __always_inline __u32 mark_of(__u32 identity, __u32 magic)
{
	return identity << 16 | (identity >> 16 & 0xff) | magic;
}

static __always_inline __u32 mark_with_identity(__u32 identity)
{
	return mark_of(identity, MARK_MAGIC_IDENTITY);
}

/* On a packet into the tunnel, and by that on the one the tunnel makes of it. */
static __always_inline __u32 mark_overlay(__u32 identity)
{
	return mark_of(identity, MARK_MAGIC_OVERLAY);
}

/* On a packet that has to be encrypted, as it is or in the tunnel. */
static __always_inline __u32 mark_to_encrypt(__u32 identity)
{
	return mark_of(identity, MARK_MAGIC_ENCRYPT);
}

static __always_inline int mark_is_from_proxy(__u32 mark)
{
	__u32 magic = mark & MARK_MAGIC_MASK;

	return magic == MARK_MAGIC_PROXY_INGRESS || magic == MARK_MAGIC_PROXY_EGRESS;
}

/* IDENTITY_UNKNOWN when the mark says nothing about the sender. */
static __always_inline __u32 mark_identity(__u32 mark)
{
	switch (mark & MARK_MAGIC_MASK) {
	case MARK_MAGIC_HOST:
		return IDENTITY_HOST;
	case MARK_MAGIC_IDENTITY:
	case MARK_MAGIC_ENCRYPT:
	case MARK_MAGIC_PROXY_INGRESS:
	case MARK_MAGIC_PROXY_EGRESS:
		return (mark & 0xff) << 16 | mark >> 16;
	default:
		return IDENTITY_UNKNOWN;
	}
}

#endif
