/* SPDX-License-Identifier: Apache-2.0 */
/* Code of the BPF programs, for tests that would not fit into a kernel. */
#include "core_private.h"
#include "../bpf/traceparent.h"
#include "../bpf/hpack.bpf.h"

/* What that code has in the kernel: memory of a process, and loops. */
#define __noinline __attribute__((noinline))
#define read_user(to, size, from) (memcpy((to), (from), (size)), 0)
#define repeat(times, step, data)                                                                            \
	for (uint32_t turn = 0; turn < (times) && !step(turn, data); turn++)                                 \
		;
enum { MAX_FIELDS = 128 };
#include "../bpf/blocksize.bpf.h"

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

void core_format_hpack(const uint8_t trace_id[16], const uint8_t span_id[8], uint8_t flags, uint8_t field[72])
{
	struct trace_ids ids = {.flags = flags};
	uint64_t words[9];

	memcpy(ids.trace_id, trace_id, 16);
	memcpy(&ids.span_id, span_id, 8);
	hpack_field(&ids, words);
	memcpy(field, words, sizeof(words));
}

int core_list_fits(const uint8_t *block, uint32_t length, uint32_t table, uint64_t limit)
{
	return list_fits((uintptr_t)block, length, table, limit);
}
