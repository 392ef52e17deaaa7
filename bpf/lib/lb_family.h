/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services of one family; lb4.h and lb6.h include this with
 *
 *   LB(name), CT(name), NAT(name)   lb4_##name or lb6_##name, and so on
 *   LB_SERVICES, LB_BACKENDS, LB_REVERSE_NAT, LB_AFFINITY   maps
 *   LB_LOOPBACK   the address that an endpoint sees when it is its own backend
 *   LB(copy), LB(equal)   functions of addresses
 */

/* Keys are packed, but aligned to a word. */
#define LB_WORDS(address) ((__be32 *)(void *)&(address))

static __always_inline const struct LB(backend) *LB(backend_by_id)(__u32 id)
{
	return bpf_map_lookup_elem(&LB_BACKENDS, &id);
}

/* An endpoint that is its own backend has to send its answer out, so it must not see who asks. */
static __always_inline void LB(hide_loopback)(struct NAT(ends) *ends)
{
	const __be32 loopback[] = LB_LOOPBACK;

	LB(copy)(LB_WORDS(ends->saddr), loopback);
}

/* To the backend. */
static __always_inline int LB(translate)(struct ctx_frame *ctx, struct CT(packet) *packet,
					 const struct LB(backend) *backend, __u16 rev_nat)
{
	struct NAT(ends) ends;
	int result;

	LB(copy)(LB_WORDS(ends.saddr), LB_WORDS(packet->key.saddr));
	LB(copy)(LB_WORDS(ends.daddr), LB_WORDS(backend->address));
	ends.ports = (packet->l4.ports & 0xffff) | l4_port_second(backend->port);
	packet->rev_nat = rev_nat;
	packet->rev_bits = 0;
	if (LB(equal)(LB_WORDS(ends.saddr), LB_WORDS(ends.daddr))) {
		packet->rev_bits = CT_BIT_LB_LOOPBACK;
		LB(hide_loopback)(&ends);
	}
	result = NAT(rewrite)(ctx, packet, &ends);
	return result ? result : LB_TRANSLATED;
}

static __always_inline int LB(affinity_update)(const struct CT(packet) *packet, __u16 rev_nat, __u32 backend_id)
{
	struct lb_affinity_value value = { .last_used = packet->now, .backend_id = backend_id };
	struct LB(affinity_key) key = { .rev_nat = rev_nat };

	LB(copy)(LB_WORDS(key.client), LB_WORDS(packet->key.saddr));
	return bpf_map_update_elem(&LB_AFFINITY, &key, &value, BPF_ANY);
}

/* The backend that a client is kept at; 0 is none. */
static __always_inline __u32 LB(affinity_lookup)(const struct CT(packet) *packet, const struct lb_value *frontend)
{
	struct LB(affinity_key) key = { .rev_nat = frontend->rev_nat };
	const struct lb_affinity_value *value;

	LB(copy)(LB_WORDS(key.client), LB_WORDS(packet->key.saddr));
	value = bpf_map_lookup_elem(&LB_AFFINITY, &key);
	return value && lb_affinity_holds(value, frontend, packet->now) ? value->backend_id : 0;
}

/* `key` is that of the frontend, and lost afterwards. */
static __always_inline __u32 LB(any_backend)(struct LB(key) *key, const struct lb_value *frontend)
{
	const struct lb_value *slot;

	key->slot = bpf_get_prandom_u32() % frontend->count + 1;
	slot = bpf_map_lookup_elem(&LB_SERVICES, key);
	return slot ? slot->backend_id : 0;
}

/* The frontend for senders of this cluster. */
static __always_inline const struct lb_value *LB(frontend)(struct LB(key) *key, const struct CT(packet) *packet)
{
	const struct lb_value *frontend;

	LB(copy)(LB_WORDS(key->address), LB_WORDS(packet->key.daddr));
	key->port = packet->key.sport;
	key->protocol = packet->key.protocol;
	frontend = bpf_map_lookup_elem(&LB_SERVICES, key);
	if (frontend && frontend->flags2 & SERVICE_FLAG2_TWO_SCOPES) {
		key->scope = LB_SCOPE_INT;
		frontend = bpf_map_lookup_elem(&LB_SERVICES, key);
	}
	return frontend;
}

/* The key of a client's entry, from one that stands as in an answer of the service. */
static __always_inline struct ct_value *LB(kept)(struct CT(key) *key)
{
	key->flags = CT_FLAG_SERVICE;
	return CT(lookup)(key);
}

/* From now on the flow goes to the backend. */
static __always_inline int LB(keep)(struct ctx_frame *ctx, const struct event_scope *scope,
				    const struct CT(packet) *packet, const struct lb_value *frontend,
				    __u32 backend_id)
{
	struct CT(key) key __attribute__((aligned(4))) = packet->key;
	struct ct_value value = { .backend_id = backend_id, .rev_nat = frontend->rev_nat };

	ct_begin(&value, packet->l4.protocol, CT_EGRESS, scope->source_identity, packet->now, ctx_len(ctx));
	value.reserved1 = !!(frontend->flags & SERVICE_FLAG_AFFINITY);
	CT(flip)(&key);
	key.flags = CT_FLAG_SERVICE;
	if (key.protocol == IPPROTO_TCP)
		return bpf_map_update_elem(&CT_MAP_TCP, &key, &value, BPF_ANY);
	return bpf_map_update_elem(&CT_MAP_ANY, &key, &value, BPF_ANY);
}

