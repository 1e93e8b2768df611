/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Requests that net/http serves over HTTP/1: their context is read, their span reported. */
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
#include "address.bpf.h"

static __noinline int end_request(const struct here *here, struct request_state *server,
				  enum span_error error)
{
	const struct target *target = here->target;
	struct address_key key = {.incarnation = target->incarnation, .address = server->context};
	struct go_string route;
	uint8_t hijacked = 0;

	server->span.error = error;
	server->span.status = (uint16_t)read_word(server->other + target->response_status);
	if (!server->span.status && !error) {
		/* finishRequest, still to come, writes 200, unless the handler took the connection. */
		uint64_t conn = read_word(server->other + target->response_conn);

		read_user(&hijacked, 1, (void *)(conn + target->conn_hijacked));
		server->span.status = hijacked ? 0 : 200;
	}
	if (target->request_pattern != FIELD_ABSENT) {
		route = read_string(server->request + target->request_pattern);
		server->span.route_len =
			keep_string(route, server->span.route, KEEP_ROUTE, server->span.truncated);
	}
	submit(here, server);
	/* From here on no call may find this request. */
	bpf_map_delete_elem(&contexts, &key);
	server->serial = 0;
	drop_request(here, &servers);
	return 0;
}

/*
 * func (sh serverHandler) ServeHTTP(rw ResponseWriter, req *Request), called by (*conn).serve
 * Registers 0 sh.srv, 1 and 2 rw, 3 req.
 */
static __noinline int start_request(const struct here *here, struct pt_regs *regs)
{
	struct target *target = here->target;
	struct request_state *server;
	struct address_key key = {.incarnation = target->incarnation};
	struct request_ref ref = {.goid = here->goid, .users = 1};
	struct go_string method, host, path;
	enum field_state field;
	uint64_t url, header;

	if (!has_type(go_register(regs, 1), target->type_response, &target->itab_response)) {
		count(here, COUNT_HTTP2_SERVER_UNTRACED);
		return 0;
	}
	server = find_request(here, &servers, here->goid);
	if (server) { /* its end was missed: a goroutine serves one request at a time */
		key.address = server->context;
		bpf_map_delete_elem(&contexts, &key);
		count(here, COUNT_ABANDONED);
	}
	server = new_request(here, &servers);
	if (!server)
		return 0;
	server->span.start_ns = bpf_ktime_get_ns();
	server->span.kind = SPAN_SERVER;
	server->span.incarnation = target->incarnation;
	server->span.goid = here->goid;
	server->request = go_register(regs, 3);
	server->other = go_register(regs, 2);
	if (!open_window(server->scratch, target->request_window, go_register(regs, 3))) {
		count(here, COUNT_MEMORY_UNREADABLE);
		drop_request(here, &servers);
		return 0;
	}
	method = window_string(server->scratch, target->request_method);
	host = window_string(server->scratch, target->request_host);
	url = window_word(server->scratch, target->request_url);
	header = window_word(server->scratch, target->request_header);
	server->context = window_iface(server->scratch, target->request_ctx).data;

	field = find_traceparent(target, header, server, &server->incoming);
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

	path = read_string(url + target->url_path);
	server->span.method_len =
		keep_string(method, server->span.method, KEEP_METHOD, server->span.truncated);
	server->span.path_len = keep_string(path, server->span.path, KEEP_PATH, server->span.truncated);
	server->span.host_len = keep_string(host, server->span.host, KEEP_HOST, server->span.truncated);
	read_addresses(target, read_word(go_register(regs, 2) + target->response_conn) + target->conn_rwc,
		       server);

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

	if (here->site == SITE_HTTP1_SERVER_START)
		return start_request(here, regs);
	if (here->site == SITE_HTTP2_SERVER) {
		count(here, COUNT_HTTP2_SERVER_UNTRACED);
		return 0;
	}
	server = find_request(here, &servers, here->goid);
	if (!server)
		return 0;
	/*
	 * END: func (c *conn) hijacked() bool, called by (*conn).serve after the handler returned.
	 * UNWIND: serve's deferred function, which finds a request only when the handler panicked or
	 * left by runtime.Goexit.
	 */
	return end_request(here, server, here->site == SITE_HTTP1_SERVER_UNWIND ? ERROR_PANIC : ERROR_NONE);
}

PROGRAM(http1_server, server_site)
SITE_PROGRAM(http1_server_start, SITE_HTTP1_SERVER_START, server_site)
SITE_PROGRAM(http1_server_end, SITE_HTTP1_SERVER_END, server_site)
SITE_PROGRAM(http1_server_unwind, SITE_HTTP1_SERVER_UNWIND, server_site)
SITE_PROGRAM(http2_server, SITE_HTTP2_SERVER, server_site)

char _license[] SEC("license") = "Dual BSD/GPL";
