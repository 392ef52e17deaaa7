/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows of one family from this node's address; snat4.h and snat6.h include this with
 *
 *   SNAT(name), LB(name), CT(name), NAT(name)   snat4_##name or snat6_##name, and so on
 *   SNAT_MAP, LB_REVERSE_NAT   maps
 *   TUPLE_LEN, SNAT(tuple)   for the lookup of a socket
 *   SNAT(address)   a function: the node's address
 *   SNAT_WAY_OUT   another: out of the node; where there is none, answers are left to the caller
 */

#define SNAT_WORDS(address) ((__be32 *)(void *)&(address))

/* Of a packet as its sender sent it. A packet's own key has its ports in the order of an answer. */
static __always_inline void SNAT(key_out)(struct CT(key) *key, const struct CT(packet) *packet)
{
	*key = packet->key;
	key->dport = packet->key.sport;
	key->sport = packet->key.dport;
	key->flags = SNAT_FLAG_OUT;
}

/* Of what comes back to an address and port of this node's. */
static __always_inline void SNAT(key_in)(struct CT(key) *key, const struct CT(packet) *packet,
					 const __be32 *address, __be16 port)
{
	LB(copy)(SNAT_WORDS(key->daddr), address);
	LB(copy)(SNAT_WORDS(key->saddr), (__be32 *)(void *)&packet->key.daddr);
	key->dport = port;
	key->sport = packet->key.sport;
	key->protocol = packet->key.protocol;
	key->flags = SNAT_FLAG_IN;
}

/* The conntrack entry of a client's flow, by what is kept for its answers, and its key. */
static __always_inline struct ct_value *SNAT(flow)(const struct CT(key) *in, const struct SNAT(value) *client)
{
	struct CT(key) key __attribute__((aligned(4))) = { .protocol = in->protocol, .flags = CT_FLAG_OUT };

	LB(copy)(SNAT_WORDS(key.daddr), (__be32 *)(void *)&client->address);
	LB(copy)(SNAT_WORDS(key.saddr), (__be32 *)(void *)&in->saddr);
	key.sport = client->port;
	key.dport = in->sport;
	return CT(lookup)(&key);
}