/* A packet that begins a flow, to the backend that was chosen for it. */
static __always_inline int LB(to_backend)(struct ctx_frame *ctx, const struct event_scope *scope,
					  struct CT(packet) *packet, const struct lb_value *frontend, __u32 id)
{
	const struct LB(backend) *backend = LB(backend_by_id)(id);

	/* The agent writes backends first, then slots, then frontends. */
	if (!backend)
		return -DROP_NO_BACKEND;
	if (LB(keep)(ctx, scope, packet, frontend, id))
		return -DROP_CT_INSERT_FAILED;
	if (frontend->flags & SERVICE_FLAG_AFFINITY)
		LB(affinity_update)(packet, frontend->rev_nat, id);
	return LB(translate)(ctx, packet, backend, frontend->rev_nat);
}

/* A packet that begins a flow, or that may as well have. Out of line: rare. */
__noinline int LB(begin)(struct ctx_frame *ctx, const struct event_scope *scope, struct CT(packet) *packet)
{
	struct LB(key) key = {};
	const struct lb_value *frontend;
	__u32 id = 0;

	if (!scope || !packet)
		return -DROP_NO_BACKEND;
	frontend = LB(frontend)(&key, packet);
	if (!frontend)
		return LB_NONE;
	if (!frontend->count)
		return lb_no_backend(&packet->l4);
	if (frontend->flags & SERVICE_FLAG_AFFINITY)
		id = LB(affinity_lookup)(packet, frontend);
	if (!id)
		id = LB(any_backend)(&key, frontend);
	return LB(to_backend)(ctx, scope, packet, frontend, id);
}

/* A packet of a flow that is kept at a backend, which has to be there, and in use if the flow begins. */
__noinline int LB(go_on)(struct ctx_frame *ctx, struct CT(packet) *packet)
{
	struct CT(key) key __attribute__((aligned(4)));
	const struct LB(backend) *backend;
	struct ct_value *value;
	int due;

	if (!packet)
		return -DROP_NO_BACKEND;
	key = packet->key;
	CT(flip)(&key);
	value = LB(kept)(&key);
	if (!value)
		return LB_NONE;
	backend = LB(backend_by_id)(value->backend_id);
	if (!backend || (backend->state != BACKEND_ACTIVE && lb_is_syn(&packet->l4)))
		return LB_NONE;
	due = ct_is_due(value, packet->l4.protocol, packet->now);
	if (!lb_update(value, &packet->l4, packet->now, ctx_len(ctx)))
		return LB_NONE;
	if (unlikely(due && value->reserved1))
		LB(affinity_update)(packet, value->rev_nat, value->backend_id);
	return LB(translate)(ctx, packet, backend, value->rev_nat);
}

/*
 * An ICMP error of a client, about a packet that it was given as the service's: to the backend, as if about what
 * that has sent. Returns 0 or a drop reason.
 */
__noinline int LB(error)(struct ctx_frame *ctx, struct CT(packet) *packet)
{
	struct CT(key) key __attribute__((aligned(4)));
	const struct LB(backend) *backend;
	struct NAT(ends) outer, inner;
	struct ct_value *value;

	if (!packet || CT(quoted)(ctx, packet, &key) || !l4_has_ports(key.protocol))
		return 0;
	value = LB(kept)(&key);
	backend = value ? LB(backend_by_id)(value->backend_id) : NULL;
	if (!backend)
		return 0;
	LB(copy)(LB_WORDS(outer.saddr), LB_WORDS(packet->key.saddr));
	LB(copy)(LB_WORDS(outer.daddr), LB_WORDS(backend->address));
	if (LB(equal)(LB_WORDS(outer.saddr), LB_WORDS(outer.daddr)))
		LB(hide_loopback)(&outer);
	LB(copy)(LB_WORDS(inner.saddr), LB_WORDS(outer.daddr));
	LB(copy)(LB_WORDS(inner.daddr), LB_WORDS(outer.saddr));
	inner.ports = l4_port_first(backend->port) | l4_port_second(key.sport);
	return NAT(error)(ctx, packet, &outer, &inner);
}

/*
 * What leaves an endpoint, on a node with services: translated, if it is for one, and tracked as what it is then.
 * Returns CT_NEW … CT_RELATED, a drop reason, or -LB_REJECT. Makes packet pointers invalid.
 */
