/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Frontends for clients outside: what is the same for both families. */
#ifndef CILIATE_FRONTEND_H
#define CILIATE_FRONTEND_H

#include "endpoint.h"
#include "ipcache.h"
#include "maglev.h"

/* Bits of a source range's prefix that are in front of the address. */
#define SOURCE_RANGE_STATIC_BITS 32

#endif
