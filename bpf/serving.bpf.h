/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What serving a request has in common in all protocols: an entry in servers under the goroutine of its
 * handler, and one in contexts, under the request's context, by which calls find their parent.
 */
#ifndef PYTRACEPROP_SERVING_BPF_H
#define PYTRACEPROP_SERVING_BPF_H

/* A fresh entry of this goroutine, which serves one request at a time. other: the protocol's response. */
static struct request_state *new_serving(const struct here *here, uint64_t request, uint64_t other)
{
	struct address_key key = {.incarnation = here->target->incarnation};
	struct request_state *server = find_request(here, &servers, here->goid);

	if (server) { /* its end was missed */
		key.address = server->context;
		bpf_map_delete_elem(&contexts, &key);
		count(here, COUNT_ABANDONED);
	}
	server = new_request(here, &servers);
	if (!server)
		return 0;
	server->span.start_ns = bpf_ktime_get_ns();
	server->span.kind = SPAN_SERVER;
	server->span.incarnation = here->target->incarnation;
	server->span.goid = here->goid;
	server->request = request;
	server->other = other;
	return server;
}

/* What came in, or a new trace; the ids; what the span says of the request. Then calls may find it. */
static __noinline int begin_serving(const struct here *here, struct request_state *server,
				    const struct request_words *words)
{
	struct address_key key = {};
	struct request_ref ref = {.users = 1};
	enum field_state field;
	struct go_string path;

	if (!here || !server || !words)
		return 0;
	field = find_traceparent(here->target, words->header, server, &server->incoming);
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
	ref.goid = here->goid;
	ref.serial = random_id();
	__builtin_memcpy(server->span.span_id, &ref.serial, 8);

	path = read_string(words->url + here->target->url_path);
	server->span.method_len =
		keep_string(words->method, server->span.method, KEEP_METHOD, server->span.truncated);
	server->span.path_len = keep_string(path, server->span.path, KEEP_PATH, server->span.truncated);
	server->span.host_len =
		keep_string(words->host, server->span.host, KEEP_HOST, server->span.truncated);

	server->context = words->context.data;
	asm volatile("" ::: "memory");
	*(volatile uint64_t *)&server->serial = ref.serial;
	key.incarnation = here->target->incarnation;
	key.address = server->context;
	if (bpf_map_update_elem(&contexts, &key, &ref, BPF_ANY))
		count(here, COUNT_MAP_FULL);
	return 0;
}

/* The span is reported; from here on no call may find this request. */
static inline void end_serving(const struct here *here, struct request_state *server)
{
	struct address_key key = {.incarnation = here->target->incarnation, .address = server->context};

	submit(here, server);
	bpf_map_delete_elem(&contexts, &key);
	server->serial = 0;
	drop_request(here, &servers);
}

#endif
