/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services in the socket, of one family; sock4.h and sock6.h include this with
 *
 *   SK(name), LB(name)   sock4_##name or sock6_##name, and lb4_##name or lb6_##name
 *   SK_SERVICES, SK_BACKENDS, SK_AFFINITY, SK_REVERSE   maps
 *   SK(copy), SK(is_loopback), SK(identity)   functions of addresses
 */

#define SK_WORDS(address) ((__be32 *)(void *)&(address))

/* Where a socket is, or wants to be, connected to. */
struct SK(end) {
	__be32 address[SK_ADDRESS_WORDS];
	__be16 port;
	__u16 pad;
};

/* The address is one of a node's: of this one, or with `remote` of any. */
static __always_inline int SK(is_of_node)(const __be32 *address, const struct sock_client *client, int remote)
{
	__u32 identity;

	if (client->in_host && SK(is_loopback)(address))
		return 1;
	identity = SK(identity)(address);
	return identity == IDENTITY_HOST || (remote && identity_is_remote_node(identity));
}

/*
 * The frontend, for senders of this cluster. What every node has is entered once, for address 0, which nobody
 * can connect to. `key` becomes that of the entry that is found.
 */
static __always_inline const struct lb_value *SK(frontend)(struct LB(key) *key, const struct sock_client *client,
							   int remote)
{
	const __be32 nowhere[SK_ADDRESS_WORDS] = {};
	const struct lb_value *frontend = bpf_map_lookup_elem(&SK_SERVICES, key);

	if (!frontend) {
		if (!SK(is_of_node)(SK_WORDS(key->address), client, remote))
			return NULL;
		SK(copy)(SK_WORDS(key->address), nowhere);
		frontend = bpf_map_lookup_elem(&SK_SERVICES, key);
		if (!frontend || !sock_wildcard_fits(frontend, key->port))
			return NULL;
	}
	if (frontend->flags2 & SERVICE_FLAG2_TWO_SCOPES) {
		key->scope = LB_SCOPE_INT;
		frontend = bpf_map_lookup_elem(&SK_SERVICES, key);
	}
	return frontend;
}

/* Addresses from outside, and ports of one host, are translated where that host is. */
static __always_inline int SK(is_elsewhere)(const struct lb_value *frontend, const __be32 *address)
{
	if (!(frontend->flags & SERVICE_FLAG_EXTERNAL_IP) &&
	    (!(frontend->flags & SERVICE_FLAG_HOST_PORT) || SK(is_loopback)(address)))
		return 0;
	return SK(identity)(address) != IDENTITY_HOST;
}

static __always_inline struct LB(affinity_key) SK(affinity_key)(const struct sock_client *client, __u16 rev_nat)
{
	struct LB(affinity_key) key = { .rev_nat = rev_nat, .is_cookie = 1 };

	*(__u64 *)&key.client = client->netns_cookie;
	return key;
}

/* The backend that all sockets of the namespace are kept at; 0 is none. */
static __always_inline __u32 SK(affinity_lookup)(const struct sock_client *client, const struct lb_value *frontend,
						 __u32 now)
{
	struct LB(affinity_key) key = SK(affinity_key)(client, frontend->rev_nat);
	const struct lb_affinity_value *value = bpf_map_lookup_elem(&SK_AFFINITY, &key);

	return value && lb_affinity_holds(value, frontend, now) ? value->backend_id : 0;
}

/* One that a datagram's socket always gets, or any. `key` is lost afterwards. */
static __always_inline __u32 SK(any_backend)(struct LB(key) *key, const struct sock_client *client,
					     const struct lb_value *frontend)
{
	__u64 number = client->protocol == IPPROTO_UDP ? client->cookie : bpf_get_prandom_u32();
	const struct lb_value *slot;

	key->slot = number % frontend->count + 1;
	slot = bpf_map_lookup_elem(&SK_SERVICES, key);
	return slot ? slot->backend_id : 0;
}

