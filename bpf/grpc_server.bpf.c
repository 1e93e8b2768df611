/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Requests that google.golang.org/grpc serves, over its own HTTP/2 or through net/http
 * (Server.ServeHTTP). Each is handled in one goroutine from its start to its end; a goroutine of
 * grpc.NumStreamWorkers serves many of them, one after another.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "records.h"
#include "traceparent.h"
#include "registers.bpf.h"
#include "loop.bpf.h"
#include "gomemory.bpf.h"
#include "pidns.bpf.h"
#include "state.bpf.h"
#include "site.bpf.h"
#include "requests.bpf.h"
#include "headers.bpf.h"
#include "parent.bpf.h"
#include "address.bpf.h"
#include "grpc.bpf.h"

enum { MAX_METADATA_HOPS = 32 }; /* contexts around the one with the metadata: those of stats handlers */

struct metadata_walk {
	struct target *target;
	struct go_iface context;
	uint64_t map;
	bool unreadable;
};

/* The metadata that came in are the value of a context.WithValue (metadata.NewIncomingContext). */
static __noinline long next_metadata(uint32_t index, void *data)
{
	struct metadata_walk *walk = data;
	struct grpc_layout *layout = &walk->target->grpc;
	struct go_iface value;

	if (!walk->context.itab || !walk->context.data)
		return 1;
	if (has_type(walk->context.itab, layout->type_value_ctx, &layout->itab_value_ctx)) {
		value = read_iface(walk->context.data + layout->value_ctx_val);
		if (value.itab == layout->type_metadata) { /* of an empty interface: the type itself */
			walk->map = value.data;
			return 1;
		}
	}
	return !enter_parent(walk->target->incarnation, &walk->context, &walk->unreadable);
}

static __noinline enum field_state find_incoming(struct target *target, struct request_state *server,
						 const struct go_iface *context)
{
	struct metadata_walk walk = {};

	if (!target || !server || !context)
		return FIELD_UNSURE;
	walk.target = target;
	walk.context = *context;
	repeat(MAX_METADATA_HOPS, next_metadata, &walk);
	/* There always are some: content-type is among them. */
	return walk.map ? find_traceparent(target, walk.map, server, &server->incoming) : FIELD_UNSURE;
}

/* Served through net/http, the request has an entry there already: this one replaces its span. */
static __noinline int replace_http(const struct here *here, const struct go_iface *context)
{
	struct context_walk walk = {};
	struct request_state *server;

	if (!here || !context)
		return 0;
	walk.target = here->target;
	walk.context = *context;
	repeat(MAX_HOPS, next_context, &walk);
	server = walk.goid ? find_request(here, &servers, walk.goid) : 0;
	if (server && *(volatile uint64_t *)&server->serial == walk.serial)
		server->replaced = 1;
	return 0;
}

static inline void forget_stream(const struct here *here, struct request_state *server)
{
	struct address_key key = {.incarnation = here->target->incarnation, .address = server->context};

	bpf_map_delete_elem(&contexts, &key);
	server->serial = 0;
	drop_request(here, &servers);
}

/*
 * func (s *Server) handleStream(t transport.ServerTransport, stream *transport.ServerStream)
 * Registers 0 s, 1 and 2 t, 3 stream (up to grpc 1.66 a *transport.Stream). At the function's beginning,
 * so once more where the stack has to grow.
 */
