/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Calls that google.golang.org/grpc makes: one span for each, whatever the number of attempts.
 *
 * An entry is keyed by the call's *clientStream, since streams are received from and finished in other
 * goroutines than the one that began them. A connection's writer (loopyWriter, a goroutine of its own)
 * knows the stream of an attempt, whose context descends from the one that grpc made for the call: by
 * that the two are joined, so that stream ids, which every connection counts from 1, play no part.
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
#include "fieldlist.bpf.h"
#include "grpc.bpf.h"

enum {
	MAX_ATTEMPT_HOPS = 32, /* contexts between that of the call and that of an attempt */
	MAX_FRAME = 16384,     /* http2MaxFrameLen: what grpc puts into a frame, whatever the peer allows */
	FRAME_HEADER = 9,
	FRAME_HEADERS = 1,
	FRAME_CONTINUATION = 9,
	FLAG_END_STREAM = 1,
	FLAG_END_HEADERS = 4,
};

static inline struct request_state *find_call(const struct here *here, uint64_t call)
{
	struct goroutine_key key = {
		.incarnation = here->target->incarnation, .kind = KEY_GRPC_CALL, .goid = call};

	return bpf_map_lookup_elem(&clients, &key);
}

static inline void forget_rpc(const struct here *here, struct request_state *client, uint64_t call)
{
	struct goroutine_key key = {
		.incarnation = here->target->incarnation, .kind = KEY_GRPC_CALL, .goid = call};
	struct address_key context = {.incarnation = here->target->incarnation, .address = client->context};

	bpf_map_delete_elem(&calls, &context);
	client->serial = 0;
	bpf_map_delete_elem(&clients, &key);
}

/*
 * err := cs.withRetry(op, onSuccess), in newClientStreamWithParams: register 0 cs. The call's context and
 * its CallHdr are made; the first attempt is not.
 */
static __noinline int start_call(const struct here *here, struct pt_regs *regs)
{
	const struct target *target = here->target;
	const struct grpc_layout *layout = &target->grpc;
	uint64_t call = go_register(regs, 0), header = read_word(call + layout->call_header);
	struct goroutine_key key = {.incarnation = target->incarnation, .kind = KEY_GRPC_CALL, .goid = call};
	struct address_key context_key = {.incarnation = target->incarnation};
	struct request_ref ref = {.goid = call, .users = 1};
	struct go_iface context = read_iface(call + layout->call_context);
	struct request_state *client = find_call(here, call);
	struct go_string text;

	if (client) { /* another call had this address, and its end was missed */
		forget_rpc(here, client, call);
		count(here, COUNT_ABANDONED);
	}
	if (!header || !context.data) {
		count(here, COUNT_MEMORY_UNREADABLE);
		return 0;
	}
	if (bpf_map_update_elem(&clients, &key, &no_request, BPF_ANY)) {
		count(here, COUNT_MAP_FULL);
		return 0;
	}
	client = bpf_map_lookup_elem(&clients, &key);
	if (!client)
		return 0;
	client->span.start_ns = bpf_ktime_get_ns();
	client->span.kind = SPAN_CLIENT;
	client->span.protocol = PROTOCOL_GRPC;
	client->span.incarnation = target->incarnation;
	client->span.goid = here->goid;
	client->request = call;
	client->context = context.data;
	if (!find_parent(here, client, &context)) {
		uint64_t trace[2] = {random_id(), random_id()};

		__builtin_memcpy(client->span.trace_id, trace, 16);
		client->span.trace_flags = FLAG_SAMPLED | FLAG_RANDOM;
		count(here, COUNT_NEW_TRACE);
	}
	ref.serial = random_id();
	__builtin_memcpy(client->span.span_id, &ref.serial, 8);
	text = read_string(header + layout->call_method);
	client->span.path_len = keep_string(text, client->span.path, KEEP_PATH, client->span.truncated);
	text = read_string(header + layout->call_host);
	client->span.host_len = keep_string(text, client->span.host, KEEP_HOST, client->span.truncated);

	asm volatile("" ::: "memory");
	*(volatile uint64_t *)&client->serial = ref.serial;
	context_key.address = client->context;
	if (bpf_map_update_elem(&calls, &context_key, &ref, BPF_ANY)) { /* then nothing would end it */
		client->serial = 0;
		bpf_map_delete_elem(&clients, &key);
		count(here, COUNT_MAP_FULL);
	}
	return 0;
}

