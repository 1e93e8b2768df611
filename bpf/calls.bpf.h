/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the outgoing calls of all protocols have in common: an entry in clients from the start of the call
 * to its end, and one in writes, under the request that a connection will write, since that is done in
 * another goroutine.
 */
#ifndef PYTRACEPROP_CALLS_BPF_H
#define PYTRACEPROP_CALLS_BPF_H

/*
 * Whether bpf_probe_write_user may be used. Set before loading: while it is false the verifier sees
 * that the call is never reached, and a locked-down kernel accepts the program.
 */
const volatile bool write_user = false;

/*
 * Without the old value, which atomic additions give since Linux 5.12 only (commit 5ca419f2864a). Two calls
 * that end at once may both find no user left, and delete the entry twice: at worst a third call's header
 * is not added, which is counted.
 */
static inline void add_users(struct request_ref *ref, int64_t by)
{
	__sync_fetch_and_add(&ref->users, by);
}

static void expect_write(const struct here *here, const struct request_state *client)
{
	struct address_key key = {.incarnation = here->target->incarnation, .address = client->request};
	struct request_ref fresh = {.goid = here->goid, .serial = client->serial, .users = 1};
	struct request_ref *ref;

	if (!bpf_map_update_elem(&writes, &key, &fresh, BPF_NOEXIST))
		return;
	ref = bpf_map_lookup_elem(&writes, &key);
	if (!ref) {
		count(here, COUNT_MAP_FULL);
		return;
	}
	/* One *Request in two calls at once: which of them is being written cannot be told. */
	add_users(ref, 1);
	ref->serial = 0;
}

static void forget_write(const struct here *here, const struct request_state *client)
{
	struct address_key key = {.incarnation = here->target->incarnation, .address = client->request};
	struct request_ref *ref = bpf_map_lookup_elem(&writes, &key);

	if (!ref)
		return;
	add_users(ref, -1);
	if (*(volatile int64_t *)&ref->users <= 0)
		bpf_map_delete_elem(&writes, &key);
}

static void forget_call(const struct here *here, struct request_state *client)
{
	forget_write(here, client);
	client->serial = 0;
	drop_request(here, &clients);
}

/* A fresh entry of this goroutine. call: what tells this call from others. */
static struct request_state *new_call(const struct here *here, uint64_t request, uint64_t call)
{
	struct request_state *client = new_request(here, &clients);

	if (!client)
		return 0;
	client->span.start_ns = bpf_ktime_get_ns();
	client->span.kind = SPAN_CLIENT;
	client->span.incarnation = here->target->incarnation;
	client->span.goid = here->goid;
	client->request = request;
	client->other = call;
	return client;
}

/* The parent, or a new trace; the ids; what the span says of the request. Then its write is awaited. */
static __noinline int begin_call(const struct here *here, struct request_state *client,
				 const struct request_words *words)
{
	const struct target *target;
	struct go_string path, host;
	uint64_t serial;

	if (!here || !client || !words)
		return 0;
	target = here->target;
	client->url = words->url;
	if (!find_parent(here, client, &words->context)) {
		uint64_t trace[2] = {random_id(), random_id()};

		__builtin_memcpy(client->span.trace_id, trace, 16);
		__builtin_memset(client->span.parent_span_id, 0, 8);
		client->span.trace_flags = FLAG_SAMPLED | FLAG_RANDOM;
		client->has_incoming = 0;
		count(here, COUNT_NEW_TRACE);
	}
	serial = random_id();
	__builtin_memcpy(client->span.span_id, &serial, 8);

	path = read_string(words->url + target->url_path);
	host = words->host.len ? words->host : read_string(words->url + target->url_host);
	client->span.method_len =
		keep_string(words->method, client->span.method, KEEP_METHOD, client->span.truncated);
	client->span.path_len = keep_string(path, client->span.path, KEEP_PATH, client->span.truncated);
	client->span.host_len = keep_string(host, client->span.host, KEEP_HOST, client->span.truncated);

	asm volatile("" ::: "memory");
	*(volatile uint64_t *)&client->serial = serial;
	expect_write(here, client);
	return 0;
}

/* The call that a request being written belongs to; NULL, and a count, where that cannot be told. */
static struct request_state *call_of(const struct here *here, const struct request_ref *ref, uint64_t *serial)
{
	struct request_state *client = find_request(here, &clients, ref->goid);

	*serial = ref->serial;
	if (!*serial) {
		count(here, COUNT_NOT_INJECTED_AMBIGUOUS);
		return 0;
	}
	if (!client || client->serial != *serial) {
		count(here, COUNT_NOT_INJECTED_REQUEST_UNKNOWN);
		return 0;
	}
	return client;
}

/* The application's own header decides: it is what goes out. */
static void use_application_header(const struct here *here, struct request_state *client,
				   const struct trace_ids *own)
{
	uint64_t trace[2], zero = 0;

	if (client->has_incoming && own->span_id == client->incoming.span_id &&
	    own->trace_id[0] == client->incoming.trace_id[0] &&
	    own->trace_id[1] == client->incoming.trace_id[1]) {
		/* What came in, passed on: a proxy, not a tracer. Our span keeps its own id. */
		client->span.header = HEADER_FORWARDED;
		count(here, COUNT_FORWARDED_HEADER);
		return;
	}
	__builtin_memcpy(trace, client->span.trace_id, 16);
	if (trace[0] != own->trace_id[0] || trace[1] != own->trace_id[1])
		__builtin_memcpy(client->span.parent_span_id, &zero, 8); /* in another trace */
	__builtin_memcpy(client->span.trace_id, own->trace_id, 16);
	__builtin_memcpy(client->span.span_id, &own->span_id, 8);
	client->span.trace_flags = own->flags;
	client->span.header = HEADER_APPLICATION;
	count(here, COUNT_APPLICATION_HEADER);
}

/* Whether our header is to be added to the request with this map of headers. All else is settled here. */
static __noinline bool wants_header(const struct here *here, struct request_state *client, uint64_t headers)
{
	struct trace_ids own = {};
	enum field_state field;

	if (!here || !client)
		return false;
	client->span.header = HEADER_NONE; /* of an earlier attempt */
	field = find_traceparent(here->target, headers, client, &own);
	if (field == FIELD_VALID) {
		use_application_header(here, client, &own);
	} else if (field == FIELD_INVALID) {
		client->span.header = HEADER_APPLICATION;
		count(here, COUNT_APPLICATION_HEADER_INVALID);
	} else if (field == FIELD_UNSURE) {
		count(here, COUNT_NOT_INJECTED_HEADERS_UNREADABLE);
	} else if (!here->target->inject || !write_user) {
		count(here, COUNT_NOT_INJECTED_OFF);
	} else {
		return true;
	}
	return false;
}

/* The ids to inject, if they are that call's to the last. */
static inline bool copy_ids(const struct here *here, const struct request_state *client, uint64_t serial,
			    struct trace_ids *ids)
{
	__builtin_memcpy(ids->trace_id, client->span.trace_id, 16);
	__builtin_memcpy(&ids->span_id, client->span.span_id, 8);
	ids->flags = client->span.trace_flags;
	asm volatile("" ::: "memory");
	if (*(volatile const uint64_t *)&client->serial == serial)
		return true;
	count(here, COUNT_NOT_INJECTED_REQUEST_UNKNOWN);
	return false;
}

#endif
