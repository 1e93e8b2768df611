/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Calls that Go makes over HTTP/2, plain or over TLS. A goroutine of its own writes a request,
 * (*clientStream).doRequest, so the call and the write are joined by the request that both have.
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
#include "hpack.bpf.h"
#include "blocksize.bpf.h"
#include "http2.bpf.h"

enum {
	COPY_CHUNK = 256,
	COPY_CHUNKS = 16, /* the buffer of a connection's bufio.Writer has 4096 bytes */
};

/*
 * res, err := cc.RoundTrip(req), in (*Transport).RoundTripOpt: register 1 req. Once more when a request is
 * tried again on another connection.
 */
static __noinline int start_call(const struct here *here, struct pt_regs *regs)
{
	const struct http2_layout *layout = http2_layout(here);
	struct request_state *client = find_request(here, &clients, here->goid);
	struct request_words words;
	bool known = false;

	if (client) {
		/* One call has one URL, in net/http's Request as in http2's. */
		known = client->url && !client->unconnected &&
			client->url == read_word(go_register(regs, 1) + layout->sent.url);
		if (known && client->span.protocol == PROTOCOL_HTTP2)
			count(here, COUNT_CALL_RETRIED);
		if (!known)
			count(here, COUNT_ABANDONED);
		forget_write(here, client);
	}
	if (known) { /* net/http's getConn found a connection that speaks HTTP/2 */
		client->span.protocol = PROTOCOL_HTTP2;
		client->request = go_register(regs, 1);
		expect_write(here, client);
		return 0;
	}
	client = new_call(here, go_register(regs, 1), 0);
	if (!client)
		return 0;
	client->span.protocol = PROTOCOL_HTTP2;
	if (!read_http2_request(here, &layout->sent, client, &words)) {
		drop_request(here, &clients);
		return 0;
	}
	begin_call(here, client, &words);
	return 0;
}

struct block_copy {
	uint64_t from, to, left;
	uint8_t *scratch;
	bool failed;
};

static __noinline long copy_chunk(uint32_t index, void *data)
{
	struct block_copy *copy = data;
	uint64_t size = copy->left < COPY_CHUNK ? copy->left : COPY_CHUNK;

	if (!size)
		return 1;
	/* Linux 5.10 has to see that it is not 0 (bpf_probe_write_user), and forgets what clang compares. */
	asm volatile("" : "+r"(size));
	size = ((size - 1) & (COPY_CHUNK - 1)) + 1;
	copy->failed = true;
	if (!write_user || read_user(copy->scratch, size, (void *)copy->from) ||
	    bpf_probe_write_user((void *)copy->to, copy->scratch, size))
		return 1;
	copy->failed = false;
	copy->from += size;
	copy->to += size;
	copy->left -= size;
	return 0;
}

enum {
	FRAME_HEAD = 9, /* bytes before a frame's payload (RFC 9113, section 4.1) */
	FRAME_CONTINUATION = 9,
	FLAG_END_HEADERS = 4,
};

/*
 * Where a header block, or the rest of it, is handed over to be made a frame. fragment is on the stack, or
 * in a *Framer: there it is the frame without its length.
 */
struct block_place {
	uint64_t conn;	  /* *ClientConn, locked for writing */
	uint64_t request; /* what is being written */
	uint64_t at;	  /* of the fragment */
	uint64_t serial;  /* of the call */
	uint64_t head;	  /* bytes before the payload in the fragment */
	struct go_slice block, fragment;
};

/*
 * Has the fragment be a copy of the block, with room for our field, at the end of the buffer that the frame
 * will be written to: nobody looks at that part, and the frame is put together elsewhere first. False, and a
 * count, without room. (Not called by append_field: all frames together may take 512 bytes.)
 */
static __noinline bool move_block(const struct here *here, struct request_state *client,
				  struct block_place *place)
{
	struct block_copy copy;
	struct go_string buffer;
	uint64_t used, failed, size;

