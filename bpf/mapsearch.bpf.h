/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Searching a map[string][]string for "traceparent": what both layouts of Go's maps have in common.
 * Cells are looked at one after another, without hashing, so position, letter case and number of
 * fields do not matter.
 */
#ifndef PYTRACEPROP_MAPSEARCH_BPF_H
#define PYTRACEPROP_MAPSEARCH_BPF_H

enum {
	MAX_GROUPS = 512, /* read per search: 4096 cells */
	NAME_LEN = 11,	  /* of "traceparent" */
	SLOTS = 8,	  /* cells of a group, or of a bucket */
};

struct header_search {
	const struct target *target;
	uint8_t *scratch;
	uint64_t groups, mask, group; /* of the current array; mask is their number less one */
	/* Swiss: the directory of tables. Buckets: the old array while a map grows, its mask. */
	uint64_t directory, tables;
	uint64_t table; /* Swiss: the current one. Buckets: the overflow bucket to come, or 0 */
	uint64_t values, values_len;
	bool found, complete, failed;
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
static long find_in_slots(struct header_search *search, uint64_t used)
{
	const struct target *target = search->target;
	int slot;

	for (slot = 0; slot < SLOTS; slot++) {
		uint32_t key = (target->group_keys + slot * target->group_key_stride) & SCRATCH_MASK;
		uint32_t elem = (target->group_elems + slot * target->group_elem_stride) & SCRATCH_MASK;
		struct go_string *name = (void *)(search->scratch + key);
		struct go_slice *values = (void *)(search->scratch + elem);

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