__noinline int LB(track)(struct ctx_frame *ctx, const struct event_scope *scope, struct CT(packet) *packet)
{
	int result, state;

	if (!scope || !packet)
		return -DROP_NO_BACKEND;
	if (!l4_has_ports(packet->l4.protocol)) {
		result = packet->l4.is_error ? LB(error)(ctx, packet) : 0;
		return result ? result : CT(track)(ctx, scope, packet, CT_EGRESS);
	}
	result = LB(go_on)(ctx, packet);
	if (result == LB_NONE) {
		state = CT(track)(ctx, scope, packet, CT_EGRESS | CT_OFFER);
		if (state != CT_OFFERED)
			return state;
		result = LB(begin)(ctx, scope, packet);
	}
	if (result < 0)
		return result;
	return CT(track)(ctx, scope, packet, CT_EGRESS);
}

/*
 * A packet that was translated, as its client sent it: for an error that quotes it. Returns 0 or a drop reason. Makes
 * packet pointers invalid.
 */
__noinline int LB(undo)(struct ctx_frame *ctx, struct CT(packet) *packet)
{
	const struct LB(reverse_nat) *frontend;
	struct NAT(ends) ends;
	__u16 rev_nat;

	if (!packet)
		return -DROP_NO_BACKEND;
	rev_nat = packet->rev_nat;
	frontend = rev_nat ? bpf_map_lookup_elem(&LB_REVERSE_NAT, &rev_nat) : NULL;
	if (!frontend)
		return 0;
	if (packet->rev_bits & CT_BIT_LB_LOOPBACK)
		LB(copy)(LB_WORDS(ends.saddr), LB_WORDS(packet->key.daddr));
	else
		LB(copy)(LB_WORDS(ends.saddr), LB_WORDS(packet->key.saddr));
	LB(copy)(LB_WORDS(ends.daddr), LB_WORDS(frontend->address));
	ends.ports = (packet->l4.ports & 0xffff) | l4_port_second(frontend->port);
	return NAT(rewrite)(ctx, packet, &ends);
}

/* Who an answer is from and for, once the service is put back. */
static __always_inline void LB(ends_of_answer)(struct NAT(ends) *ends, const struct CT(packet) *packet,
					       const struct LB(reverse_nat) *frontend)
{
	LB(copy)(LB_WORDS(ends->saddr), LB_WORDS(frontend->address));
	/* Its own backend: it answered whom it saw. */
	if (packet->reverse_bits & CT_BIT_LB_LOOPBACK)
		LB(copy)(LB_WORDS(ends->daddr), LB_WORDS(packet->key.saddr));
	else
		LB(copy)(LB_WORDS(ends->daddr), LB_WORDS(packet->key.daddr));
}

/* Out of line: for its stack. */
static __noinline int LB(quoted)(struct ctx_frame *ctx, struct CT(packet) *packet, struct CT(key) *key)
{
	return CT(quoted)(ctx, packet, key);
}

/* An error about what a client sent to a service. */
static __always_inline int LB(reverse_error)(struct ctx_frame *ctx, struct CT(packet) *packet,
					     const struct LB(reverse_nat) *frontend)
{
	struct CT(key) key __attribute__((aligned(4)));
	struct NAT(ends) outer, inner;

	if (LB(quoted)(ctx, packet, &key))
		return 0;
	LB(ends_of_answer)(&outer, packet, frontend);
	LB(copy)(LB_WORDS(inner.saddr), LB_WORDS(outer.daddr));
	LB(copy)(LB_WORDS(inner.daddr), LB_WORDS(outer.saddr));
	inner.ports = l4_port_first(key.dport) | l4_port_second(frontend->port);
	/* A router on the way is no part of the service. */
	if (!LB(equal)(LB_WORDS(packet->key.saddr), LB_WORDS(key.daddr)))
		LB(copy)(LB_WORDS(outer.saddr), LB_WORDS(packet->key.saddr));
	return NAT(error)(ctx, packet, &outer, &inner);
}

/* An answer or an error, from that service. */
static __always_inline int LB(from)(struct ctx_frame *ctx, struct CT(packet) *packet,
				    const struct LB(reverse_nat) *frontend)
{
	struct NAT(ends) ends;

	if (packet->l4.is_error)
		return LB(reverse_error)(ctx, packet, frontend);
	LB(ends_of_answer)(&ends, packet, frontend);
	ends.ports = l4_port_first(frontend->port) | (packet->l4.ports & 0xffff0000);
	return NAT(rewrite)(ctx, packet, &ends);
}

/*
 * A packet that CT(track) found to be an answer or an error of a service's flow: from the service again. Returns 0
 * or a drop reason. Makes packet pointers invalid.
 */
__noinline int LB(reverse)(struct ctx_frame *ctx, struct CT(packet) *packet)
{
	const struct LB(reverse_nat) *frontend;
	__u16 rev_nat;

	if (!packet)
		return -DROP_NO_BACKEND;
	/* Kernels before 6.4 take no key from where the caller's packet is. */
	rev_nat = packet->reverse;
	frontend = bpf_map_lookup_elem(&LB_REVERSE_NAT, &rev_nat);
	/* The service is gone: the client will not know the answer, but that is for it to say. */
	if (!frontend)
		return 0;
	return LB(from)(ctx, packet, frontend);
}

#undef LB_WORDS
