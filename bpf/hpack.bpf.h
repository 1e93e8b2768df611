/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Our header field as HPACK has it (RFC 7541). The same code runs in the kernel and in the unit tests. */
#ifndef PYTRACEPROP_HPACK_BPF_H
#define PYTRACEPROP_HPACK_BPF_H

enum {
	HPACK_FIELD = 69, /* bytes of the field below */
	/* RFC 9113, section 6.5.2: what it adds to the size of the header list. */
	HPACK_LIST_SIZE = 11 + TRACEPARENT_LEN + 32,
};

/*
 * A literal without indexing and with a new name (6.2.2), so that neither side's table changes: 0x00, then
 * name and value, each after its length and not Huffman coded. Nine words, of which HPACK_FIELD bytes are
 * the field.
 */
static inline __attribute__((always_inline)) void hpack_field(const struct trace_ids *ids, uint64_t field[9])
{
	uint64_t trace[4] = {
		hex8_encode((uint32_t)ids->trace_id[0]),
		hex8_encode((uint32_t)(ids->trace_id[0] >> 32)),
		hex8_encode((uint32_t)ids->trace_id[1]),
		hex8_encode((uint32_t)(ids->trace_id[1] >> 32)),
	};
	uint64_t hi = hex8_encode((uint32_t)ids->span_id), lo = hex8_encode((uint32_t)(ids->span_id >> 32));
	uint64_t flags = hex8_encode(ids->flags) & 0xffff;

	field[0] = 0x7065636172740b00ull; /* 0, 11, "tracep" */
	field[1] = 0x303037746e657261ull; /* "arent", 55, "00" */
	field[2] = '-' | trace[0] << 8;
	field[3] = trace[0] >> 56 | trace[1] << 8;
	field[4] = trace[1] >> 56 | trace[2] << 8;
	field[5] = trace[2] >> 56 | trace[3] << 8;
	field[6] = trace[3] >> 56 | (uint64_t)'-' << 8 | hi << 16;
	field[7] = hi >> 48 | lo << 16;
	field[8] = lo >> 48 | (uint64_t)'-' << 16 | flags << 24;
}

#endif
