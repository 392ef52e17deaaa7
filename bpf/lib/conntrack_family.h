/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Conntrack of one family; conntrack4.h and conntrack6.h include this with
 *
 *   CT(name)          ct4_##name or ct6_##name
 *   CT_MAP_TCP, CT_MAP_ANY, CT_ICMP
 *   CT_DEBUG_LOOKUP_1, CT_DEBUG_LOOKUP_2, CT_DEBUG_CREATED
 *   CT(flip), CT(debug_address), CT(quoted)   functions
 */

/*
 * A packet as conntrack sees it. Of the key, addresses and ports are as in an answer to it, which is how its
 * own stand: see struct ct4_key.
 */
struct CT(packet) {
	struct CT(key) key __attribute__((aligned(4)));
	struct l4 l4;
	__u32 now;
	/* Of an ICMP error: where ports and the like of the packet begin that it quotes. */
	__u32 quoted_at;
	/* The service that the packet was sent to, and what else its entry is to say. */
	__u16 rev_nat;
	__u16 rev_bits;
	/* The service that the packet is an answer of, or an error of, and what else the entry says: from CT(track). */
	__u16 reverse;
	__u16 reverse_bits;
};

static __always_inline struct ct_value *CT(lookup)(const struct CT(key) *key)
{
	struct ct_value *value;

	if (key->protocol == IPPROTO_TCP) {
		value = bpf_map_lookup_elem(&CT_MAP_TCP, key);
		/* Or clang makes one call of the two, which the kernel cannot inline: it is not always of one map. */
		asm volatile("" : "+r"(value));
		return value;
	}
	return bpf_map_lookup_elem(&CT_MAP_ANY, key);
}

/* So that errors about the flow are found by addresses alone. One entry for all flows between the two. */
static __always_inline int CT(create_companion)(struct CT(key) *key, struct ct_value *value)
{
	struct ct_value *companion;

	key->sport = 0;
	key->dport = 0;
	key->protocol = CT_ICMP;
	key->flags |= CT_FLAG_RELATED;
	companion = bpf_map_lookup_elem(&CT_MAP_ANY, key);
	if (companion) {
		ct_extend(companion, value->lifetime);
		return 0;
	}
	value->bits |= CT_BIT_SEEN_NON_SYN;
	value->bits &= ~CT_BITS_OF_SERVICE;
	/* Some of the flows it stands for may be through services, others not. */
	value->rev_nat = 0;
	return bpf_map_update_elem(&CT_MAP_ANY, key, value, BPF_ANY);
}

/* Out of line: once in the life of a flow. `key` is that of its own direction, and lost afterwards. */
static __noinline int CT(create)(struct ctx_frame *ctx, const struct event_scope *scope, struct CT(key) *key,
				 const struct CT(packet) *packet, __u32 how)
{
	struct ct_value value = {};
	long failed;

	ct_begin(&value, packet->l4.protocol, how, scope->source_identity, packet->now, ctx_len(ctx));
	if (ct_tells_service(packet->rev_bits, how)) {
		value.rev_nat = packet->rev_nat;
		value.bits |= packet->rev_bits;
	}
	debug(ctx, scope, CT_DEBUG_CREATED, value.rev_nat << 16, scope->source_identity, 0);
	if (key->protocol == IPPROTO_TCP)
		failed = bpf_map_update_elem(&CT_MAP_TCP, key, &value, BPF_ANY);
	else
		failed = bpf_map_update_elem(&CT_MAP_ANY, key, &value, BPF_ANY);
	if (failed || (l4_has_ports(key->protocol) && CT(create_companion)(key, &value)))
		return -DROP_CT_INSERT_FAILED;
	return CT_NEW;
}

/*
 * An ICMP error: related when it is about a packet that conntrack knows, by what the error quotes or, if
 * that is cut off, by the addresses alone. Others are let pass as new, without an entry.
 */
