/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers that go to a client directly, of one family; dsr4.h and dsr6.h include this with
 *
 *   DSR(name), SNAT(name), LB(name), CT(name), NAT(name)   dsr4_##name or dsr6_##name, and so on
 *   SNAT_MAP   a map
 */

#define DSR_WORDS(address) ((__be32 *)(void *)&(address))

/* Which service a backend's answer, or an error of it, is from. Returns 0 when that is not known. */
static __noinline int DSR(frontend)(struct __sk_buff *skb, struct CT(packet) *packet,
				    struct LB(reverse_nat) *frontend)
{
	struct CT(key) key __attribute__((aligned(4)));
	const struct SNAT(value) *asked;

	if (packet->l4.is_error) {
		struct CT(key) quoted __attribute__((aligned(4)));

		/* What the error quotes came from the client. */
		if (CT(quoted)(skb, packet, &quoted))
			return 0;
		key = quoted;
		LB(copy)(DSR_WORDS(key.saddr), DSR_WORDS(quoted.daddr));
		LB(copy)(DSR_WORDS(key.daddr), DSR_WORDS(quoted.saddr));
	} else {
		key = packet->key;
		key.dport = packet->key.sport;
		key.sport = packet->key.dport;
	}
	key.flags = SNAT_FLAG_OUT;
	asked = bpf_map_lookup_elem(&SNAT_MAP, &key);
	if (!asked || asked->needs_ct != SNAT_DSR)
		return 0;
	LB(copy)(DSR_WORDS(frontend->address), (__be32 *)(void *)&asked->address);
	frontend->port = asked->port;
	return 1;
}

static __noinline int DSR(from)(struct __sk_buff *skb, struct CT(packet) *packet,
				const struct LB(reverse_nat) *frontend)
{
	return LB(from)(skb, packet, frontend);
}

/* What CT(track) found to be an answer, or an error, of such a flow: from the service again. Returns 0 or a drop reason. */
static __always_inline int DSR(answer)(struct __sk_buff *skb, struct CT(packet) *packet)
{
	struct LB(reverse_nat) frontend = {};

	if (!DSR(frontend)(skb, packet, &frontend))
		return 0;
	return DSR(from)(skb, packet, &frontend);
}

#undef DSR_WORDS