/* Whether a socket of this node gets what would come back. */
static __noinline int SNAT(is_of_socket)(struct ctx_frame *ctx, const struct CT(key) *in)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;

	SNAT(tuple)(&tuple, in);
	if (in->protocol == IPPROTO_TCP)
		socket = bpf_skc_lookup_tcp(ctx, &tuple, TUPLE_LEN, BPF_F_CURRENT_NETNS, 0);
	else
		socket = bpf_sk_lookup_udp(ctx, &tuple, TUPLE_LEN, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

/*
 * Whether a port that is taken is so no longer: its flow is over. What was left of that goes. Or it is the same flow's:
 * these maps make room by giving up entries one by one, and it was the other one that went.
 */
static __noinline int SNAT(is_over)(struct CT(key) *in, const struct SNAT(value) *wanted, __u32 now)
{
	const struct SNAT(value) *taken = bpf_map_lookup_elem(&SNAT_MAP, in);
	struct CT(key) out __attribute__((aligned(4)));
	const struct ct_value *flow;

	if (!taken)
		return 1;
	if (taken->needs_ct == wanted->needs_ct && taken->port == wanted->port &&
	    LB(equal)((__be32 *)(void *)&taken->address, (__be32 *)(void *)&wanted->address))
		return 1;
	flow = taken->needs_ct ? SNAT(flow)(in, taken) : NULL;
	if (flow && flow->lifetime > now)
		return 0;
	if (!taken->needs_ct && taken->last_used + snat_lifetime(in->protocol) > now)
		return 0;
	LB(copy)(SNAT_WORDS(out.daddr), SNAT_WORDS(in->saddr));
	LB(copy)(SNAT_WORDS(out.saddr), (__be32 *)(void *)&taken->address);
	out.dport = in->sport;
	out.sport = taken->port;
	out.protocol = in->protocol;
	out.flags = SNAT_FLAG_OUT;
	bpf_map_delete_elem(&SNAT_MAP, &out);
	return 1;
}

/* Takes a port for what comes back. Returns 0 when it is somebody else's. A global function: verified once. */
__noinline int SNAT(take)(struct ctx_frame *ctx, struct CT(packet) *packet, __be16 port, __u32 how)
{
	const struct underlay_value *underlay = underlay_lookup();
	const struct node_value *node = node_lookup();
	struct CT(key) key __attribute__((aligned(4)));
	struct SNAT(value) value = {};
	const __be32 *address;

	if (!packet || !underlay || !node)
		return 0;
	address = SNAT(address)(node, underlay, how);
	if (!address)
		return 0;
	SNAT(key_in)(&key, packet, address, port);
	/* A flow of the node's has a socket at its own port. */
	if (!(how & SNAT_OWN && port == packet->key.dport) && SNAT(is_of_socket)(ctx, &key))
		return 0;
	value.created = packet->now;
	value.last_used = packet->now;
	value.needs_ct = !(how & SNAT_OWN);
	LB(copy)(SNAT_WORDS(value.address), SNAT_WORDS(packet->key.saddr));
	value.port = packet->key.dport;
	if (!bpf_map_update_elem(&SNAT_MAP, &key, &value, BPF_NOEXIST))
		return 1;
	return SNAT(is_over)(&key, &value, packet->now) && !bpf_map_update_elem(&SNAT_MAP, &key, &value, BPF_ANY);
}

/* The sender's own port if it is one of the range, or any. Returns 0 when none was found. */
static __noinline __be16 SNAT(find)(struct ctx_frame *ctx, struct CT(packet) *packet,
				    const struct underlay_value *underlay, __u32 how)
{
	__be16 port = packet->key.dport;
	int tries;

	/* Its checksum is not to be had. */
	if (packet->key.protocol == IPPROTO_SCTP)
		return SNAT(take)(ctx, packet, port, how) ? port : 0;
	if (!snat_is_in_range(underlay, port))
		port = snat_scale(underlay, bpf_get_prandom_u32());
	for (tries = 0; tries < SNAT_TRIES; tries++) {
		if (SNAT(take)(ctx, packet, port, how))
			return port;
		port = snat_scale(underlay, tries ? bpf_ntohs(port) + 1 : bpf_get_prandom_u32());
	}
	return 0;
}

/*
 * What the flow goes by, if it does so already. Once a second it is made sure that what comes back is still known: these
 * maps make room by giving up entries one by one.
 */
static __noinline __be16 SNAT(known)(struct CT(packet) *packet, const __be32 *address)
{
	struct CT(key) key __attribute__((aligned(4)));
	struct SNAT(value) *out, *in;
	__be16 port;

	SNAT(key_out)(&key, packet);
	out = bpf_map_lookup_elem(&SNAT_MAP, &key);
	/* The node may have got another address. */
	if (!out || !LB(equal)(SNAT_WORDS(out->address), address))
		return 0;
	port = out->port;
	if (out->last_used == packet->now)
		return port;
	SNAT(key_in)(&key, packet, address, port);
	in = bpf_map_lookup_elem(&SNAT_MAP, &key);
	if (!in || in->port != packet->key.dport ||
	    !LB(equal)(SNAT_WORDS(in->address), SNAT_WORDS(packet->key.saddr)))
		return 0;
	in->last_used = out->last_used = packet->now;
	return port;
}

/* From now on the flow goes by that port. */
static __noinline int SNAT(keep)(const struct CT(packet) *packet, const __be32 *address, __be16 port, __u32 how)
{
	struct SNAT(value) value = { .created = packet->now, .last_used = packet->now, .port = port };
	struct CT(key) key __attribute__((aligned(4)));

	SNAT(key_out)(&key, packet);
	value.needs_ct = !(how & SNAT_OWN);
	LB(copy)(SNAT_WORDS(value.address), address);
	return bpf_map_update_elem(&SNAT_MAP, &key, &value, BPF_ANY);
}

static __noinline int SNAT(apply)(struct ctx_frame *ctx, struct CT(packet) *packet, const __be32 *address,
				  __be16 port)
{
	struct NAT(ends) ends;

	LB(copy)(SNAT_WORDS(ends.saddr), address);
	LB(copy)(SNAT_WORDS(ends.daddr), SNAT_WORDS(packet->key.daddr));
	ends.ports = l4_port_first(port) | (packet->l4.ports & 0xffff0000);
	return NAT(rewrite)(ctx, packet, &ends);
}

/*
 * To be from this node. Returns 0 or a drop reason. Makes packet pointers invalid. In steps, each out of line: together
 * they have no room on the stack.
 */
__noinline int SNAT(source)(struct ctx_frame *ctx, struct CT(packet) *packet, __u32 how)
{
	const struct underlay_value *underlay = underlay_lookup();
	const struct node_value *node = node_lookup();
	const __be32 *address;
	__be16 port;

	if (!packet || !underlay || !node)
		return -DROP_NO_MAPPING;
	address = SNAT(address)(node, underlay, how);
	if (!address)
		return -DROP_NO_MAPPING;
	port = SNAT(known)(packet, address);
	if (!port) {
		port = SNAT(find)(ctx, packet, underlay, how);
		if (!port)
			return -DROP_NO_MAPPING;
		if (SNAT(keep)(packet, address, port, how))
			return -DROP_NO_MAPPING;
	}
	if (how & SNAT_OWN && port == packet->key.dport)
		return 0;
	return SNAT(apply)(ctx, packet, address, port);
}

/* A flow that may be this node's own: off the ports of clients' flows. Returns 0 or a drop reason. */
static __always_inline int SNAT(keep_off)(struct ctx_frame *ctx, struct CT(packet) *packet, __u32 how)
{
	const struct underlay_value *underlay = underlay_lookup();
	const struct node_value *node = node_lookup();
	const __be32 *address;

	if (!underlay || !node || !l4_has_ports(packet->l4.protocol) || packet->l4.protocol == IPPROTO_SCTP ||
	    !snat_is_in_range(underlay, packet->key.dport))
		return 0;
	address = SNAT(address)(node, underlay, how);
	if (!address || !LB(equal)(SNAT_WORDS(packet->key.saddr), address))
		return 0;
	return SNAT(source)(ctx, packet, how | SNAT_OWN);
}

/* Who a client of a service asked. NULL when that is not known any more. */
static __always_inline const struct LB(reverse_nat) *SNAT(frontend)(const struct ct_value *flow)
{
	__u16 rev_nat;

	if (!flow)
		return NULL;
	rev_nat = flow->rev_nat;
	return bpf_map_lookup_elem(&LB_REVERSE_NAT, &rev_nat);
}

/* A packet to this node: an answer to what it sent for a client is that client's, and from the service. */
__noinline int SNAT(reply)(struct ctx_frame *ctx, struct CT(packet) *packet)
{
	const struct LB(reverse_nat) *frontend;
	struct CT(key) key __attribute__((aligned(4)));
	const struct SNAT(value) *to;
	struct ct_value *flow;
	struct NAT(ends) ends;
	int result;

	if (!packet)
		return -DROP_NO_MAPPING;
	SNAT(key_out)(&key, packet);
	key.flags = SNAT_FLAG_IN;
	to = bpf_map_lookup_elem(&SNAT_MAP, &key);
	if (!to || (!to->needs_ct && to->port == packet->key.sport))
		return SNAT_NONE;
	LB(copy)(SNAT_WORDS(ends.saddr), SNAT_WORDS(packet->key.saddr));
	LB(copy)(SNAT_WORDS(ends.daddr), (__be32 *)(void *)&to->address);
	ends.ports = (packet->l4.ports & 0xffff) | l4_port_second(to->port);
	if (!to->needs_ct) {
		result = NAT(rewrite)(ctx, packet, &ends);
		return result ? result : SNAT_TO_NODE;
	}
	flow = SNAT(flow)(&key, to);
	frontend = SNAT(frontend)(flow);
	if (!flow || !frontend)
		return -DROP_NO_MAPPING;
	ct_update(flow, &packet->l4, CT_INGRESS, packet->now, ctx_len(ctx));
	LB(copy)(SNAT_WORDS(ends.saddr), (__be32 *)(void *)&frontend->address);
	ends.ports = l4_port_first(frontend->port) | l4_port_second(to->port);
	result = NAT(rewrite)(ctx, packet, &ends);
	return result ? result : SNAT_TO_CLIENT;
}

/* The same with an ICMP error about what this node sent. */
__noinline int SNAT(reply_error)(struct ctx_frame *ctx, struct CT(packet) *packet)
{
	const struct LB(reverse_nat) *frontend;
	struct CT(key) key __attribute__((aligned(4)));
	struct NAT(ends) outer, inner;
	const struct SNAT(value) *to;
	int result;

	if (!packet || CT(quoted)(ctx, packet, &key) || !l4_has_ports(key.protocol))
		return SNAT_NONE;
	/* The quoted packet is from this node: of it, the addresses as in an answer, and the ports are so already. */
	LB(copy)(SNAT_WORDS(outer.saddr), SNAT_WORDS(key.daddr));
	LB(copy)(SNAT_WORDS(key.daddr), SNAT_WORDS(key.saddr));
	LB(copy)(SNAT_WORDS(key.saddr), SNAT_WORDS(outer.saddr));
	key.flags = SNAT_FLAG_IN;
	to = bpf_map_lookup_elem(&SNAT_MAP, &key);
	if (!to || (!to->needs_ct && to->port == key.dport))
		return SNAT_NONE;
	LB(copy)(SNAT_WORDS(outer.daddr), (__be32 *)(void *)&to->address);
	LB(copy)(SNAT_WORDS(inner.saddr), SNAT_WORDS(outer.daddr));
	LB(copy)(SNAT_WORDS(inner.daddr), SNAT_WORDS(key.saddr));
	inner.ports = l4_port_first(to->port) | l4_port_second(key.sport);
	if (to->needs_ct) {
		frontend = SNAT(frontend)(SNAT(flow)(&key, to));
		if (!frontend)
			return -DROP_NO_MAPPING;
		LB(copy)(SNAT_WORDS(outer.saddr), (__be32 *)(void *)&frontend->address);
		LB(copy)(SNAT_WORDS(inner.daddr), (__be32 *)(void *)&frontend->address);
		inner.ports = l4_port_first(to->port) | l4_port_second(frontend->port);
	}
	/* A router on the way is no part of the service. */
	if (!LB(equal)(SNAT_WORDS(packet->key.saddr), SNAT_WORDS(key.saddr)))
		LB(copy)(SNAT_WORDS(outer.saddr), SNAT_WORDS(packet->key.saddr));
	result = to->needs_ct ? SNAT_TO_CLIENT : SNAT_TO_NODE;
	if (NAT(error)(ctx, packet, &outer, &inner))
		return -DROP_L4_CHECKSUM;
	return result;
}

#ifdef SNAT_WAY_OUT

/* What comes to this node may be for a client. TC_ACT_UNSPEC: it is for the node. */
static __noinline int SNAT(returned)(struct ctx_frame *ctx, struct event_scope *scope, struct CT(packet) *packet)
{
	int result = SNAT_NONE;

	if (packet->l4.is_error)
		result = SNAT(reply_error)(ctx, packet);
	else if (l4_has_ports(packet->l4.protocol))
		result = SNAT(reply)(ctx, packet);
	if (result < 0)
		return drop(ctx, scope, -result, DIRECTION_INGRESS);
	if (result != SNAT_TO_CLIENT)
		return TC_ACT_UNSPEC;
	return SNAT_WAY_OUT(ctx, scope, CT_REPLY, WAY_OUT_HOP);
}

#endif

#undef SNAT_WORDS