static __noinline int CT(related)(struct ctx_frame *ctx, struct CT(packet) *packet, __u32 how)
{
	struct CT(key) key __attribute__((aligned(4)));
	struct ct_value *value;

	/* The quoted packet went the other way. */
	if (!CT(quoted)(ctx, packet, &key)) {
		key.flags = how & CT_INGRESS ? CT_FLAG_IN : CT_FLAG_OUT;
		if (CT(lookup)(&key))
			return CT_RELATED;
		CT(flip)(&key);
		value = CT(lookup)(&key);
		if (value) {
			/* Sent by who began the flow. */
			packet->reverse = value->rev_nat;
			packet->reverse_bits = value->bits;
			return CT_RELATED;
		}
	}
	key = packet->key;
	key.flags = CT_FLAG_RELATED | (how & CT_INGRESS ? CT_FLAG_OUT : CT_FLAG_IN);
	value = bpf_map_lookup_elem(&CT_MAP_ANY, &key);
	if (!value) {
		CT(flip)(&key);
		value = bpf_map_lookup_elem(&CT_MAP_ANY, &key);
	}
	if (!value)
		return CT_NEW;
	ct_extend(value, packet->now + ct_lifetime_other);
	return CT_RELATED;
}

/* The same ports, but through another service than before, or through none: answers come from there now. */
static __always_inline void CT(change_service)(struct ct_value *value, const struct CT(packet) *packet, __u32 how)
{
	if (ct_tells_service(packet->rev_bits, how)) {
		value->rev_nat = packet->rev_nat;
		value->bits = (value->bits & ~CT_BITS_OF_SERVICE) | packet->rev_bits;
	} else if (value->bits & CT_BIT_NODE_PORT) {
		value->rev_nat = 0;
		value->bits &= ~CT_BITS_OF_SERVICE;
	}
}

/*
 * Which flow a packet is of, and what it does to it. Returns CT_NEW … CT_RELATED or a drop reason. Out of
 * line: packets between two endpoints of a node come by twice. A global function: verified once.
 */
__noinline int CT(track)(struct ctx_frame *ctx, const struct event_scope *scope, struct CT(packet) *packet,
			 __u32 how)
{
	struct CT(key) key __attribute__((aligned(4)));
	struct ct_value *value;
	int state;

	if (!scope || !packet)
		return -DROP_CT_INVALID_HEADER;
	packet->reverse = 0;
	key = packet->key;
	key.flags = how & CT_INGRESS ? CT_FLAG_OUT : CT_FLAG_IN;
	debug(ctx, scope, CT_DEBUG_LOOKUP_1, CT(debug_address)(key.saddr), CT(debug_address)(key.daddr),
	      packet->l4.ports);
	debug(ctx, scope, CT_DEBUG_LOOKUP_2, key.protocol << 8 | key.flags, 0, 0);
	if (unlikely(packet->l4.is_error)) {
		state = CT(related)(ctx, packet, how);
		debug(ctx, scope, DEBUG_CT_VERDICT, state, 0, 0);
		return state;
	}
	/*
	 * No packet is of two flows, since a flow is begun where there is neither: so the likely one first.
	 * Who asks has the higher port.
	 */
	state = CT_REPLY;
	if (bpf_ntohs(key.dport) >= bpf_ntohs(key.sport)) {
		CT(flip)(&key);
		state = CT_ESTABLISHED;
	}
	value = CT(lookup)(&key);
	if (!value) {
		CT(flip)(&key);
		state ^= CT_REPLY ^ CT_ESTABLISHED;
		value = CT(lookup)(&key);
	}
	if (value) {
		debug(ctx, scope, DEBUG_CT_FOUND, value->lifetime, value->rev_nat, 0);
		if (how & CT_OFFER && state == CT_ESTABLISHED &&
		    ct_is_due(value, packet->l4.protocol, packet->now))
			return CT_OFFERED;
		if (ct_update(value, &packet->l4, how, packet->now, ctx_len(ctx))) {
			if (state == CT_REPLY) {
				packet->reverse = value->rev_nat;
				packet->reverse_bits = value->bits;
			} else if (unlikely(value->rev_nat != packet->rev_nat)) {
				CT(change_service)(value, packet, how);
			}
			debug(ctx, scope, DEBUG_CT_VERDICT, state, value->rev_nat, 0);
			return state;
		}
		/* Begun anew, and by the other side: the old flow must not answer for it. */
		if (state == CT_REPLY)
			bpf_map_delete_elem(&CT_MAP_TCP, &key);
	}
	if (how & CT_OFFER)
		return CT_OFFERED;
	if (state == CT_REPLY)
		CT(flip)(&key);
	debug(ctx, scope, DEBUG_CT_VERDICT, CT_NEW, 0, 0);
	return CT(create)(ctx, scope, &key, packet, how);
}
