/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Requests that Go serves over HTTP/2, plain or over TLS. Each has a goroutine of its own, which runs
 * (*serverConn).runHandler, and so a key of its own, however many share a connection.
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
#include "address.bpf.h"
#include "serving.bpf.h"
#include "http2.bpf.h"

/*
 * func (sc *serverConn) runHandler(rw *responseWriter, req *http.Request, handler func(...)), at the jump of
 * its stack check: registers 0 sc, 1 rw, 2 req. It is hit twice where the stack has to grow.
 */
static __noinline int start_request(const struct here *here, struct pt_regs *regs)
{
	const struct http2_layout *layout = http2_layout(here);
	struct request_state *server = find_request(here, &servers, here->goid);
	struct request_words words;

	if (server && server->other == go_register(regs, 1) && server->request == go_register(regs, 2))
		return 0;
	server = new_serving(here, go_register(regs, 2), go_register(regs, 1));
	if (!server)
		return 0;
	server->span.protocol = PROTOCOL_HTTP2;
	if (!read_http2_request(here, &layout->served, server, &words)) {
		drop_request(here, &servers);
		return 0;
	}
	begin_serving(here, server, &words);
	read_addresses(here->target, go_register(regs, 0) + layout->server_conn_conn, server);
	return 0;
}

static __noinline int end_request(const struct here *here, struct request_state *server)
{
	const struct http2_layout *layout = http2_layout(here);
	uint64_t state = read_word(server->other + layout->response_writer_state);
	bool panicked = http2_site(here) == SITE_HTTP2_SERVER_UNWIND;
	struct go_string route;

	server->span.error = panicked ? ERROR_PANIC : ERROR_NONE;
	if (state)
		server->span.status = (uint16_t)read_word(state + layout->response_state_status);
	if (!server->span.status && !panicked)
		server->span.status = 200; /* handlerDone, about to run, writes it */
	if (layout->served.pattern != FIELD_ABSENT) {
		route = read_string(server->request + layout->served.pattern);
		server->span.route_len =
			keep_string(route, server->span.route, KEEP_ROUTE, server->span.truncated);
	}
	end_serving(here, server);
	return 0;
}

static __always_inline int http2_server_site(const struct here *here, struct pt_regs *regs)
{
	struct request_state *server;

	if (http2_site(here) == SITE_HTTP2_SERVER_START)
		return start_request(here, regs);
	/*
	 * In runHandler's deferred function, END: func (w *responseWriter) handlerDone(). UNWIND: recover(),
	 * where the handler panicked or left by runtime.Goexit.
	 */
	server = find_request(here, &servers, here->goid);
	return server ? end_request(here, server) : 0;
}

PROGRAM(http2_serving, http2_server_site)
SITE_PROGRAM(http2_server_start, SITE_HTTP2_SERVER_START, http2_server_site)
SITE_PROGRAM(http2_server_end, SITE_HTTP2_SERVER_END, http2_server_site)
SITE_PROGRAM(http2_server_unwind, SITE_HTTP2_SERVER_UNWIND, http2_server_site)
SITE_PROGRAM(xnet_http2_server_start, SITE_XNET_HTTP2_SERVER_START, http2_server_site)
SITE_PROGRAM(xnet_http2_server_end, SITE_XNET_HTTP2_SERVER_END, http2_server_site)
SITE_PROGRAM(xnet_http2_server_unwind, SITE_XNET_HTTP2_SERVER_UNWIND, http2_server_site)

char _license[] SEC("license") = "Dual BSD/GPL";