struct attempt_walk {
	const struct target *target;
	struct go_iface context;
	uint64_t call, serial;
	bool unreadable;
};

static __noinline long next_of_attempt(uint32_t index, void *data)
{
	struct attempt_walk *walk = data;
	struct address_key key = {.incarnation = walk->target->incarnation, .address = walk->context.data};
	struct request_ref *ref;

	if (!walk->context.itab || !walk->context.data)
		return 1;
	ref = bpf_map_lookup_elem(&calls, &key);
	if (ref) {
		walk->call = ref->goid;
		walk->serial = ref->serial;
		return 1;
	}
	return !enter_parent(walk->target->incarnation, &walk->context, &walk->unreadable);
}

/*
 * The client's stream that a headerFrame (clientHeaders since grpc 1.82) is of: what its onOrphaned, a
 * closure, captured. Believed only if the stream's quota is the one of the headers. 0: not known.
 */
static inline uint64_t stream_of(const struct grpc_layout *layout, uint64_t headers)
{
	uint64_t quota = read_word(headers + layout->headers_quota);
	uint64_t stream = read_word(read_word(headers + layout->headers_orphaned) + 8);
	uint64_t common = stream ? common_stream(stream, layout->client_common) : 0;
	uint64_t own = common + layout->stream_quota;

	if (!common || !quota)
		return 0;
	if (!layout->stream_quota_embedded)
		own = read_word(own);
	return own == quota ? stream : 0;
}

/* Which call the stream is of, by its context. */
static __noinline uint64_t call_of_stream(const struct target *target, uint64_t stream, uint64_t *serial)
{
	struct attempt_walk walk = {};

	if (!target || !serial)
		return 0;
	walk.target = target;
	walk.context =
		read_iface(common_stream(stream, target->grpc.client_common) + target->grpc.client_context);
	repeat(MAX_ATTEMPT_HOPS, next_of_attempt, &walk);
	*serial = walk.serial;
	return walk.call;
}

/* Whether our field fits into what the peer said it takes (SETTINGS_MAX_HEADER_LIST_SIZE). */
static inline bool list_has_room(const struct grpc_layout *layout, uint64_t transport, uint64_t bytes)
{
	uint64_t limit_at = transport ? read_word(transport + layout->client_max_list) : 0;
	uint32_t limit = 0;

	if (!limit_at)
		return true;
	return !read_user(&limit, sizeof(limit), (void *)limit_at) && bytes + HPACK_LIST_SIZE <= limit;
}

/* Whether our field is to be added to the headers. All else is settled here. */
static __noinline int wants_field(const struct here *here, struct request_state *client,
				  const struct go_string *fields, uint64_t transport)
{
	struct trace_ids own = {};
	enum field_state field;

	if (!here || !client || !fields)
		return 0;
	field = find_in_fields(&here->target->grpc, fields, client, &own);
	if (field == FIELD_VALID) {
		use_application_header(here, client, &own);
	} else if (field == FIELD_INVALID) {
		client->span.header = HEADER_APPLICATION;
		count(here, COUNT_APPLICATION_HEADER_INVALID);
	} else if (field == FIELD_UNSURE) {
		count(here, COUNT_NOT_INJECTED_HEADERS_UNREADABLE);
	} else if (!here->target->inject || !write_user) {
		count(here, COUNT_NOT_INJECTED_OFF);
	} else if (!list_has_room(&here->target->grpc, transport, client->fields.bytes)) {
		count(here, COUNT_NOT_INJECTED_LIST_LIMIT);
	} else {
		return 1;
	}
	return 0;
}