	if (!here || !client || !place)
		return false;
	if (!open_window(client->scratch, here->target->bufio_window,
			 read_word(place->conn + http2_layout(here)->conn_writer))) {
		count(here, COUNT_NOT_INJECTED_WRITER_UNKNOWN);
		return false;
	}
	buffer = window_string(client->scratch, here->target->bufio_buf);
	used = window_word(client->scratch, here->target->bufio_n);
	failed = window_word(client->scratch, here->target->bufio_err);
	if (!buffer.data || failed || used > buffer.len) {
		count(here, COUNT_NOT_INJECTED_WRITER_UNKNOWN);
		return false;
	}
	size = place->block.len + HPACK_FIELD;
	if (size > COPY_CHUNK * COPY_CHUNKS || size > buffer.len - used) {
		count(here, COUNT_NOT_INJECTED_NO_ROOM);
		return false;
	}
	copy.from = place->block.data;
	copy.to = buffer.data + buffer.len - size;
	copy.left = place->block.len;
	copy.scratch = client->scratch;
	copy.failed = false;
	repeat(COPY_CHUNKS, copy_chunk, &copy);
	if (copy.left || copy.failed) {
		count(here, COUNT_NOT_INJECTED_WRITE_REFUSED);
		return false;
	}
	place->fragment.data = buffer.data + buffer.len - size;
	return true;
}

/* Appends our field behind the bytes of the fragment; then has the frame made of that. */
static __noinline int append_field(const struct here *here, struct request_state *client,
				   const struct block_place *place)
{
	struct trace_ids ids;
	uint64_t field[9], fragment[2];

	if (!here || !client || !place || !copy_ids(here, client, place->serial, &ids))
		return 0;
	hpack_field(&ids, field);
	fragment[0] = place->fragment.data;
	fragment[1] = place->fragment.len + HPACK_FIELD;
	if (!write_user)
		return 0;
	/* The bytes first. Of the fragment, the address alone would be right too. */
	if (bpf_probe_write_user((void *)(fragment[0] + place->fragment.len), field, HPACK_FIELD) ||
	    bpf_probe_write_user((void *)place->at, fragment, sizeof(fragment))) {
		count(here, COUNT_NOT_INJECTED_WRITE_REFUSED);
		return 0;
	}
	return 1;
}

/* Reads the block and the fragment of it that is about to be made a frame; false where they do not agree. */
static __noinline bool find_block(const struct here *here, struct block_place *place)
{
	const struct http2_layout *layout;
	bool same;

	if (!here || !place)
		return false;
	layout = http2_layout(here);
	if (read_user(&place->block, sizeof(place->block), (void *)(place->conn + layout->conn_block)) ||
	    read_user(&place->fragment, sizeof(place->fragment), (void *)place->at) ||
	    read_word(place->conn + layout->conn_block_start) || place->block.cap < place->block.len ||
	    place->fragment.cap < place->fragment.len || place->fragment.len <= place->head ||
	    place->fragment.len - place->head > place->block.len)
		return false;
	same = place->fragment.data == place->block.data && place->fragment.cap == place->block.cap;
	return place->head ? !same : same;
}

/* Whether the peer takes the block with our field; else a count. */
static __noinline bool block_fits(const struct here *here, const struct block_place *place)
{
	const struct http2_layout *layout;
	uint64_t limit, table;

	if (!here || !place)
		return false;
	layout = http2_layout(here);
	if (place->fragment.len - place->head + HPACK_FIELD >
	    (uint32_t)read_word(place->conn + layout->conn_max_frame)) {
		count(here, COUNT_NOT_INJECTED_FRAME_LIMIT);
		return false;
	}
	limit = read_word(place->conn + layout->conn_max_list);
	table = (uint32_t)read_word(read_word(place->conn + layout->conn_encoder) + layout->encoder_table);
	if (limit < HPACK_LIST_SIZE ||
	    !list_fits(place->block.data, place->block.len, table, limit - HPACK_LIST_SIZE)) {
		count(here, COUNT_NOT_INJECTED_LIST_LIMIT);
		return false;
	}
	return true;
}

