/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services of one family for clients outside; nodeport4.h and nodeport6.h include this with
 *
 *   NODEPORT(name), SNAT(name), LB(name), CT(name), NAT(name)   nodeport4_##name or nodeport6_##name, and so on
 *   NODEPORT_SNAT_MAP, NODEPORT_WAY_OUT, NODEPORT_UNREACHABLE, NODEPORT_TOO_BIG
 *   NODEPORT(deliver), NODEPORT(too_long), NODEPORT(tell)   functions
 *   DSR(prepare), DSR(too_big), DSR(received), DSR(answer)   functions of direct return
 */

#define NODEPORT_WORDS(address) ((__be32 *)(void *)&(address))

/*
 * An ICMP error of a client, or of a router on the way to it, about what it was given as the service's: to the backend,
 * as if about what that has sent. Returns as NODEPORT(translate).
 */
__noinline int NODEPORT(client_error)(struct __sk_buff *skb, struct CT(packet) *packet)
{
	struct CT(key) key __attribute__((aligned(4)));
	const struct LB(backend) *backend;
	const struct SNAT(value) *by;
	struct NAT(ends) outer, inner;
	struct ct_value *value;

	if (!packet || CT(quoted)(skb, packet, &key) || !l4_has_ports(key.protocol))
		return LB_NONE;
	value = LB(kept)(&key);
	backend = value ? LB(backend_by_id)(value->backend_id) : NULL;
	if (!backend)
		return LB_NONE;
	/* From the client to the backend: what it goes by, if that is elsewhere. */
	LB(copy)(NODEPORT_WORDS(key.saddr), NODEPORT_WORDS(key.daddr));
	LB(copy)(NODEPORT_WORDS(key.daddr), (__be32 *)(void *)&backend->address);
	key.dport = backend->port;
	key.flags = SNAT_FLAG_OUT;
	by = bpf_map_lookup_elem(&NODEPORT_SNAT_MAP, &key);
	LB(copy)(NODEPORT_WORDS(outer.saddr), NODEPORT_WORDS(packet->key.saddr));
	LB(copy)(NODEPORT_WORDS(outer.daddr), NODEPORT_WORDS(key.daddr));
	LB(copy)(NODEPORT_WORDS(inner.saddr), NODEPORT_WORDS(key.daddr));
	LB(copy)(NODEPORT_WORDS(inner.daddr), NODEPORT_WORDS(key.saddr));
	inner.ports = l4_port_first(key.dport) | l4_port_second(key.sport);
	if (by) {
		LB(copy)(NODEPORT_WORDS(outer.saddr), (__be32 *)(void *)&by->address);
		LB(copy)(NODEPORT_WORDS(inner.daddr), (__be32 *)(void *)&by->address);
		inner.ports = l4_port_first(key.dport) | l4_port_second(by->port);
	}
	return NAT(error)(skb, packet, &outer, &inner) ? -DROP_L4_CHECKSUM : LB_TRANSLATED;
}

/* To a backend elsewhere, through the tunnel. */
static __noinline int NODEPORT(to_tunnel)(struct __sk_buff *skb, struct event_scope *scope,
					  const struct node_value *node, const struct ipcache_value *destination,
					  int state)
{
	int result = encap(skb, scope, node, destination, state);

	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	count_forward(skb, REASON_FORWARDED, DIRECTION_EGRESS);
	return bpf_redirect(node->tunnel_ifindex, 0);
}

/* To its backend on another node, from its client still: that is answered from there. */
static __always_inline int NODEPORT(forward_as_it_is)(struct __sk_buff *skb, struct event_scope *scope,
						      struct CT(packet) *packet)
{
	int result = DSR(prepare)(skb, packet);
	__u64 kind;

	if (result > 0) {
		kind = DSR(too_big)(skb, result);
		if (kind)
			return NODEPORT(tell)(skb, scope, packet, kind, DROP_FRAG_NEEDED);
		result = -DROP_FRAG_NEEDED;
	}
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	return NODEPORT_WAY_OUT(skb, scope, TRACE_REASON_UNKNOWN, WAY_OUT_HOP);
}

/* To its backend, which is no endpoint of this node. TC_ACT_UNSPEC: the node is. */
static __always_inline int NODEPORT(forward)(struct __sk_buff *skb, struct event_scope *scope,
					     struct CT(packet) *packet, const struct node_value *node, int is_host)
{
	const struct ipcache_value *destination = NODEPORT(cached)(packet);
	int state = CT_RELATED, result, by_tunnel;