/*
 * err := l.writeHeader(streamID, false, hdr.hf, hdr.onWrite), in (*loopyWriter).originateStream
 * (clientHeaderHandler since grpc 1.82), for clients only: register 0 l, 1 streamID, 3 to 5 hdr.hf; hdr
 * is on the stack. Nothing is encoded yet.
 */
static __noinline int see_headers(const struct here *here, struct pt_regs *regs)
{
	struct target *target = here->target;
	const struct grpc_layout *layout = &target->grpc;
	uint64_t headers = read_word(go_stack_pointer(regs) + layout->headers_slot);
	struct goroutine_key key = {.incarnation = target->incarnation, .goid = here->goid};
	struct grpc_write write = {.stream = (uint32_t)go_register(regs, 1)};
	struct go_string fields = {go_register(regs, 3), go_register(regs, 4)};
	struct request_state *client;
	uint64_t stream = 0, transport;

	if (headers && read_word(headers + layout->headers_fields) == fields.data)
		stream = stream_of(layout, headers);
	if (stream)
		write.call = call_of_stream(target, stream, &write.serial);
	client = write.call ? find_call(here, write.call) : 0;
	/* A health check of grpc's own, or a call that was under way at the attachment, or has ended. */
	if (!client || *(volatile uint64_t *)&client->serial != write.serial) {
		count(here, COUNT_NOT_INJECTED_REQUEST_UNKNOWN);
		return 0;
	}
	if (client->other) {
		client->span.header = HEADER_NONE;
		count(here, COUNT_CALL_RETRIED);
	}
	client->other = stream;
	transport = read_word(stream + layout->client_transport);
	if (transport)
		read_net_addrs(target, transport + layout->client_local, transport + layout->client_peer,
			       client);
	if (!wants_field(here, client, &fields, transport))
		return 0;
	write.writer =
		read_word(read_word(go_register(regs, 0) + layout->loopy_framer) + layout->framer_writer);
	write.block = read_word(go_register(regs, 0) + layout->loopy_block);
	if (bpf_map_update_elem(&grpc_writes, &key, &write, BPF_ANY))
		count(here, COUNT_MAP_FULL);
	return 0;
}

/* Where the frame that ends a header block is, in its writer's buffer. */
struct last_frame {
	uint64_t header, end; /* addresses: of the frame's header, behind the frame */
	uint64_t offset;      /* bufWriter.offset, which is how many bytes the buffer holds */
	uint32_t length;      /* of its payload */
};

/* Finds that frame, and makes sure that it is the one; else a count, and false. */
static __noinline int find_frame(const struct here *here, const struct grpc_write *write,
				 struct last_frame *frame)
{
	const struct grpc_layout *layout;
	uint64_t block, buffer, batch, words[2] = {};
	const uint8_t *bytes = (const uint8_t *)words;
	struct go_string held;
	uint32_t type, flags, stream;

