/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Answers of IPv4 that go to a client directly. */
#ifndef CILIATE_DSR4_H
#define CILIATE_DSR4_H

#include "dsr.h"
#include "lb4.h"

#define DSR(name) dsr4_##name
#define SNAT(name) snat4_##name
#define LB(name) lb4_##name
#define CT(name) ct4_##name
#define NAT(name) nat4_##name
#define SNAT_MAP cilium_snat_v4_external

#include "dsr_answer_family.h"

#undef DSR
#undef SNAT
#undef LB
#undef CT
#undef NAT
#undef SNAT_MAP

#endif
