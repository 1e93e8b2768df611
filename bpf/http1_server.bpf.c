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
#include "serving.bpf.h"

static __noinline int end_request(const struct here *here, struct request_state *server,
				  enum span_error error)
{
	const struct target *target = here->target;
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
	end_serving(here, server);
	return 0;
}

/*
 * The preface of a connection of HTTP/2 without TLS (RFC 9113, section 3.4), which golang.org/x/net/http2/h2c
 * gets as a request that takes as long as the connection.
 */
static inline bool is_preface(const struct go_string *method)
{
	uint8_t text[3] = {};

	return method->len == sizeof(text) && !read_user(text, sizeof(text), (void *)method->data) &&
	       text[0] == 'P' && text[1] == 'R' && text[2] == 'I';
}

/*
 * func (sh serverHandler) ServeHTTP(rw ResponseWriter, req *Request), called by (*conn).serve
 * Registers 0 sh.srv, 1 and 2 rw, 3 req.
 */
static __noinline int start_request(const struct here *here, struct pt_regs *regs)
{
	struct target *target = here->target;
	struct request_state *server;
	struct request_words words;

	if (!has_type(go_register(regs, 1), target->type_response, &target->itab_response)) {
		count(here, COUNT_HTTP2_SERVER_UNTRACED);
		return 0;
	}
	server = new_serving(here, go_register(regs, 3), go_register(regs, 2));
	if (!server)
		return 0;
	if (!open_window(server->scratch, target->request_window, go_register(regs, 3))) {
		count(here, COUNT_MEMORY_UNREADABLE);
		drop_request(here, &servers);
		return 0;
	}
	words.method = window_string(server->scratch, target->request_method);
	words.host = window_string(server->scratch, target->request_host);
	words.url = window_word(server->scratch, target->request_url);
	words.header = window_word(server->scratch, target->request_header);
	words.context = window_iface(server->scratch, target->request_ctx);
	if (is_preface(&words.method)) {
		drop_request(here, &servers);
		return 0;
	}
	begin_serving(here, server, &words);
	read_addresses(target, read_word(go_register(regs, 2) + target->response_conn) + target->conn_rwc,
		       server);
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
