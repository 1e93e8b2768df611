/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Calls that net/http's Transport makes over HTTP/1: the parent is found, the header added to the
 * very request that is being written, the span reported.
 *
 * A request is written by its connection's own goroutine, (*persistConn).writeLoop, so the call and
 * the write are joined by the *Request in the transportRequest: not by goroutine, and not by the
 * Header map, which requests in flight at once may share.
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
#include "calls.bpf.h"

/*
 * Whether this goroutine's call is tried again. A copy of its request is, if its body was read: call stays
 * the same, and so does the URL.
 */
static __always_inline bool is_tried_again(const struct here *here, const struct request_state *client,
					   uint64_t request, uint64_t call)
{
	if (client->unconnected)
		return client->url && client->url == read_word(request + here->target->request_url);
	return client->other == call;
}

/*
 * pconn, err := t.getConn(treq, cm), in (*Transport).roundTrip: register 1 treq. Before any dialling; once
 * more when a request is tried again on another connection. Also after all other attempts failed because a
 * connection of HTTP/2 was closed (alternateRoundTripper, ErrSkipAltProtocol).
 */
static __noinline int start_call(const struct here *here, struct pt_regs *regs)
{
	const struct target *target = here->target;
	uint64_t request = read_word(go_register(regs, 1) + target->transport_request_request);
	uint64_t call = read_word(go_register(regs, 1) + target->transport_request_call);
	struct request_state *client = find_request(here, &clients, here->goid);
	struct request_words words;

	if (!request) {
		count(here, COUNT_MEMORY_UNREADABLE);
		return 0;
	}
	if (client && is_tried_again(here, client, request, call)) {
		count(here, COUNT_CALL_RETRIED);
		forget_write(here, client);
		client->span.protocol = PROTOCOL_HTTP1; /* until a connection is found */
		client->unconnected = 0;
		client->request = request;
		client->other = call;
		expect_write(here, client);
		return 0;
	}
	if (client) {
		count(here, COUNT_ABANDONED);
		forget_write(here, client);
	}
	client = new_call(here, request, call);
	if (!client)
		return 0;
	if (!open_window(client->scratch, target->request_window, request)) {
		count(here, COUNT_MEMORY_UNREADABLE);
		drop_request(here, &clients);
		return 0;
	}
	words.method = window_string(client->scratch, target->request_method);
	words.host = window_string(client->scratch, target->request_host);
	words.url = window_word(client->scratch, target->request_url);
	words.context = window_iface(client->scratch, target->request_ctx);
	begin_call(here, client, &words);
	return 0;
}

/* Appends the header line to what a *bufio.Writer holds: it is ours alone until it is flushed. */
static __noinline int inject(const struct here *here, uint64_t writer, struct request_state *client,
			     uint64_t serial)
{
	const struct target *target = here->target;
	struct go_string buffer;
	struct trace_ids ids;
	uint64_t field[9], used, failed;

	if (!open_window(client->scratch, target->bufio_window, writer)) {
		count(here, COUNT_NOT_INJECTED_WRITER_UNKNOWN);
		return 0;
	}
	buffer = window_string(client->scratch, target->bufio_buf);
	used = window_word(client->scratch, target->bufio_n);
	failed = window_word(client->scratch, target->bufio_err);
	if (!buffer.data || failed || !used || used > buffer.len) {
		count(here, COUNT_NOT_INJECTED_WRITER_UNKNOWN);
		return 0;
	}
	if (buffer.len - used < TRACEPARENT_FIELD) {
		count(here, COUNT_NOT_INJECTED_NO_ROOM);
		return 0;
	}
	if (!copy_ids(here, client, serial, &ids))
		return 0;
	traceparent_field(&ids, field);
	if (!write_user)
		return 0;
	/* The bytes first: a length without them would send whatever the buffer held. */
	if (bpf_probe_write_user((void *)(buffer.data + used), field, TRACEPARENT_FIELD))
		goto refused;
	used += TRACEPARENT_FIELD;
	if (bpf_probe_write_user((void *)(writer + target->bufio_n), &used, sizeof(used)))
		goto refused;
	return 1;
refused:
	count(here, COUNT_NOT_INJECTED_WRITE_REFUSED);
	return 0;
}

