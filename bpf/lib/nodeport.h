/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services for clients outside, at the underlay's devices: what is the same for both families.
 *
 * A request goes to a backend on this node as it is, and elsewhere from this node's address. No stack sees either, nor
 * the answers: to it they would be of flows that it does not know. Only where the node is the backend itself its stack
 * gets what was translated.
 */
#ifndef CILIATE_NODEPORT_H
#define CILIATE_NODEPORT_H

#include "encap.h"
#include "icmp4_error.h"
#include "icmp6_error.h"
#include "local_delivery.h"
#include "snat4.h"
#include "snat6.h"

#endif