/*
 * Whether our field has room behind the fragment: in the encoder's buffer, else in a copy of it. The last of
 * several frames lies in the framer's buffer, which has held a whole one before.
 */
static __always_inline bool make_room(const struct here *here, struct request_state *client,
				      struct block_place *place)
{
	if (place->fragment.cap - place->fragment.len >= HPACK_FIELD)
		return true;
	if (!place->head)
		return move_block(here, client, place);
	count(here, COUNT_NOT_INJECTED_NO_ROOM);
	return false;
}

/* Adds our header to a request whose block's last frame is about to be made, if it is to have it. */
static __noinline int write_block(const struct here *here, struct block_place *place)
{
	struct address_key key = {};
	struct request_state *client;
	struct request_ref *ref;
	bool found;

	if (!here || !place)
		return 0;
	found = find_block(here, place);
	if (found && !place->head && place->fragment.len < place->block.len)
		return 0; /* SITE_HTTP2_CLIENT_CONTINUE has the last frame */
	key.incarnation = here->target->incarnation;
	key.address = place->request;
	ref = bpf_map_lookup_elem(&writes, &key);
	if (!ref) { /* ClientConn.RoundTrip called by the application, a call that was given up */
		count(here, COUNT_NOT_INJECTED_REQUEST_UNKNOWN);
		return 0;
	}
	client = call_of(here, ref, &place->serial);
	if (!client)
		return 0;
	read_addresses(here->target, place->conn + http2_layout(here)->conn_conn, client);
	if (!wants_header(here, client, read_word(place->request + http2_layout(here)->sent.header)))
		return 0;
	if (!found) {
		count(here, COUNT_NOT_INJECTED_WRITER_UNKNOWN);
		return 0;
	}
	if (block_fits(here, place) && make_room(here, client, place) && append_field(here, client, place)) {
		client->span.header = HEADER_INJECTED;
		count(here, COUNT_INJECTED);
	}
	return 0;
}

/*
 * What (*ClientConn).writeHeaders writes, by its stack pointer. The requests' own is called by
 * (*clientStream).encodeAndWriteHeaders(req), whose receiver and argument are in its frame, and which
 * writeHeaders will return to; trailers come from elsewhere.
 */
static __always_inline bool find_request_written(const struct here *here, uint64_t stack,
						 uint64_t return_address, struct block_place *place)
{
	const struct http2_layout *layout = http2_layout(here);

	if (read_word(stack + layout->write_frame) != return_address)
		return false;
	place->request = read_word(stack + layout->write_request);
	place->conn = read_word(read_word(stack + layout->write_stream) + layout->stream_conn);
	return true;
}

/* func (f *Framer) WriteHeaders(p HeadersFrameParam), called by writeHeaders; p is on the stack. */
static __noinline int write_request(const struct here *here, struct pt_regs *regs)
{
	const struct http2_layout *layout = http2_layout(here);
	uint64_t stack = go_stack_pointer(regs);
	struct block_place place = {.at = stack + layout->write_block};

	if (!find_request_written(here, stack, go_instruction(regs) + (int64_t)layout->write_return, &place))
		return 0;
	return write_block(here, &place);
}

/*
 * return f.endWrite(), in (*Framer).WriteContinuation: register 0 f, whose wbuf is the frame; its length
 * is put into it by endWrite. Called by writeHeaders only.
 */
static __noinline int write_last_frame(const struct here *here, struct pt_regs *regs)
{
	const struct http2_layout *layout = http2_layout(here);
	uint64_t stack = go_stack_pointer(regs), framer = go_register(regs, 0), site = go_instruction(regs);
	struct block_place place = {.at = framer + layout->framer_buffer, .head = FRAME_HEAD};
	uint64_t head;

	if (read_word(stack + layout->continue_frame) != site + (int64_t)layout->continue_return)
		return 0;
	stack += layout->continue_caller;
	if (!find_request_written(here, stack, site + (int64_t)layout->continue_write_return, &place) ||
	    read_word(place.conn + layout->conn_framer) != framer)
		return 0;
	head = read_word(read_word(place.at)); /* three bytes of length, type, flags, stream */
	if ((uint8_t)(head >> 24) != FRAME_CONTINUATION || !(head >> 32 & FLAG_END_HEADERS))
		return 0;
	return write_block(here, &place);
}

