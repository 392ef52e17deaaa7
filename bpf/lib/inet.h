/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* AF_INET and AF_INET6, which only libc's headers have. */
#ifndef CILIATE_INET_H
#define CILIATE_INET_H

#define FAMILY_INET 2
#define FAMILY_INET6 10

#endif
