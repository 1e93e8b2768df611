/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps. Every object that includes this gets the same ones: the core unites maps of one name.
 *
 * Entries are keyed by goroutine id within a process incarnation, never by an address alone: the
 * runtime reuses those. An entry's serial (its span id) is written last and read before and after
 * its contents, because a preallocated hash map may hand a deleted element to another key at once.
 * Entries also serve as scratch memory: programs on uprobes can be preempted, so per-CPU scratch
 * would be shared by two of them.
 */
#ifndef PYTRACEPROP_STATE_BPF_H
#define PYTRACEPROP_STATE_BPF_H

enum {
	MAX_TARGETS = 1024, /* processes attached at once */
};

struct goroutine_key {
	uint32_t incarnation, kind; /* enum key_kind */
	uint64_t goid;		    /* or an address, as the kind says */
};

enum key_kind {
	KEY_GOROUTINE = 0,
	KEY_GRPC_CALL = 1, /* a *grpc.clientStream, from which one call cannot be told by its goroutine */
};

struct address_key {
	uint32_t incarnation, unused;
	uint64_t address;
};

/*
 * Where the search of a map stands (mapsearch.bpf.h). Here and not on a program's stack, of which the
 * verifier tracks every value: what differs from turn to turn of a loop would multiply.
 */
struct header_search {
	uint64_t groups, mask, group; /* of the current array; mask is their number less one */
	/* Swiss: the directory of tables. Buckets: the old array while a map grows, its mask. */
	uint64_t directory, tables;
	uint64_t table; /* Swiss: the current one. Buckets: the overflow bucket to come, or 0 */
	uint64_t values, values_len;
	uint64_t found, complete, failed;
};

/* Where the search of a list of fields stands (fieldlist.bpf.h). */
struct field_search {
	uint64_t next, left, number; /* the slice's rest; how many fields of it are in the scratch memory */
	uint64_t bytes;		     /* the size of the list, as RFC 9113, section 6.5.2, has it */
	uint64_t matches, value;     /* traceparent fields; where the last one's value is */
	uint64_t failed;
};

struct request_state {
	uint64_t serial;
	uint64_t request; /* *http.Request */
	uint64_t other;	  /* server: *http.response; client: what tells this call from others */
	uint64_t context; /* server: the request's context */
	uint64_t url;	  /* client: *url.URL */
	struct trace_ids incoming;
	uint8_t has_incoming;
	uint8_t has_status;  /* grpc: span.status was told */
	uint8_t replaced;    /* another entry reports this request: served by net/http on behalf of grpc */
	uint8_t unconnected; /* client: HTTP/2 has no connection for it, so net/http is about to find one */
	struct span_record span;
	struct header_search search;
	struct field_search fields;
	uint8_t scratch[SCRATCH_MASK + 1 + 32];
};

/* Refers to a request_state; serial 0 means that several calls share the key. */
struct request_ref {
	uint64_t goid, serial;
	int64_t users;
};

/*
 * A grpc call's headers, which a connection's writer (the key's goroutine) is making a frame of: the call,
 * and the writer's buffer (*bufWriter, *bytes.Buffer).
 */
struct grpc_write {
	uint64_t call, serial;
	uint64_t writer, block;
	uint32_t stream;
};

/* Sizes are set before loading (csrc/core.c), in proportion to Tracer(max_requests=...). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct goroutine_key);
	__type(value, struct request_state);
} servers SEC(".maps"), clients SEC(".maps");

/* contexts: a server request's context; writes: the *Request that a connection will write. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address_key);
	__type(value, struct request_ref);
} contexts SEC(".maps"), writes SEC(".maps");

/* calls: the context that grpc makes for each call, from which those of its attempts are derived. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address_key);
	__type(value, struct request_ref);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct goroutine_key);
	__type(value, struct grpc_write);
} grpc_writes SEC(".maps");

/*
 * The offset, in each type that wraps a context.Context, of that context. Keys are the addresses of
 * type descriptors, from Python, and of itabs, added by the programs as they meet them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, 1); /* BPF_F_NO_PREALLOC: seldom written */
	__type(key, struct context_type_key);
	__type(value, uint32_t);
} context_types SEC(".maps");

/* The attached processes by their tgid as the tracer numbers it (pidns.bpf.h). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_TARGETS);
	__type(key, uint32_t);
	__type(value, struct watched_process);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TARGETS);
	__type(key, uint32_t);
	__type(value, struct target);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_TARGETS);
	__type(key, uint32_t);
	__type(value, struct counters);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

#endif