	/* No answer will come by here. */
	if (!is_host && !packet->l4.is_error && node_returns_directly(node) && dsr_is_possible(destination))
		return NODEPORT(forward_as_it_is)(skb, scope, packet);
	if (!packet->l4.is_error) {
		state = CT(track)(skb, scope, packet, is_host ? CT_INGRESS : CT_EGRESS);
		if (state < 0)
			return drop(skb, scope, -state, DIRECTION_INGRESS);
	}
	if (is_host)
		return TC_ACT_UNSPEC;
	by_tunnel = node->tunnel_ifindex && goes_by_tunnel(destination);
	if (by_tunnel && !packet->l4.is_error && NODEPORT(too_long)(skb, packet, node))
		return NODEPORT(tell)(skb, scope, packet, NODEPORT_TOO_BIG, DROP_FRAG_NEEDED);
	result = packet->l4.is_error ? 0 : SNAT(source)(skb, packet, by_tunnel ? SNAT_BY_TUNNEL : 0);
	if (result)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	if (by_tunnel)
		return NODEPORT(to_tunnel)(skb, scope, node, destination, state);
	return NODEPORT_WAY_OUT(skb, scope, state, WAY_OUT_HOP);
}

/* What another node has sent on to this one for a client. TC_ACT_UNSPEC: it is the stack's, as it is. */
static __always_inline int NODEPORT(sent_on)(struct __sk_buff *skb, struct event_scope *scope,
					     struct CT(packet) *packet, const struct endpoint_value *endpoint)
{
	int state;

	packet->rev_bits = DSR_BITS;
	if (scope->source_identity == IDENTITY_UNKNOWN)
		scope->source_identity = NODEPORT(identity)(packet);
	if (!endpoint_is_host(endpoint))
		return NODEPORT(deliver)(skb, scope, packet, endpoint);
	state = CT(track)(skb, scope, packet, CT_INGRESS);
	if (state < 0)
		return drop(skb, scope, -state, DIRECTION_INGRESS);
	return TC_ACT_UNSPEC;
}

/* What comes in by the underlay. TC_ACT_UNSPEC: whatever it is now, it is the stack's. */
static __always_inline int NODEPORT(received)(struct __sk_buff *skb, struct event_scope *scope,
					      struct CT(packet) *packet, const struct node_value *node)
{
	const struct endpoint_value *endpoint = NODEPORT(endpoint)(packet);
	int result;

	if (endpoint && node_returns_directly(node)) {
		result = DSR(received)(skb, packet);
		if (result < 0)
			return drop(skb, scope, -result, DIRECTION_INGRESS);
		if (result)
			return NODEPORT(sent_on)(skb, scope, packet, endpoint);
	}
	if (endpoint && !endpoint_is_host(endpoint))
		return TC_ACT_UNSPEC;
	if (endpoint) {
		result = SNAT(returned)(skb, scope, packet);
		if (result != TC_ACT_UNSPEC)
			return result;
	}
	if (packet->l4.is_error)
		result = NODEPORT(client_error)(skb, packet);
	else if (l4_has_ports(packet->l4.protocol) && !encap_is_forged(&packet->l4, node))
		result = NODEPORT(translate)(skb, scope, packet);
	else
		return TC_ACT_UNSPEC;
	if (result == LB_NONE)
		return TC_ACT_UNSPEC;
	if (result == -LB_REJECT)
		return NODEPORT(tell)(skb, scope, packet, NODEPORT_UNREACHABLE, DROP_NO_BACKEND);
	if (result < 0)
		return drop(skb, scope, -result, DIRECTION_INGRESS);
	endpoint = NODEPORT(endpoint)(packet);
	if (endpoint && !endpoint_is_host(endpoint))
		return NODEPORT(deliver)(skb, scope, packet, endpoint);
	return NODEPORT(forward)(skb, scope, packet, node, !!endpoint);
}

/* What this node sends may be an answer of its own as a backend, or an error about what it got as that. */
static __noinline int NODEPORT(find_service)(struct __sk_buff *skb, struct CT(packet) *packet)
{
	struct CT(key) key __attribute__((aligned(4)));
	struct ct_value *value;

	if (packet->l4.is_error) {
		if (CT(quoted)(skb, packet, &key))
			return 0;
		CT(flip)(&key);
	} else {
		key = packet->key;
	}
	key.flags = CT_FLAG_IN;
	value = CT(lookup)(&key);
	if (!value || !(value->bits & CT_BIT_NODE_PORT))
		return 0;
	if (!packet->l4.is_error)
		ct_update(value, &packet->l4, CT_EGRESS, packet->now, skb->len);
	packet->reverse = value->rev_nat;
	packet->reverse_bits = value->bits;
	return 1;
}

/*
 * What goes out by the underlay, from this node. An answer of a backend that is this node comes from the service; its
 * own flow from a port of the range keeps off those of clients. Returns 0 or a drop reason.
 */
static __always_inline int NODEPORT(leave)(struct __sk_buff *skb, struct CT(packet) *packet)
{
	if (!packet->l4.is_error && !l4_has_ports(packet->l4.protocol))
		return 0;
	if (NODEPORT(find_service)(skb, packet))
		return packet->reverse_bits & CT_BIT_DSR_INTERNAL ? DSR(answer)(skb, packet) : LB(reverse)(skb, packet);
	return packet->l4.is_error ? 0 : SNAT(keep_off)(skb, packet, 0);
}

#undef NODEPORT_WORDS
