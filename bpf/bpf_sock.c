/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs of sockets, attached to a control group: services for this host's processes.
 *
 * cil_sock4_connect, _sendmsg      to a service: the socket is connected, or the datagram sent, to a backend.
 * cil_sock4_recvmsg, _getpeername  from a backend: as if from the service.
 * cil_sock4_post_bind              to a port of the node that is a service's: refused.
 * cil_sock_release                 the end of a socket.
 *
 * The same with 6, also for IPv4 by sockets of IPv6.
 */
#include "lib/sock4.h"
#include "lib/sock6.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline struct sock4_end end4_of(const struct bpf_sock_addr *ctx)
{
	return (struct sock4_end){ .address = { ctx->user_ip4 }, .port = ctx->user_port };
}

static __always_inline struct sock6_end end6_of(const struct bpf_sock_addr *ctx)
{
	return (struct sock6_end){
		.address = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
		.port = ctx->user_port,
	};
}

static __always_inline void set_end4(struct bpf_sock_addr *ctx, const struct sock4_end *end)
{
	ctx->user_ip4 = end->address[0];
	ctx->user_port = end->port;
}

static __always_inline void set_end6(struct bpf_sock_addr *ctx, const struct sock6_end *end)
{
	ctx->user_ip6[0] = end->address[0];
	ctx->user_ip6[1] = end->address[1];
	ctx->user_ip6[2] = end->address[2];
	ctx->user_ip6[3] = end->address[3];
	ctx->user_port = end->port;
}

static __always_inline int to_backend4(struct bpf_sock_addr *ctx)
{
	struct sock_client client = sock_client_of(ctx);
	struct sock4_end end = end4_of(ctx);
	int result = sock4_translate(&client, &end);

	if (result < 0)
		return sock_refuse(result);
	if (result == SOCK_TRANSLATED)
		set_end4(ctx, &end);
	return SOCK_PROCEED;
}

static __always_inline int to_backend6(struct bpf_sock_addr *ctx)
{
	struct sock_client client = sock_client_of(ctx);
	struct sock6_end end = end6_of(ctx);
	int result;

	if (sock6_is_mapped(end.address)) {
		struct sock4_end end4 = { .address = { end.address[3] }, .port = end.port };

		result = sock4_translate(&client, &end4);
		end.address[3] = end4.address[0];
		end.port = end4.port;
	} else {
		result = sock6_translate(&client, &end);
	}
	if (result < 0)
		return sock_refuse(result);
	if (result == SOCK_TRANSLATED)
		set_end6(ctx, &end);
	return SOCK_PROCEED;
}

static __always_inline int from_service4(struct bpf_sock_addr *ctx)
{
	struct sock4_end end = end4_of(ctx);

	if (sock4_put_back(bpf_get_socket_cookie(ctx), &end) == SOCK_TRANSLATED)
		set_end4(ctx, &end);
	return SOCK_PROCEED;
}

static __always_inline int from_service6(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct sock6_end end = end6_of(ctx);
	int result;

	if (sock6_is_mapped(end.address)) {
		struct sock4_end end4 = { .address = { end.address[3] }, .port = end.port };

		result = sock4_put_back(cookie, &end4);
		end.address[3] = end4.address[0];
		end.port = end4.port;
	} else {
		result = sock6_put_back(cookie, &end);
	}
	if (result == SOCK_TRANSLATED)
		set_end6(ctx, &end);
	return SOCK_PROCEED;
}

SEC("cgroup/connect4")
int cil_sock4_connect(struct bpf_sock_addr *ctx)
{
	return to_backend4(ctx);
}

SEC("cgroup/connect6")
int cil_sock6_connect(struct bpf_sock_addr *ctx)
{
	return to_backend6(ctx);
}

SEC("cgroup/sendmsg4")
int cil_sock4_sendmsg(struct bpf_sock_addr *ctx)
{
	return to_backend4(ctx);
}

SEC("cgroup/sendmsg6")
int cil_sock6_sendmsg(struct bpf_sock_addr *ctx)
{
	return to_backend6(ctx);
}

SEC("cgroup/recvmsg4")
int cil_sock4_recvmsg(struct bpf_sock_addr *ctx)
{
	return from_service4(ctx);
}

SEC("cgroup/recvmsg6")
int cil_sock6_recvmsg(struct bpf_sock_addr *ctx)
{
	return from_service6(ctx);
}

SEC("cgroup/getpeername4")
int cil_sock4_getpeername(struct bpf_sock_addr *ctx)
{
	return from_service4(ctx);
}

SEC("cgroup/getpeername6")
int cil_sock6_getpeername(struct bpf_sock_addr *ctx)
{
	return from_service6(ctx);
}

/* Other namespaces have ports of their own. */
static __always_inline struct sock_client binder_of(struct bpf_sock *ctx)
{
	struct sock_client client = { .netns_cookie = bpf_get_netns_cookie(ctx), .protocol = ctx->protocol };

	client.in_host = sock_is_host_netns(client.netns_cookie);
	return client;
}

SEC("cgroup/post_bind4")
int cil_sock4_post_bind(struct bpf_sock *ctx)
{
	struct sock4_end end = { .address = { ctx->src_ip4 }, .port = bpf_htons(ctx->src_port) };
	struct sock_client client = binder_of(ctx);

	if (!client.in_host || sock4_may_bind(&client, &end))
		return SOCK_PROCEED;
	return sock_refuse(-EADDRINUSE);
}

SEC("cgroup/post_bind6")
int cil_sock6_post_bind(struct bpf_sock *ctx)
{
	struct sock6_end end = {
		.address = { ctx->src_ip6[0], ctx->src_ip6[1], ctx->src_ip6[2], ctx->src_ip6[3] },
		.port = bpf_htons(ctx->src_port),
	};
	struct sock4_end end4 = { .address = { end.address[3] }, .port = end.port };
	struct sock_client client = binder_of(ctx);

	if (!client.in_host)
		return SOCK_PROCEED;
	if (sock6_is_mapped(end.address) ? sock4_may_bind(&client, &end4) : sock6_may_bind(&client, &end))
		return SOCK_PROCEED;
	return sock_refuse(-EADDRINUSE);
}

SEC("cgroup/sock_release")
int cil_sock_release(struct bpf_sock *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct sock6_end end6 = { .port = ctx->dst_port };
	struct sock4_end end4 = { .port = ctx->dst_port };

	end4.address[0] = ctx->dst_ip4;
	sock4_forget(cookie, &end4);
	end6.address[0] = ctx->dst_ip6[0];
	end6.address[1] = ctx->dst_ip6[1];
	end6.address[2] = ctx->dst_ip6[2];
	end6.address[3] = ctx->dst_ip6[3];
	if (sock6_is_mapped(end6.address)) {
		end4.address[0] = end6.address[3];
		sock4_forget(cookie, &end4);
	} else {
		sock6_forget(cookie, &end6);
	}
	return SOCK_PROCEED;
}
