/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Swiss maps (Go 1.24, internal/runtime/maps): up to eight entries are one group; more are tables of
 * groups under a directory. A group has a control word, one byte a slot, whose high bit is clear
 * where the slot is used, then the slots.
 */
#ifndef PYTRACEPROP_SWISSMAP_BPF_H
#define PYTRACEPROP_SWISSMAP_BPF_H

static bool open_table(const struct target *target, struct header_search *search)
{
	uint64_t address = read_word(search->directory + search->table * 8);

	/* The directory names a table several times when another one has split. */
	if (search->table && address == read_word(search->directory + search->table * 8 - 8)) {
		search->groups = 0;
		return true;
	}
	search->groups = read_word(address + target->table_groups_data);
	search->mask = read_word(address + target->table_groups_mask);
	return search->groups != 0;
}

static __noinline long search_group(uint32_t index, void *data)
{
	const struct search_context *context = data;
	const struct target *target = context->target;
	struct header_search *search = &context->state->search;
	uint8_t *scratch = context->state->scratch;
	uint64_t used;

	if (search->directory && (!search->groups || search->group > search->mask)) {
		search->table++;
		search->group = 0;
		if (search->table >= search->tables) {
			search->complete = true;
			return 1;
		}
		if (!open_table(target, search)) {
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
	if (find_in_slots(context, used))
		return 1;
	if (!search->directory) {
		search->complete = true;
		return 1;
	}
	return 0;
}

/* The scratch memory holds the head of the Map. False: it cannot be read now. */
static bool search_groups(struct search_context *context)
{
	const struct target *target = context->target;
	struct header_search *search = &context->state->search;
	const uint8_t *head = context->state->scratch;

	if (window_word(head, target->map_writing) & 0xff)
		return false;
	search->tables = window_word(head, target->map_dir_len);
	search->groups = window_word(head, target->map_dir_ptr);
	if (!search->groups) { /* a map that never held anything */
		search->complete = !window_word(head, target->map_used);
		return true;
	}
	if (search->tables) {
		search->directory = search->groups;
		if (!open_table(target, search))
			return false;
	}
	repeat(MAX_GROUPS, search_group, context);
	return true;
}

#endif
