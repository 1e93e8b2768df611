/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The life of a request's entry, in the map servers or clients, from its start to its record. */
#ifndef PYTRACEPROP_REQUESTS_BPF_H
#define PYTRACEPROP_REQUESTS_BPF_H

static const struct request_state no_request;

/* What a program reads of a request before anything else. */
struct request_words {
	struct go_string method, host;
	uint64_t url, header; /* *url.URL, and the map of headers */
	struct go_iface context;
};

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
	if (state->replaced)
		return;
	state->span.end_ns = bpf_ktime_get_ns();
	if (bpf_ringbuf_output(&events, &state->span, sizeof(state->span), BPF_RB_NO_WAKEUP))
		count(here, COUNT_RECORD_DROPPED);
	else
		count(here, state->span.kind == SPAN_SERVER ? COUNT_SERVER_SPANS : COUNT_CLIENT_SPANS);
}

#endif
