/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services in the socket: what is the same for both families. A client's socket is connected to the backend itself,
 * so its packets never have the service's address, and nothing is done for each of them.
 */
#ifndef CILIATE_SOCK_H
#define CILIATE_SOCK_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "ipcache.h"
#include "maps.h"

/* What a program of a socket returns: the call goes on, or it fails with what bpf_set_retval says. */
#define SOCK_PROCEED 1
#define SOCK_REFUSE 0

/* As <errno.h>, which needs a libc. */
#define ENOMEM 12
#define EADDRINUSE 98
#define EHOSTUNREACH 113

/* What became of an address: nothing, or it is a backend's. Errors are negative. */
#define SOCK_NONE 0
#define SOCK_TRANSLATED 1

/* Ports that every node has for services. Read-only once loaded. */
const volatile __u64 node_port_min = 30000;
const volatile __u64 node_port_max = 32767;

/* The network namespace that the node is in, of which loopback is the node's; 0 is the machine's first. */
const volatile __u64 host_netns_cookie = 0;

static __always_inline int sock_is_host_netns(__u64 cookie)
{
	return cookie == (host_netns_cookie ? host_netns_cookie : bpf_get_netns_cookie(NULL));
}

/* Who asks. */
struct sock_client {
	__u64 cookie;
	__u64 netns_cookie;
	__u8 protocol;
	__u8 in_host;
};

static __always_inline struct sock_client sock_client_of(struct bpf_sock_addr *ctx)
{
	struct sock_client client = {
		.cookie = bpf_get_socket_cookie(ctx),
		.netns_cookie = bpf_get_netns_cookie(ctx),
		.protocol = ctx->protocol,
	};

	client.in_host = sock_is_host_netns(client.netns_cookie);
	return client;
}

static __always_inline int sock_in_node_ports(__be16 port)
{
	__u16 number = bpf_ntohs(port);

	return number >= node_port_min && number <= node_port_max;
}

/* Of an entry for every address of every node: whether it is what the port may be used for. */
static __always_inline int sock_wildcard_fits(const struct lb_value *frontend, __be16 port)
{
	return frontend->flags & (sock_in_node_ports(port) ? SERVICE_FLAG_NODE_PORT : SERVICE_FLAG_HOST_PORT);
}

static __always_inline int sock_refuse(int error)
{
	bpf_set_retval(error);
	return SOCK_REFUSE;
}

#endif