/* So that the socket can be told whom it is connected to, or whom a datagram is from. */
static __always_inline long SK(remember)(const struct sock_client *client, const struct SK(end) *end,
					 const struct LB(backend) *backend, __u16 rev_nat)
{
	struct LB(reverse_sk_key) key = { .cookie = client->cookie, .port = backend->port };
	struct LB(reverse_sk_value) value = { .port = end->port, .rev_nat = rev_nat };

	SK(copy)(SK_WORDS(key.address), SK_WORDS(backend->address));
	SK(copy)(SK_WORDS(value.address), end->address);
	return bpf_map_update_elem(&SK_REVERSE, &key, &value, BPF_ANY);
}

/* From the service to a backend. Returns SOCK_NONE, SOCK_TRANSLATED or an error. */
static __always_inline int SK(translate)(const struct sock_client *client, struct SK(end) *end)
{
	struct LB(key) key = { .port = end->port, .protocol = client->protocol };
	__u32 id = 0, now = bpf_ktime_get_coarse_ns() / 1000000000ULL;
	const struct LB(backend) *backend;
	const struct lb_value *frontend;

	SK(copy)(SK_WORDS(key.address), end->address);
	frontend = SK(frontend)(&key, client, 1);
	if (!frontend || SK(is_elsewhere)(frontend, end->address))
		return SOCK_NONE;
	if (!frontend->count)
		return -EHOSTUNREACH;
	if (frontend->flags & SERVICE_FLAG_AFFINITY)
		id = SK(affinity_lookup)(client, frontend, now);
	if (!id)
		id = SK(any_backend)(&key, client, frontend);
	backend = bpf_map_lookup_elem(&SK_BACKENDS, &id);
	if (!backend)
		return -EHOSTUNREACH;
	if (frontend->flags & SERVICE_FLAG_AFFINITY) {
		struct LB(affinity_key) kept = SK(affinity_key)(client, frontend->rev_nat);
		struct lb_affinity_value value = { .last_used = now, .backend_id = id };

		bpf_map_update_elem(&SK_AFFINITY, &kept, &value, BPF_ANY);
	}
	if (SK(remember)(client, end, backend, frontend->rev_nat))
		return -ENOMEM;
	SK(copy)(end->address, SK_WORDS(backend->address));
	end->port = backend->port;
	return SOCK_TRANSLATED;
}

/* From a backend to the service that the socket asked for. */
static __always_inline int SK(put_back)(__u64 cookie, struct SK(end) *end)
{
	struct LB(reverse_sk_key) key = { .cookie = cookie, .port = end->port };
	const struct LB(reverse_sk_value) *value;

	SK(copy)(SK_WORDS(key.address), end->address);
	value = bpf_map_lookup_elem(&SK_REVERSE, &key);
	if (!value)
		return SOCK_NONE;
	SK(copy)(end->address, SK_WORDS(value->address));
	end->port = value->port;
	return SOCK_TRANSLATED;
}

/* Nobody else may take a port at which the node has a service. */
static __always_inline int SK(may_bind)(const struct sock_client *client, const struct SK(end) *end)
{
	struct LB(key) key = { .port = end->port, .protocol = client->protocol };
	const struct lb_value *frontend;

	SK(copy)(SK_WORDS(key.address), end->address);
	frontend = SK(frontend)(&key, client, 0);
	return !frontend || !(frontend->flags & (SERVICE_FLAG_NODE_PORT | SERVICE_FLAG_EXTERNAL_IP |
						 SERVICE_FLAG_LOAD_BALANCER));
}

static __always_inline void SK(forget)(__u64 cookie, const struct SK(end) *end)
{
	struct LB(reverse_sk_key) key = { .cookie = cookie, .port = end->port };

	SK(copy)(SK_WORDS(key.address), end->address);
	bpf_map_delete_elem(&SK_REVERSE, &key);
}

#undef SK_WORDS
