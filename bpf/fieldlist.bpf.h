/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The "traceparent" of a []hpack.HeaderField, and the size of all its fields. */
#ifndef PYTRACEPROP_FIELDLIST_BPF_H
#define PYTRACEPROP_FIELDLIST_BPF_H

enum {
	FIELDS_AT_ONCE = 12, /* of 40 bytes each */
	FIELD_LIST_OVERHEAD = 32,
#ifdef PYTRACEPROP_BASIC
	MAX_FIELD_READS = 16, /* 192 fields */
#else
	MAX_FIELD_READS = 64, /* 768 fields */
#endif
};

struct field_context {
	const struct grpc_layout *layout;
	struct request_state *state; /* with the search, and fields in its scratch memory */
};

static __noinline long next_fields(uint32_t index, void *data)
{
	const struct field_context *context = data;
	const struct grpc_layout *layout = context->layout;
	struct field_search *search = &context->state->fields;
	uint8_t *scratch = context->state->scratch;
	uint32_t slot;

	if (!search->left)
		return 1;
	search->number = search->left < FIELDS_AT_ONCE ? search->left : FIELDS_AT_ONCE;
	if (read_user(scratch, (search->number * layout->field_size) & SCRATCH_MASK, (void *)search->next)) {
		search->failed = true;
		return 1;
	}
#pragma unroll
	for (slot = 0; slot < FIELDS_AT_ONCE; slot++) {
		uint32_t at = slot * layout->field_size;
		struct go_string *name = (void *)(scratch + ((at + layout->field_name) & SCRATCH_MASK));
		struct go_string *value = (void *)(scratch + ((at + layout->field_value) & SCRATCH_MASK));

		/* Read again each time: what the verifier knows of it would multiply. */
		if (slot >= *(volatile uint64_t *)&search->number)
			continue;
		search->bytes += name->len + value->len + FIELD_LIST_OVERHEAD;
		if (name->len != NAME_LEN || !is_traceparent(&context->state->search, name->data))
			continue;
		search->matches++;
		search->value = search->next + at + layout->field_value;
	}
	search->next += search->number * layout->field_size;
	search->left -= search->number;
	return 0;
}

static __noinline enum field_state find_in_fields(const struct grpc_layout *layout,
						  const struct go_string *fields, struct request_state *state,
						  struct trace_ids *ids)
{
	struct field_context context = {.layout = layout, .state = state};

	if (!layout || !fields || !state || !ids)
		return FIELD_UNSURE;
	__builtin_memset(&state->search, 0, sizeof(state->search));
	__builtin_memset(&state->fields, 0, sizeof(state->fields));
	state->fields.next = fields->data;
	state->fields.left = fields->len;
	repeat(MAX_FIELD_READS, next_fields, &context);
	if (state->fields.failed || state->fields.left || state->search.failed)
		return FIELD_UNSURE;
	if (!state->fields.matches)
		return FIELD_MISSING;
	state->search.values = state->fields.value;
	state->search.values_len = state->fields.matches;
	return read_value(state, ids);
}

#endif
