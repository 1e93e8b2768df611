/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The request that an outgoing call belongs to: first by the call's context.Context, hop by hop
 * along the field that each context type keeps its parent in, then by the calling goroutine.
 */
#ifndef PYTRACEPROP_PARENT_BPF_H
#define PYTRACEPROP_PARENT_BPF_H

struct context_walk {
	const struct target *target;
	struct go_iface context;
	uint64_t goid, serial;
	bool ended, unreadable;
};

/* From a context to the one that it wraps. False: its type wraps none, as far as is known. */
static __always_inline bool enter_parent(uint32_t incarnation, struct go_iface *context, bool *unreadable)
{
	struct context_type_key type = {.incarnation = incarnation};
	uint64_t value = context->data;
	uint32_t *place;

	/* First as an itab that was seen before: then its type need not be read. */
	type.type = context->itab;
	place = bpf_map_lookup_elem(&context_types, &type);
	if (!place) {
		type.type = itab_type(context->itab);
		*unreadable = !type.type;
		place = bpf_map_lookup_elem(&context_types, &type);
		if (!place)
			return false;
		type.type = context->itab;
		bpf_map_update_elem(&context_types, &type, place, BPF_ANY);
	}
	if (*place >> 16)
		value = read_word(value + (*place >> 16) - 1);
	*context = read_iface(value + (*place & 0xffff));
	return true;
}

static __noinline long next_context(uint32_t index, void *data)
{
	struct context_walk *walk = data;
	struct address_key key = {.incarnation = walk->target->incarnation, .address = walk->context.data};
	struct request_ref *ref;

	walk->ended = true;
	if (!walk->context.itab || !walk->context.data)
		return 1;
	ref = bpf_map_lookup_elem(&contexts, &key);
	if (ref) {
		walk->goid = ref->goid;
		walk->serial = ref->serial;
		return 1;
	}
	if (!enter_parent(walk->target->incarnation, &walk->context, &walk->unreadable))
		return 1;
	walk->ended = false;
	return 0;
}

/*
 * Copies the server request's ids, and what came in, unless it ends meanwhile. serial 0 takes
 * whatever request the entry holds.
 */
static inline bool copy_parent(struct request_state *server, uint64_t serial, struct request_state *client)
{
	uint64_t seen = *(volatile uint64_t *)&server->serial;

	if (!seen || (serial && seen != serial))
		return false;
	__builtin_memcpy(client->span.trace_id, server->span.trace_id, 16);
	__builtin_memcpy(client->span.parent_span_id, server->span.span_id, 8);
	client->span.trace_flags = server->span.trace_flags;
	client->incoming = server->incoming;
	client->has_incoming = server->has_incoming;
	asm volatile("" ::: "memory");
	return *(volatile uint64_t *)&server->serial == seen;
}

static __noinline int find_parent(const struct here *here, struct request_state *client,
				  const struct go_iface *context)
{
	struct context_walk walk;
	struct request_state *server;

	if (!here || !client || !context)
		return 0;
	walk.target = here->target;
	walk.goid = 0;
	walk.serial = 0;
	walk.ended = false;
	walk.unreadable = false;
	walk.context = *context;
	repeat(MAX_HOPS, next_context, &walk);
	if (!walk.ended)
		count(here, COUNT_PARENT_TOO_FAR);
	if (walk.unreadable)
		count(here, COUNT_MEMORY_UNREADABLE);
	if (walk.goid) {
		server = find_request(here, &servers, walk.goid);
		if (server && copy_parent(server, walk.serial, client)) {
			count(here, COUNT_PARENT_BY_CONTEXT);
			return 1;
		}
	}
	server = find_request(here, &servers, here->goid);
	if (server && copy_parent(server, 0, client)) {
		count(here, COUNT_PARENT_BY_GOROUTINE);
		return 1;
	}
	return 0;
}

#endif
