/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The "traceparent" of a parsed http.Header. */
#ifndef PYTRACEPROP_HEADERS_BPF_H
#define PYTRACEPROP_HEADERS_BPF_H

#include "mapsearch.bpf.h"
#include "swissmap.bpf.h"
#include "buckets.bpf.h"

enum field_state {
	FIELD_MISSING, /* every cell was seen */
	FIELD_VALID,
	FIELD_INVALID, /* several values, or not what the W3C text allows */
	FIELD_UNSURE,  /* the map could not be read to its end */
};

/* A function of its own, because all frames together may take 512 bytes. */
static __noinline enum field_state read_value(struct request_state *state, struct trace_ids *ids)
{
	struct go_string value;

	/* Several header fields: section 3.2 allows one. */
	if (state->search.values_len != 1)
		return FIELD_INVALID;
	value = read_string(state->search.values);
	if (value.len < TRACEPARENT_LEN)
		return FIELD_INVALID;
	if (read_user(state->scratch, value.len > TRACEPARENT_LEN ? TRACEPARENT_READ : TRACEPARENT_LEN,
		      (void *)value.data))
		return FIELD_UNSURE;
	return traceparent_parse(state->scratch, value.len, ids) ? FIELD_VALID : FIELD_INVALID;
}

/* map: the address of the map's head, or 0 for a nil map. */
static __noinline enum field_state find_traceparent(const struct target *target, uint64_t map,
						    struct request_state *state, struct trace_ids *ids)
{
	struct search_context context = {.target = target, .state = state};

	if (!target || !state || !ids)
		return FIELD_UNSURE;
	if (!map)
		return FIELD_MISSING;
	if (!open_window(state->scratch, target->map_window, map))
		return FIELD_UNSURE;
	__builtin_memset(&state->search, 0, sizeof(state->search));
	if (!(target->bucket_overflow ? search_buckets(&context) : search_groups(&context)))
		return FIELD_UNSURE;
	if (!state->search.found)
		return state->search.complete && !state->search.failed ? FIELD_MISSING : FIELD_UNSURE;
	return read_value(state, ids);
}

#endif
