/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Bob Jenkins' hash (lookup3) over words: every node that hashes a flow gets the same number. */
#ifndef CILIATE_JHASH_H
#define CILIATE_JHASH_H

#include <linux/types.h>

#define JHASH_BEGIN 0xdeadbeef

static __always_inline __u32 jhash_rotate(__u32 word, int bits)
{
	return word << bits | word >> (32 - bits);
}

static __always_inline void jhash_mix(__u32 *a, __u32 *b, __u32 *c)
{
	*a -= *c, *a ^= jhash_rotate(*c, 4), *c += *b;
	*b -= *a, *b ^= jhash_rotate(*a, 6), *a += *c;
	*c -= *b, *c ^= jhash_rotate(*b, 8), *b += *a;
	*a -= *c, *a ^= jhash_rotate(*c, 16), *c += *b;
	*b -= *a, *b ^= jhash_rotate(*a, 19), *a += *c;
	*c -= *b, *c ^= jhash_rotate(*b, 4), *b += *a;
}

static __always_inline __u32 jhash_end(__u32 a, __u32 b, __u32 c)
{
	c ^= b, c -= jhash_rotate(b, 14);
	a ^= c, a -= jhash_rotate(c, 11);
	b ^= a, b -= jhash_rotate(a, 25);
	c ^= b, c -= jhash_rotate(b, 16);
	a ^= c, a -= jhash_rotate(c, 4);
	b ^= a, b -= jhash_rotate(a, 14);
	c ^= b, c -= jhash_rotate(b, 24);
	return c;
}

/* Of three words; `seed` says which of many hashes. */
static __always_inline __u32 jhash3(__u32 a, __u32 b, __u32 c, __u32 seed)
{
	seed += JHASH_BEGIN + 12;
	return jhash_end(a + seed, b + seed, c + seed);
}

/* Of six. */
static __always_inline __u32 jhash6(const __u32 *words, __u32 e, __u32 f, __u32 seed)
{
	__u32 a, b, c;

	seed += JHASH_BEGIN + 24;
	a = words[0] + seed;
	b = words[1] + seed;
	c = words[2] + seed;
	jhash_mix(&a, &b, &c);
	return jhash_end(a + words[3], b + e, c + f);
}

#endif
