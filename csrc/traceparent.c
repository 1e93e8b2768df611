/* SPDX-License-Identifier: Apache-2.0 */
/* The BPF programs' own traceparent code, for tests that would not fit into a kernel. */
#include "core_private.h"
#include "../bpf/traceparent.h"

int core_parse_traceparent(const uint8_t *value, uint32_t length, uint8_t trace_id[16], uint8_t span_id[8],
			   uint8_t *flags)
{
	uint8_t raw[TRACEPARENT_READ];
	struct trace_ids ids = {};

	/* What an earlier value left in the programs' memory may look like a part of this one. */
	memset(raw, '0', sizeof(raw));
	memcpy(raw, value, length < sizeof(raw) ? length : sizeof(raw));
	if (!traceparent_parse(raw, length, &ids))
		return 0;
	memcpy(trace_id, ids.trace_id, 16);
	memcpy(span_id, &ids.span_id, 8);
	*flags = ids.flags;
	return 1;
}

void core_format_field(const uint8_t trace_id[16], const uint8_t span_id[8], uint8_t flags, uint8_t line[72])
{
	struct trace_ids ids = {.flags = flags};
	uint64_t words[9];

	memcpy(ids.trace_id, trace_id, 16);
	memcpy(&ids.span_id, span_id, 8);
	traceparent_field(&ids, words);
	memcpy(line, words, sizeof(words));
}
