/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Searching a map[string][]string for "traceparent": what both layouts of Go's maps have in common.
 * Cells are looked at one after another, without hashing, so position, letter case and number of
 * fields do not matter.
 */
#ifndef PYTRACEPROP_MAPSEARCH_BPF_H
#define PYTRACEPROP_MAPSEARCH_BPF_H

enum {
	NAME_LEN = 11, /* of "traceparent" */
	SLOTS = 8,     /* cells of a group, or of a bucket */
};

/* What the steps of a search are given. */
struct search_context {
	const struct target *target;
	struct request_state *state; /* with the search, and the group in its scratch memory */
};

static bool is_traceparent(struct header_search *search, uint64_t name)
{
	uint64_t text[2] = {};

	if (read_user(text, NAME_LEN, (void *)name)) {
		search->failed = true;
		return false;
	}
	/* Of the letters, only upper case gains bit 0x20. */
	return (text[0] | ALL(0x20)) == 0x7261706563617274ull && (text[1] | 0x202020) == 0x746e65ull;
}

/* The group is in the scratch memory; bit 7 of a byte of used says that the cell holds an entry. */
static long find_in_slots(const struct search_context *context, uint64_t used)
{
	const struct target *target = context->target;
	struct header_search *search = &context->state->search;
	int slot;

	/*
	 * The verifier of Linux 5.10 refuses a loop whose head is also reached from an instruction
	 * of the loop that is no jump (check_cfg: "back-edge"), and clang lays this one out so.
	 */
#pragma unroll
	for (slot = 0; slot < SLOTS; slot++) {
		uint32_t key = (target->group_keys + slot * target->group_key_stride) & SCRATCH_MASK;
		uint32_t elem = (target->group_elems + slot * target->group_elem_stride) & SCRATCH_MASK;
		struct go_string *name = (void *)(context->state->scratch + key);
		struct go_slice *values = (void *)(context->state->scratch + elem);

		if (!(used >> (slot * 8) & 0x80) || name->len != NAME_LEN)
			continue;
		if (!is_traceparent(search, name->data))
			continue;
		search->values = values->data;
		search->values_len = values->len;
		search->found = true;
		return 1;
	}
	return 0;
}

#endif
