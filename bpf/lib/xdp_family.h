/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services of one family for clients outside, at the driver; xdp4.h and xdp6.h include this with
 *
 *   XDP(name), NODEPORT(name), SNAT(name), CT(name), NAT(name)   xdp4_##name or xdp6_##name, and so on
 *   struct XDP(change)   a packet as it is and as it is to be
 *   XDP(read), XDP(lookup), XDP(write)   functions
 */

/*
 * Where a packet goes: `packet` becomes what it is to be. Returns what conntrack says of its flow, XDP_LEFT, or a drop
 * reason.
 */
static __noinline int XDP(turn)(struct ctx_frame *ctx, struct event_scope *scope, struct CT(packet) *packet,
				const struct node_value *node)
{
	const struct endpoint_value *endpoint = NODEPORT(endpoint)(packet);
	int result, state;

	if (endpoint && !endpoint_is_host(endpoint))
		return XDP_LEFT;
	if (endpoint) {
		result = SNAT(reply)(ctx, packet);
		if (result == SNAT_TO_CLIENT)
			return CT_REPLY;
		if (result != SNAT_NONE)
			return result < 0 ? result : XDP_LEFT;
	}
	if (encap_is_forged(&packet->l4, node))
		return XDP_LEFT;
	result = NODEPORT(translate)(ctx, scope, packet);
	/* Clients of a service without backends are told, by tc. */
	if (result == LB_NONE || result == -LB_REJECT)
		return XDP_LEFT;
	if (result < 0)
		return result;
	if (NODEPORT(endpoint)(packet) || (node->tunnel_ifindex && goes_by_tunnel(NODEPORT(cached)(packet))))
		return XDP_LEFT;
	state = CT(track)(ctx, scope, packet, CT_EGRESS);
	if (state < 0)
		return state;
	result = SNAT(source)(ctx, packet, 0);
	return result ? result : state;
}

static __always_inline int XDP(drop)(struct ctx_frame *ctx, struct event_scope *scope, int reason)
{
	count_forward(ctx, REASON_INTERFACE, DIRECTION_INGRESS);
	trace(ctx, scope, TRACE_FROM_NETWORK, TRACE_REASON_UNKNOWN, ctx_ifindex(ctx));
	return drop(ctx, scope, reason, DIRECTION_INGRESS);
}

/* Out, once it is written. `state` is what conntrack knows. */
static __noinline int XDP(send)(struct ctx_frame *ctx, struct event_scope *scope, struct XDP(change) *change,
				int state)
{
	struct bpf_fib_lookup way = {};

	if (!XDP(lookup)(ctx, &change->packet, &way) || !xdp_is_for_us(ctx, &way))
		return XDP_PASS;
	count_forward(ctx, REASON_INTERFACE, DIRECTION_INGRESS);
	trace(ctx, scope, TRACE_FROM_NETWORK, TRACE_REASON_UNKNOWN, ctx_ifindex(ctx));
	XDP(write)(ctx, change, &way);
	count_forward(ctx, REASON_FORWARDED, DIRECTION_EGRESS);
	trace(ctx, scope, TRACE_TO_NETWORK, state, ctx_ifindex(ctx));
	capture(ctx, scope, CAPTURE_DELIVERY, ctx_ifindex(ctx));
	return XDP_TX;
}

/* A packet of the family. */
static __noinline int XDP(received)(struct ctx_frame *ctx, struct event_scope *scope, const struct node_value *node)
{
	struct XDP(change) change = {};
	int result;

	if (!XDP(read)(ctx, &change))
		return XDP_PASS;
	if (unlikely(scope->wanted))
		scope->source_identity = NODEPORT(identity)(&change.packet);
	result = XDP(turn)(ctx, scope, &change.packet, node);
	if (result == XDP_LEFT)
		return XDP_PASS;
	if (result < 0)
		return XDP(drop)(ctx, scope, -result);
	return XDP(send)(ctx, scope, &change, result);
}
