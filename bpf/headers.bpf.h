/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Finding "traceparent" in a parsed http.Header, a map[string][]string.
 *
 * Swiss maps (Go 1.24, internal/runtime/maps): up to eight entries are one group; more are tables of
 * groups under a directory. A group has a control word, one byte a slot, whose high bit is clear
 * where the slot is used, then the slots. Groups are read one after another, without hashing, so
 * position, letter case and number of fields do not matter.
 */
#ifndef PYTRACEPROP_HEADERS_BPF_H
#define PYTRACEPROP_HEADERS_BPF_H

enum {
	MAX_GROUPS = 512, /* read per search: 4096 slots */
	NAME_LEN = 11,	  /* of "traceparent" */
	SLOTS = 8,
};

enum field_state {
	FIELD_MISSING, /* every group was seen */
	FIELD_VALID,
	FIELD_INVALID, /* several values, or not what the W3C text allows */
	FIELD_UNSURE,  /* the map could not be read to its end */
};

struct header_search {
	const struct target *target;
	uint8_t *scratch;
	uint64_t groups, mask, group; /* of the current table; mask is their number less one */
	uint64_t directory, tables, table;
	uint64_t values, values_len;
	bool found, complete, failed;
};

static bool open_table(struct header_search *search)
{
	uint64_t address = read_word(search->directory + search->table * 8);

	/* The directory names a table several times when another one has split. */
	if (search->table && address == read_word(search->directory + search->table * 8 - 8)) {
		search->groups = 0;
		return true;
	}
	search->groups = read_word(address + search->target->table_groups_data);
	search->mask = read_word(address + search->target->table_groups_mask);
	return search->groups != 0;
}

static bool is_traceparent(uint64_t name)
{
	uint64_t text[2] = {};

	if (read_user(text, NAME_LEN, (void *)name))
		return false;
	/* Of the letters, only upper case gains bit 0x20. */
	return (text[0] | ALL(0x20)) == 0x7261706563617274ull && (text[1] | 0x202020) == 0x746e65ull;
}

static long search_group(uint32_t index, void *data)
{
	struct header_search *search = data;
	const struct target *target = search->target;
	uint8_t *scratch = search->scratch;
	uint64_t used;
	int slot;

	if (search->directory && (!search->groups || search->group > search->mask)) {
		search->table++;
		search->group = 0;
		if (search->table >= search->tables) {
			search->complete = true;
			return 1;
		}
		if (!open_table(search)) {
			search->failed = true;
			return 1;
		}
		if (!search->groups)
			return 0;
	}
	if (read_user(scratch, target->group_size & SCRATCH_MASK,
		      (void *)(search->groups + search->group * target->group_size))) {
		search->failed = true;
		return 1;
	}
	search->group++;
	used = ~*(uint64_t *)(scratch + (target->group_ctrl & SCRATCH_MASK));
	for (slot = 0; slot < SLOTS; slot++) {
		uint32_t key = (target->group_keys + slot * target->group_key_stride) & SCRATCH_MASK;
		uint32_t elem = (target->group_elems + slot * target->group_elem_stride) & SCRATCH_MASK;
		struct go_string *name = (void *)(scratch + key);
		struct go_slice *values = (void *)(scratch + elem);

		if (!(used >> (slot * 8) & 0x80) || name->len != NAME_LEN)
			continue;
		if (!is_traceparent(name->data))
			continue;
		search->values = values->data;
		search->values_len = values->len;
		search->found = true;
		return 1;
	}
	if (!search->directory) {
		search->complete = true;
		return 1;
	}
	return 0;
}

/* A function of its own, because all frames together may take 512 bytes. */
static __noinline enum field_state read_value(const struct header_search *search, struct trace_ids *ids)
{
	struct go_string value;

	/* Several header fields: section 3.2 allows one. */
	if (search->values_len != 1)
		return FIELD_INVALID;
	value = read_string(search->values);
	if (value.len < TRACEPARENT_LEN)
		return FIELD_INVALID;
	if (read_user(search->scratch, value.len > TRACEPARENT_LEN ? TRACEPARENT_READ : TRACEPARENT_LEN,
		      (void *)value.data))
		return FIELD_UNSURE;
	return traceparent_parse(search->scratch, value.len, ids) ? FIELD_VALID : FIELD_INVALID;
}

/* map: the address of an internal/runtime/maps.Map, or 0 for a nil map. */
static __noinline enum field_state find_traceparent(const struct target *target, uint64_t map,
						    uint8_t *scratch, struct trace_ids *ids)
{
	struct header_search search = {.target = target, .scratch = scratch};

	if (!target || !scratch || !ids)
		return FIELD_UNSURE;
	if (!map)
		return FIELD_MISSING;
	if (!open_window(scratch, target->map_window, map))
		return FIELD_UNSURE;
	if (window_word(scratch, target->map_writing) & 0xff)
		return FIELD_UNSURE;
	search.tables = window_word(scratch, target->map_dir_len);
	search.groups = window_word(scratch, target->map_dir_ptr);
	if (!search.groups) /* a map that never held anything */
		return window_word(scratch, target->map_used) ? FIELD_UNSURE : FIELD_MISSING;
	if (search.tables) {
		search.directory = search.groups;
		if (!open_table(&search))
			return FIELD_UNSURE;
	}
	bpf_loop(MAX_GROUPS, search_group, &search, 0);
	if (!search.found)
		return search.complete && !search.failed ? FIELD_MISSING : FIELD_UNSURE;
	return read_value(&search, ids);
}

#endif
