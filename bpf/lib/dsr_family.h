/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Clients' packets that are answered directly, of one family, at the node that was asked and at the backend's;
 * nodeport4.h and nodeport6.h include this with what nodeport_family.h has, and
 *
 *   DSR(name)   dsr4_##name or dsr6_##name
 *   DSR(find), DSR(add)   functions: of the option
 *   NODEPORT_SNAT_MAP, DSR_REVERSE_NAT   maps
 */

#define DSR_WORDS(address) ((__be32 *)(void *)&(address))

/*
 * To a backend of another node: `packet` is translated, but is from its client, and says which service that asked, if
 * it has to. Returns 0 or a drop reason, or how long a packet may be that is too long. Makes packet pointers invalid.
 */
__noinline int DSR(prepare)(struct __sk_buff *skb, struct CT(packet) *packet)
{
	const struct LB(reverse_nat) *frontend;
	__u32 mtu = 0;
	__u16 rev_nat;

	if (!packet)
		return -DROP_NO_BACKEND;
	if (!dsr_is_told(&packet->l4))
		return 0;
	if (dsr_is_too_long(skb, sizeof(struct DSR(option)), &mtu))
		return mtu;
	rev_nat = packet->rev_nat;
	frontend = bpf_map_lookup_elem(&DSR_REVERSE_NAT, &rev_nat);
	return frontend ? DSR(add)(skb, frontend) : -DROP_NO_BACKEND;
}

/*
 * Whether a packet to this node, or to an endpoint of it, is of a flow that is to be answered directly. What its option
 * says is remembered for the answers. Returns 1, 0, or a drop reason.
 */
__noinline int DSR(received)(struct __sk_buff *skb, struct CT(packet) *packet)
{
	struct CT(key) key __attribute__((aligned(4)));
	struct DSR(option) option = {};
	const struct SNAT(value) *there;
	struct SNAT(value) value = {};

	if (!packet || !l4_has_ports(packet->l4.protocol))
		return 0;
	key = packet->key;
	LB(copy)(DSR_WORDS(key.saddr), DSR_WORDS(packet->key.daddr));
	LB(copy)(DSR_WORDS(key.daddr), DSR_WORDS(packet->key.saddr));
	key.flags = SNAT_FLAG_OUT;
	there = bpf_map_lookup_elem(&NODEPORT_SNAT_MAP, &key);
	if (there && there->needs_ct != SNAT_DSR)
		return 0;
	if (!dsr_is_told(&packet->l4))
		return there != NULL;
	if (!DSR(find)(skb, &option)) {
		/* The client has come to the backend itself, from the same port. */
		if (there)
			bpf_map_delete_elem(&NODEPORT_SNAT_MAP, &key);
		return 0;
	}
	if (there && there->last_used == packet->now && there->port == option.port &&
	    LB(equal)((__be32 *)(void *)&there->address, DSR_WORDS(option.address)))
		return 1;
	value.created = packet->now;
	value.last_used = packet->now;
	value.needs_ct = SNAT_DSR;
	LB(copy)(DSR_WORDS(value.address), DSR_WORDS(option.address));
	value.port = option.port;
	return bpf_map_update_elem(&NODEPORT_SNAT_MAP, &key, &value, BPF_ANY) ? -DROP_NO_MAPPING : 1;
}

#undef DSR_WORDS
