/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The backend of a packet from outside, of one family; frontend4.h and frontend6.h include this with
 *
 *   NODEPORT(name), LB(name), CT(name)   nodeport4_##name or nodeport6_##name, and so on
 *   LB_SERVICES, LB_SOURCE_RANGE   maps
 *   NODEPORT(hash), NODEPORT(identity)   functions
 */

#define NODEPORT_WORDS(address) ((__be32 *)(void *)&(address))

static __always_inline int NODEPORT(is_in_range)(const struct CT(packet) *packet, const struct lb_value *frontend)
{
	struct LB(source_range) key = {
		.prefix_len = SOURCE_RANGE_STATIC_BITS + sizeof(key.address) * 8,
		.rev_nat = frontend->rev_nat,
	};
	int listed;

	LB(copy)(NODEPORT_WORDS(key.address), (__be32 *)(void *)&packet->key.saddr);
	listed = bpf_map_lookup_elem(&LB_SOURCE_RANGE, &key) != NULL;
	return frontend->flags2 & SERVICE_FLAG2_SOURCE_RANGE_DENY ? !listed : listed;
}

static __always_inline __u32 NODEPORT(choose)(struct LB(key) *key, const struct CT(packet) *packet,
					      const struct lb_value *frontend)
{
	__u32 id = 0;

	if (frontend->flags & SERVICE_FLAG_AFFINITY)
		id = LB(affinity_lookup)(packet, frontend);
	if (!id && frontend->backend_id >> LB_ALGORITHM_SHIFT == LB_ALGORITHM_MAGLEV)
		id = maglev_backend(frontend->rev_nat,
				    NODEPORT(hash)(packet, frontend->flags & SERVICE_FLAG_AFFINITY));
	return id ? id : LB(any_backend)(key, frontend);
}

/* A packet that begins a client's flow, or that may as well have. */
static __noinline int NODEPORT(begin)(struct ctx_frame *ctx, const struct event_scope *scope,
				      struct CT(packet) *packet, struct LB(key) *key,
				      const struct lb_value *frontend)
{
	if (!frontend->count)
		return lb_no_backend(&packet->l4);
	return LB(to_backend)(ctx, scope, packet, frontend, NODEPORT(choose)(key, packet, frontend));
}

/*
 * A packet from outside: if it is for a service, to a backend of that. Returns LB_NONE, LB_TRANSLATED, a drop reason, or
 * -LB_REJECT. Makes packet pointers invalid.
 */
__noinline int NODEPORT(translate)(struct ctx_frame *ctx, struct event_scope *scope, struct CT(packet) *packet)
{
	struct LB(key) key = {};
	const struct lb_value *frontend;
	int result;

	if (!scope || !packet)
		return -DROP_NO_BACKEND;
	LB(copy)(NODEPORT_WORDS(key.address), NODEPORT_WORDS(packet->key.daddr));
	key.port = packet->key.sport;
	key.protocol = packet->key.protocol;
	frontend = bpf_map_lookup_elem(&LB_SERVICES, &key);
	if (!frontend)
		return LB_NONE;
	if (!(frontend->flags & SERVICE_FLAG_ROUTABLE))
		return -DROP_CLUSTER_IP;
	if (frontend->flags & SERVICE_FLAG_SOURCE_RANGE && !NODEPORT(is_in_range)(packet, frontend))
		return -DROP_SOURCE_RANGE;
	if (scope->source_identity == IDENTITY_UNKNOWN)
		scope->source_identity = NODEPORT(identity)(packet);
	result = LB(go_on)(ctx, packet);
	if (result == LB_NONE)
		result = NODEPORT(begin)(ctx, scope, packet, &key, frontend);
	packet->rev_bits |= CT_BIT_NODE_PORT;
	return result;
}

#undef NODEPORT_WORDS