static int end_call(const struct here *here, struct request_state *client, uint64_t response, bool failed)
{
	client->span.error = failed ? ERROR_CALL_FAILED : ERROR_NONE;
	if (!failed)
		client->span.status = (uint16_t)read_word(response + http2_layout(here)->response_status);
	submit(here, client);
	forget_call(here, client);
	return 0;
}

/*
 * RoundTripOpt returns an error, register 1 its itab. Where net/http's (*Transport).roundTrip makes the call,
 * that may try again, and hits SITE_HTTP1_CLIENT_START or SITE_HTTP1_CLIENT_FAIL next: if getConn was called
 * before (client->other), and if HTTP/2 was asked first, whose connection was closed meanwhile (of this error
 * noDialH2RoundTripper makes ErrSkipAltProtocol).
 */
static __noinline int fail_call(const struct here *here, struct pt_regs *regs, struct request_state *client)
{
	uint64_t skipped = http2_layout(here)->type_no_cached_conn;

	if (!client || client->other)
		return 0;
	if (skipped && itab_type(go_register(regs, 1)) == skipped) {
		client->unconnected = 1;
		return 0;
	}
	return end_call(here, client, 0, true);
}

static __always_inline int http2_client_site(const struct here *here, struct pt_regs *regs)
{
	enum site site = http2_site(here);
	struct request_state *client;

	if (site == SITE_HTTP2_CLIENT_START)
		return start_call(here, regs);
	if (site == SITE_HTTP2_CLIENT_WRITE)
		return write_request(here, regs);
	if (site == SITE_HTTP2_CLIENT_CONTINUE)
		return write_last_frame(here, regs);
	client = find_request(here, &clients, here->goid);
	if (!client || client->span.protocol != PROTOCOL_HTTP2)
		return 0;
	/* END: if err == nil, of cc.RoundTrip(req). FAIL: RoundTripOpt returns; registers 0 and 1 as before.
	 */
	if (site == SITE_HTTP2_CLIENT_END)
		return go_register(regs, 1) ? 0 : end_call(here, client, go_register(regs, 0), false);
	return go_register(regs, 0) ? 0 : fail_call(here, regs, client);
}

PROGRAM(http2_calling, http2_client_site)
SITE_PROGRAM(http2_client_start, SITE_HTTP2_CLIENT_START, http2_client_site)
SITE_PROGRAM(http2_client_write, SITE_HTTP2_CLIENT_WRITE, http2_client_site)
SITE_PROGRAM(http2_client_end, SITE_HTTP2_CLIENT_END, http2_client_site)
SITE_PROGRAM(http2_client_fail, SITE_HTTP2_CLIENT_FAIL, http2_client_site)
SITE_PROGRAM(http2_client_continue, SITE_HTTP2_CLIENT_CONTINUE, http2_client_site)
SITE_PROGRAM(xnet_http2_client_start, SITE_XNET_HTTP2_CLIENT_START, http2_client_site)
SITE_PROGRAM(xnet_http2_client_write, SITE_XNET_HTTP2_CLIENT_WRITE, http2_client_site)
SITE_PROGRAM(xnet_http2_client_end, SITE_XNET_HTTP2_CLIENT_END, http2_client_site)
SITE_PROGRAM(xnet_http2_client_fail, SITE_XNET_HTTP2_CLIENT_FAIL, http2_client_site)
SITE_PROGRAM(xnet_http2_client_continue, SITE_XNET_HTTP2_CLIENT_CONTINUE, http2_client_site)

char _license[] SEC("license") = "Dual BSD/GPL";
