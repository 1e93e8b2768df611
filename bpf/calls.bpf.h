/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the outgoing calls of all protocols have in common. */
#ifndef PYTRACEPROP_CALLS_BPF_H
#define PYTRACEPROP_CALLS_BPF_H

/*
 * Whether bpf_probe_write_user may be used. Set before loading: while it is false the verifier sees
 * that the call is never reached, and a locked-down kernel accepts the program.
 */
const volatile bool write_user = false;

/* The application's own header decides: it is what goes out. */
static void use_application_header(const struct here *here, struct request_state *client,
				   const struct trace_ids *own)
{
	uint64_t trace[2], zero = 0;

	if (client->has_incoming && own->span_id == client->incoming.span_id &&
	    own->trace_id[0] == client->incoming.trace_id[0] &&
	    own->trace_id[1] == client->incoming.trace_id[1]) {
		/* What came in, passed on: a proxy, not a tracer. Our span keeps its own id. */
		client->span.header = HEADER_FORWARDED;
		count(here, COUNT_FORWARDED_HEADER);
		return;
	}
	__builtin_memcpy(trace, client->span.trace_id, 16);
	if (trace[0] != own->trace_id[0] || trace[1] != own->trace_id[1])
		__builtin_memcpy(client->span.parent_span_id, &zero, 8); /* in another trace */
	__builtin_memcpy(client->span.trace_id, own->trace_id, 16);
	__builtin_memcpy(client->span.span_id, &own->span_id, 8);
	client->span.trace_flags = own->flags;
	client->span.header = HEADER_APPLICATION;
	count(here, COUNT_APPLICATION_HEADER);
}

#endif