	if (!here || !write || !frame)
		return 0;
	layout = &here->target->grpc;
	block = read_word(write->block + layout->buffer_bytes + 8); /* len(hBuf.buf): all of it was taken */
	buffer = write->writer + layout->writer_buffer;
	if (layout->writer_buffer_pointer)
		buffer = read_word(buffer);
	held = read_string(buffer);
	frame->offset = read_word(write->writer + layout->writer_offset);
	batch = read_word(write->writer + layout->writer_batch);
	/* grpc.WithWriteBufferSize(0) writes to the connection at once. */
	if (!batch || !block || !held.data || read_word(write->writer + layout->writer_error)) {
		count(here, COUNT_NOT_INJECTED_WRITER_UNKNOWN);
		return 0;
	}
	frame->length = (uint32_t)((block - 1) % MAX_FRAME) + 1;
	if (frame->length + HPACK_FIELD > MAX_FRAME) {
		count(here, COUNT_NOT_INJECTED_FRAME_LIMIT);
		return 0;
	}
	if (frame->offset < frame->length + FRAME_HEADER || frame->offset > held.len)
		goto flushed;
	frame->end = held.data + frame->offset;
	frame->header = frame->end - frame->length - FRAME_HEADER;
	if (read_user(words, FRAME_HEADER, (void *)frame->header))
		goto flushed;
	type = block > MAX_FRAME ? FRAME_CONTINUATION : FRAME_HEADERS;
	flags = bytes[4];
	stream = (uint32_t)bytes[5] << 24 | (uint32_t)bytes[6] << 16 | (uint32_t)bytes[7] << 8 | bytes[8];
	if (((uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2]) != frame->length ||
	    bytes[3] != type || (flags & ~FLAG_END_STREAM) != FLAG_END_HEADERS || stream != write->stream)
		goto flushed;
	/* grpc writes the buffer out as soon as it holds a batch. */
	if (frame->offset + HPACK_FIELD >= batch || frame->offset + HPACK_FIELD > held.len) {
		count(here, COUNT_NOT_INJECTED_NO_ROOM);
		return 0;
	}
	return 1;
flushed:
	count(here, COUNT_NOT_INJECTED_FLUSHED);
	return 0;
}

/*
 * Appends our field to the last frame of the header block, which waits in the writer's buffer: it is ours
 * alone until this goroutine goes on. Two numbers make the field valid, and both have to change; so
 * both are first written as they are, to be sure that they can be.
 */
static __noinline int inject(const struct here *here, const struct grpc_write *write,
			     struct request_state *client)
{
	struct last_frame frame = {};
	struct trace_ids ids;
	uint64_t field[9], offset, offset_at;
	uint32_t old, new;

	if (!here || !write || !client || !find_frame(here, write, &frame))
		return 0;
	__builtin_memcpy(ids.trace_id, client->span.trace_id, 16);
	__builtin_memcpy(&ids.span_id, client->span.span_id, 8);
	ids.flags = client->span.trace_flags;
	asm volatile("" ::: "memory");
	if (*(volatile const uint64_t *)&client->serial != write->serial) {
		count(here, COUNT_NOT_INJECTED_REQUEST_UNKNOWN);
		return 0;
	}
	hpack_field(&ids, field);
	if (!write_user)
		return 0;
	offset = frame.offset;
	offset_at = write->writer + here->target->grpc.writer_offset;
	old = __builtin_bswap32(frame.length) >> 8; /* three bytes, in network order */
	new = __builtin_bswap32(frame.length + HPACK_FIELD) >> 8;
	if (bpf_probe_write_user((void *)frame.end, field, HPACK_FIELD) ||
	    bpf_probe_write_user((void *)offset_at, &offset, sizeof(offset)) ||
	    bpf_probe_write_user((void *)frame.header, &old, 3))
		goto refused;
	offset += HPACK_FIELD;
	if (bpf_probe_write_user((void *)frame.header, &new, 3))
		goto refused;
	if (bpf_probe_write_user((void *)offset_at, &offset, sizeof(offset))) {
		bpf_probe_write_user((void *)frame.header, &old, 3);
		goto refused;
	}
	return 1;
refused:
	count(here, COUNT_NOT_INJECTED_WRITE_REFUSED);
	return 0;
}

