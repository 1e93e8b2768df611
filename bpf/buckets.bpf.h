/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Maps of Go before 1.24, and of 1.24 and 1.25 with GOEXPERIMENT=noswissmap (runtime/map.go): arrays of
 * buckets, each with eight cells and a pointer to an overflow bucket. While a map grows, its entries
 * are moved from the old array to the new one a few at a time, so both are searched; a cell whose
 * entry has been moved is marked in its tophash byte.
 */
#ifndef PYTRACEPROP_BUCKETS_BPF_H
#define PYTRACEPROP_BUCKETS_BPF_H

enum {
	HMAP_WRITING = 4,	 /* hashWriting in hmap.flags */
	HMAP_SAME_SIZE_GROW = 8, /* sameSizeGrow */
	MIN_TOP_HASH = 5,	 /* minTopHash: below it a cell is empty, or was moved */
	MAX_B = 20,		 /* far more buckets than are searched */
};

static __noinline long search_bucket(uint32_t index, void *data)
{
	const struct search_context *context = data;
	const struct target *target = context->target;
	struct header_search *search = &context->state->search;
	uint8_t *bucket = context->state->scratch;
	uint64_t used, hashes;

	if (!search->table) {
		if (search->group > search->mask) {
			if (!search->directory) {
				search->complete = true;
				return 1;
			}
			search->groups = search->directory; /* the old array */
			search->mask = search->tables;
			search->directory = 0;
			search->group = 0;
		}
		search->table = search->groups + search->group * target->group_size;
		search->group++;
	}
	if (!open_window(bucket, target->group_size, search->table)) {
		search->failed = true;
		return 1;
	}
	hashes = window_word(bucket, target->group_ctrl);
	/* Bit 7 of each byte that is MIN_TOP_HASH or more; branches would be 256 states to verify. */
	used = ((hashes & ALL(0x7f)) + ALL(0x80 - MIN_TOP_HASH)) | hashes;
	search->table = window_word(bucket, target->bucket_overflow);
	return find_in_slots(context, used);
}

/* The scratch memory holds the head of the hmap. False: it cannot be read now. */
static bool search_buckets(struct search_context *context)
{
	const struct target *target = context->target;
	struct header_search *search = &context->state->search;
	const uint8_t *head = context->state->scratch;
	uint8_t flags = (uint8_t)window_word(head, target->map_writing);
	uint8_t b = (uint8_t)window_word(head, target->hmap_b);

	if (flags & HMAP_WRITING || b > MAX_B)
		return false;
	search->groups = window_word(head, target->map_dir_ptr);
	search->directory = window_word(head, target->map_dir_len);
	search->mask = (1ull << b) - 1;
	search->tables = flags & HMAP_SAME_SIZE_GROW || !b ? search->mask : search->mask >> 1;
	if (!search->groups) /* a map that never held anything */
		search->complete = !window_word(head, target->map_used);
	else
		repeat(MAX_GROUPS, search_bucket, context);
	return true;
}

#endif
