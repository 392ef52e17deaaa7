/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Answers of IPv6 that go to a client directly. */
#ifndef CILIATE_DSR6_H
#define CILIATE_DSR6_H

#include "dsr.h"
#include "lb6.h"

#define DSR(name) dsr6_##name
#define SNAT(name) snat6_##name
#define LB(name) lb6_##name
#define CT(name) ct6_##name
#define NAT(name) nat6_##name
#define SNAT_MAP cilium_snat_v6_external

#include "dsr_answer_family.h"

#undef DSR
#undef SNAT
#undef LB
#undef CT
#undef NAT
#undef SNAT_MAP

#endif
