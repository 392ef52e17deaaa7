/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Other addresses and ports for an IPv4 packet, later: only what conntrack has read of it is changed. The packet
 * itself is written once it is certain that it goes out from here; until then tc's programs may have it as it came.
 */
#ifndef CILIATE_NAT_LATER4_H
#define CILIATE_NAT_LATER4_H

/* As that of tc, and never a drop reason: what can't be rewritten does not get here. */
static __always_inline int nat4_rewrite(struct ctx_frame *ctx, struct ct4_packet *packet, const struct nat4_ends *to)
{
	(void)ctx;
	packet->key.saddr = to->saddr;
	packet->key.daddr = to->daddr;
	packet->l4.ports = to->ports;
	ct4_set_ports(&packet->key, to->ports);
	return 0;
}

/* ICMP errors are left to tc. For functions that nothing calls here. */
static __always_inline int nat4_error(struct ctx_frame *ctx, struct ct4_packet *packet,
				      const struct nat4_ends *outer, const struct nat4_ends *inner)
{
	return ctx && packet && outer && inner ? -DROP_L4_CHECKSUM : -DROP_INVALID_PACKET;
}

#endif
