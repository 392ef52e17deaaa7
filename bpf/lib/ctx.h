/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a program is given of a packet. Most of what is in this folder does not care which it is: a `struct ctx_frame`
 * is what the hook of the object that it is compiled for has.
 */
#ifndef CILIATE_CTX_H
#define CILIATE_CTX_H

#ifdef CTX_IS_XDP
#include "ctx_xdp.h"
#else
#include "ctx_skb.h"
#endif

#endif
