/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services: what is the same for both families.
 *
 * A client's flow to a service has an entry of its own (CT_FLAG_SERVICE), which keeps it at its backend. So only
 * packets that begin a flow look for a frontend.
 */
#ifndef CILIATE_LB_H
#define CILIATE_LB_H

#include "conntrack.h"
#include "endpoint.h"
#include "lb_affinity.h"

/* What became of a packet: nothing, since it is not for a service; or it is on its way to a backend. */
#define LB_NONE 0
#define LB_TRANSLATED 1
/* As a negative number, like drop reasons, which it is not: the service has no backend, and the client is told. */
#define LB_REJECT 1000

static __always_inline int node_has_services(const struct node_value *node)
{
	return node->flags & NODE_FLAG_SERVICES;
}

/* Of a service without backends. There are no errors about later fragments (RFC 1122, 3.2.2). */
static __always_inline int lb_no_backend(const struct l4 *l4)
{
	const struct node_value *node = node_lookup();

	if (!node || node->flags & NODE_FLAG_NO_BACKEND_DROP || l4->is_elsewhere)
		return -DROP_NO_BACKEND;
	return -LB_REJECT;
}

static __always_inline int lb_is_syn(const struct l4 *l4)
{
	return l4->protocol == IPPROTO_TCP && (l4->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/*
 * A packet of a client whose flow has an entry. Returns 0 when the flow is begun anew, and long enough after the
 * end of the old one for another backend.
 */
static __always_inline int lb_update(struct ct_value *value, const struct l4 *l4, __u32 now, __u32 len)
{
	if (ct_update(value, l4, CT_EGRESS | CT_TO_SERVICE, now, len))
		return 1;
	if (value->lifetime <= now)
		return 0;
	value->bits &= ~(CT_BIT_RX_CLOSING | CT_BIT_TX_CLOSING | CT_BIT_SEEN_NON_SYN);
	value->tx_flags = 0;
	return ct_update(value, l4, CT_EGRESS | CT_TO_SERVICE, now, len);
}

#endif
