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
	uint32_t incarnation, unused;
	uint64_t goid;
};

struct address_key {
	uint32_t incarnation, unused;
	uint64_t address;
};

struct request_state {
	uint64_t serial;
	uint64_t request; /* *http.Request */
	uint64_t other;	  /* server: *http.response; client: what tells this call from others */
	uint64_t context; /* server: the request's context */
	struct trace_ids incoming;
	uint8_t has_incoming;
	struct span_record span;
	uint8_t scratch[SCRATCH_MASK + 1 + 32];
};

/* Refers to a request_state; serial 0 means that several calls share the key. */
struct request_ref {
	uint64_t goid, serial;
	int64_t users;
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

/* What a program knows at every site. */
struct here {
	struct target *target;
	struct counters *counters;
	uint64_t goid; /* not at SITE_HTTP1_CLIENT_WRITE */
	enum site site;
};

/* Atomic although per CPU: a program on a uprobe can be preempted by another. */
static inline void count(const struct here *here, enum counter which)
{
	__sync_fetch_and_add(&here->counters->count[which], 1);
}

/* False where the link outlived its target (a detach is under way): then touch nothing. */
static inline bool look_around(struct pt_regs *regs, struct here *here)
{
	uint64_t cookie = bpf_get_attach_cookie(regs);
	uint32_t slot = (cookie >> 8) & 0xffff;

	here->site = cookie & 0xff;
	here->target = bpf_map_lookup_elem(&targets, &slot);
	here->counters = bpf_map_lookup_elem(&counts, &slot);
	if (!here->target || !here->counters)
		return false;
	if (here->target->incarnation != cookie >> 32) {
		count(here, COUNT_STALE_SITE);
		return false;
	}
	here->goid = 0;
	if (here->site == SITE_HTTP1_CLIENT_WRITE) /* the connection's goroutine, of no interest */
		return true;
	here->goid = read_word(regs->r14 + here->target->g_goid); /* R14 holds g, Go 1.17 and later */
	if (!here->goid) {
		count(here, COUNT_MEMORY_UNREADABLE);
		return false;
	}
	return true;
}

static const struct request_state no_request;

/* A fresh, zeroed entry of this goroutine, or NULL and a count. */
static inline struct request_state *new_request(const struct here *here, void *map)
{
	struct goroutine_key key = {.incarnation = here->target->incarnation, .goid = here->goid};

	if (bpf_map_update_elem(map, &key, &no_request, BPF_ANY)) {
		count(here, COUNT_MAP_FULL);
		return 0;
	}
	return bpf_map_lookup_elem(map, &key);
}

static inline struct request_state *find_request(const struct here *here, void *map, uint64_t goid)
{
	struct goroutine_key key = {.incarnation = here->target->incarnation, .goid = goid};

	return bpf_map_lookup_elem(map, &key);
}

static inline void drop_request(const struct here *here, void *map)
{
	struct goroutine_key key = {.incarnation = here->target->incarnation, .goid = here->goid};

	bpf_map_delete_elem(map, &key);
}

/* Never 0, which would be an invalid id. */
static inline uint64_t random_id(void)
{
	uint64_t id = (uint64_t)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();

	return id ? id : 1;
}

/* Without wake-up: an interrupt per record costs fifty times the record itself. */
static inline void submit(const struct here *here, struct request_state *state)
{
	state->span.end_ns = bpf_ktime_get_ns();
	if (bpf_ringbuf_output(&events, &state->span, sizeof(state->span), BPF_RB_NO_WAKEUP))
		count(here, COUNT_RECORD_DROPPED);
	else
		count(here, state->span.kind == SPAN_SERVER ? COUNT_SERVER_SPANS : COUNT_CLIENT_SPANS);
}

#endif