static __noinline int start_stream(const struct here *here, struct pt_regs *regs)
{
	struct target *target = here->target;
	struct grpc_layout *layout = &target->grpc;
	uint64_t stream = go_register(regs, 3), common = common_stream(stream, layout->server_common);
	struct address_key key = {.incarnation = target->incarnation};
	struct request_ref ref = {.goid = here->goid, .users = 1};
	struct request_state *server;
	struct go_iface context;
	struct go_string method;
	enum field_state field;
	bool own_http2;

	server = find_request(here, &servers, here->goid);
	if (server && server->request == stream)
		return 0;
	if (server) { /* its end was missed */
		forget_stream(here, server);
		count(here, COUNT_ABANDONED);
	}
	context = read_iface(common + layout->server_context);
	if (!common || !context.data) {
		count(here, COUNT_MEMORY_UNREADABLE);
		return 0;
	}
	server = new_request(here, &servers);
	if (!server)
		return 0;
	server->span.start_ns = bpf_ktime_get_ns();
	server->span.kind = SPAN_SERVER;
	server->span.protocol = PROTOCOL_GRPC;
	server->span.incarnation = target->incarnation;
	server->span.goid = here->goid;
	server->request = stream;
	server->context = context.data;
	own_http2 = has_type(go_register(regs, 1), layout->type_http2_server, &layout->itab_http2_server);
	if (!own_http2 &&
	    has_type(go_register(regs, 1), layout->type_handler_transport, &layout->itab_handler_transport))
		replace_http(here, &context);

	field = find_incoming(target, server, &context);
	if (field == FIELD_VALID) {
		server->has_incoming = 1;
		__builtin_memcpy(server->span.trace_id, server->incoming.trace_id, 16);
		__builtin_memcpy(server->span.parent_span_id, &server->incoming.span_id, 8);
		server->span.trace_flags = server->incoming.flags & FLAGS_DEFINED;
		server->span.parent_remote = 1;
	} else {
		uint64_t trace[2] = {random_id(), random_id()};

		if (field == FIELD_INVALID)
			count(here, COUNT_INCOMING_INVALID);
		else if (field == FIELD_UNSURE)
			count(here, COUNT_INCOMING_UNREADABLE);
		count(here, COUNT_NEW_TRACE);
		__builtin_memcpy(server->span.trace_id, trace, 16);
		server->span.trace_flags = FLAG_SAMPLED | FLAG_RANDOM;
	}
	ref.serial = random_id();
	__builtin_memcpy(server->span.span_id, &ref.serial, 8);

	method = read_string(common + layout->server_method);
	server->span.path_len = keep_string(method, server->span.path, KEEP_PATH, server->span.truncated);
	if (own_http2 && layout->server_peer != FIELD_ABSENT)
		read_net_addrs(target, go_register(regs, 2) + layout->server_local,
			       go_register(regs, 2) + layout->server_peer, server);

	asm volatile("" ::: "memory");
	*(volatile uint64_t *)&server->serial = ref.serial;
	key.address = server->context;
	if (bpf_map_update_elem(&contexts, &key, &ref, BPF_ANY))
		count(here, COUNT_MAP_FULL);
	return 0;
}

static __always_inline int server_site(const struct here *here, struct pt_regs *regs)
{
	struct request_state *server;

	if (here->site == SITE_GRPC_SERVER_START)
		return start_stream(here, regs);
	server = find_request(here, &servers, here->goid);
	if (!server || server->span.protocol != PROTOCOL_GRPC)
		return 0;
	if (here->site == SITE_GRPC_SERVER_STATUS) {
		/*
		 * func (t *http2Server) writeStatus(s *ServerStream, st *status.Status) error, or of
		 * serverHandlerTransport; WriteStatus up to grpc 1.66. The first one counts.
		 */
		if (server->request == go_register(regs, 1) && !server->has_status) {
			server->has_status = 1;
			server->span.status = status_code(&here->target->grpc, go_register(regs, 2));
		}
		return 0;
	}
	/* END: handleStream has returned, or was left by runtime.Goexit. */
	if (!server->has_status) { /* the connection broke before there was one */
		server->span.status = GRPC_UNAVAILABLE;
		server->span.error = ERROR_CALL_FAILED;
	}
	submit(here, server);
	forget_stream(here, server);
	return 0;
}

PROGRAM(grpc_server, server_site)
SITE_PROGRAM(grpc_server_start, SITE_GRPC_SERVER_START, server_site)
SITE_PROGRAM(grpc_server_status, SITE_GRPC_SERVER_STATUS, server_site)
SITE_PROGRAM(grpc_server_end, SITE_GRPC_SERVER_END, server_site)

char _license[] SEC("license") = "Dual BSD/GPL";