/*
 * err = r.Header.writeSubset(w, reqWriteExcludeHeader, trace), in (*Request).write: registers 0 the map, 1
 * and 2 w; r is on the stack. The request line, Host and User-Agent are in the buffer already.
 */
static __noinline int write_request(const struct here *here, struct pt_regs *regs)
{
	struct target *target = here->target;
	struct address_key key = {.incarnation = target->incarnation};
	struct request_state *client;
	struct request_ref *ref;
	struct go_iface out;
	uint64_t serial;

	key.address = read_word(go_stack_pointer(regs) + target->write_receiver);
	ref = bpf_map_lookup_elem(&writes, &key);
	/* CONNECT to a proxy, Request.Write by the application, a call that was given up. */
	if (!ref || read_word(key.address + target->request_header) != go_register(regs, 0)) {
		count(here, COUNT_NOT_INJECTED_REQUEST_UNKNOWN);
		return 0;
	}
	client = call_of(here, ref, &serial);
	if (!client)
		return 0;
	if (!has_type(go_register(regs, 1), target->type_bufio_writer, &target->itab_bufio_writer)) {
		count(here, COUNT_NOT_INJECTED_WRITER_UNKNOWN);
		return 0;
	}
	/* pc.bw writes to a persistConnWriter, which is just the *persistConn. */
	out = read_iface(go_register(regs, 2) + target->bufio_wr);
	if (has_type(out.itab, target->type_persist_conn_writer, &target->itab_persist_conn_writer))
		read_addresses(target, out.data + target->persist_conn_conn, client);

	if (wants_header(here, client, go_register(regs, 0)) &&
	    inject(here, go_register(regs, 2), client, serial)) {
		client->span.header = HEADER_INJECTED;
		count(here, COUNT_INJECTED);
	}
	return 0;
}

static int end_call(const struct here *here, struct request_state *client, uint64_t response, bool failed)
{
	if (!failed && !open_window(client->scratch, here->target->client_response_window, response))
		count(here, COUNT_MEMORY_UNREADABLE);
	/* A site of HTTP/2 that this executable names otherwise. */
	if (!failed && window_word(client->scratch, here->target->client_response_proto_major) == 2) {
		count(here, COUNT_HTTP2_CLIENT_UNTRACED);
		forget_call(here, client);
		return 0;
	}
	client->span.error = failed ? ERROR_CALL_FAILED : ERROR_NONE;
	if (!failed)
		client->span.status =
			(uint16_t)window_word(client->scratch, here->target->client_response_status);
	submit(here, client);
	forget_call(here, client);
	return 0;
}

static __always_inline int client_site(const struct here *here, struct pt_regs *regs)
{
	struct request_state *client;

	if (here->site == SITE_HTTP1_CLIENT_START)
		return start_call(here, regs);
	if (here->site == SITE_HTTP1_CLIENT_WRITE)
		return write_request(here, regs);
	if (here->site == SITE_HTTP2_CLIENT)
		count(here, COUNT_HTTP2_CLIENT_UNTRACED);
	client = find_request(here, &clients, here->goid);
	if (!client)
		return 0;
	switch (here->site) {
	case SITE_HTTP1_CLIENT_END: /* resp, err = pconn.roundTrip(treq); if err == nil: registers 0 and 1 */
		return go_register(regs, 1) ? 0 : end_call(here, client, go_register(regs, 0), false);
	case SITE_HTTP1_CLIENT_FAIL: /* (*Transport).roundTrip returns without a response */
		return end_call(here, client, 0, true);
	case SITE_HTTP2_CLIENT: /* the connection turned out to speak HTTP/2 */
		forget_call(here, client);
		return 0;
	default:
		return 0;
	}
}

PROGRAM(http1_client, client_site)
SITE_PROGRAM(http1_client_start, SITE_HTTP1_CLIENT_START, client_site)
SITE_PROGRAM(http1_client_write, SITE_HTTP1_CLIENT_WRITE, client_site)
SITE_PROGRAM(http1_client_end, SITE_HTTP1_CLIENT_END, client_site)
SITE_PROGRAM(http1_client_fail, SITE_HTTP1_CLIENT_FAIL, client_site)
SITE_PROGRAM(http2_client, SITE_HTTP2_CLIENT, client_site)

char _license[] SEC("license") = "Dual BSD/GPL";