/* if err != nil, behind that call: register 0 is nil where the frames are in the writer's buffer. */
static __noinline int after_headers(const struct here *here, struct pt_regs *regs)
{
	struct goroutine_key key = {.incarnation = here->target->incarnation, .goid = here->goid};
	struct grpc_write *found = bpf_map_lookup_elem(&grpc_writes, &key), write;
	struct request_state *client;

	if (!found)
		return 0;
	write = *found;
	bpf_map_delete_elem(&grpc_writes, &key);
	client = find_call(here, write.call);
	if (!client || client->serial != write.serial) {
		count(here, COUNT_NOT_INJECTED_REQUEST_UNKNOWN);
	} else if (go_register(regs, 0)) {
		count(here, COUNT_NOT_INJECTED_FLUSHED);
	} else if (inject(here, &write, client)) {
		client->span.header = HEADER_INJECTED;
		count(here, COUNT_INJECTED);
	}
	return 0;
}

/* A call's error: nil, io.EOF (which finish takes for success), a *status.Error, or something else. */
static inline uint16_t error_code(const struct grpc_layout *layout, uint64_t itab, uint64_t error)
{
	uint64_t type = itab_type(itab), text = 0;
	struct go_string message;

	if (!itab)
		return GRPC_OK;
	if (type == layout->type_status_error)
		return status_code(layout, read_word(error + layout->status_error_status));
	if (type == layout->type_error_string) {
		message = read_string(error);
		if (message.len == 3 && !read_user(&text, 3, (void *)message.data) && text == 0x464f45)
			return GRPC_OK;
	}
	return GRPC_UNKNOWN;
}

/*
 * A call may be finished by two goroutines at once: its own, and the one that waits for its context. The one
 * that deletes the entry in calls ends it; which that is, the kernel's map decides.
 */
static __noinline int end_call(const struct here *here, uint64_t call, uint64_t itab, uint64_t error)
{
	const struct grpc_layout *layout = &here->target->grpc;
	struct address_key context = {.incarnation = here->target->incarnation};
	struct request_state *client;

	if (here->site == SITE_GRPC_CLIENT_FAIL) {
		client = find_call(here, call);
		/* Not the goroutine that began it: what was found on the stack is something else. */
		if (!client || client->span.goid != here->goid)
			return 0;
	}
	context.address = read_iface(call + layout->call_context).data;
	if (bpf_map_delete_elem(&calls, &context))
		return 0;
	client = find_call(here, call);
	if (!client)
		return 0;
	client->span.status = error_code(layout, itab, error);
	submit(here, client);
	forget_rpc(here, client, call);
	return 0;
}

static __always_inline int client_site(const struct here *here, struct pt_regs *regs)
{
	switch (here->site) {
	case SITE_GRPC_CLIENT_START:
		return start_call(here, regs);
	case SITE_GRPC_CLIENT_HEADERS:
		return see_headers(here, regs);
	case SITE_GRPC_CLIENT_WRITTEN:
		return after_headers(here, regs);
	case SITE_GRPC_CLIENT_FAIL: /* withRetry's error, where no finish follows: registers 0 and 1 */
		return end_call(here, read_word(go_stack_pointer(regs) + here->target->grpc.call_slot),
				go_register(regs, 0), go_register(regs, 1));
	case SITE_GRPC_CLIENT_END:
		/*
		 * func (cs *clientStream) finish(err error): registers 0 cs, 1 and 2 err. Called more
		 * than once; the first call counts, also for grpc.
		 */
		return end_call(here, go_register(regs, 0), go_register(regs, 1), go_register(regs, 2));
	default:
		return 0;
	}
}

PROGRAM(grpc_client, client_site)
SITE_PROGRAM(grpc_client_start, SITE_GRPC_CLIENT_START, client_site)
SITE_PROGRAM(grpc_client_headers, SITE_GRPC_CLIENT_HEADERS, client_site)
SITE_PROGRAM(grpc_client_written, SITE_GRPC_CLIENT_WRITTEN, client_site)
SITE_PROGRAM(grpc_client_fail, SITE_GRPC_CLIENT_FAIL, client_site)
SITE_PROGRAM(grpc_client_end, SITE_GRPC_CLIENT_END, client_site)

char _license[] SEC("license") = "Dual BSD/GPL";
