/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The W3C traceparent field value (Trace Context level 2, section 3.2), eight hexadecimal digits at
 * a time. The same code runs in the kernel and, for the unit tests, in the core.
 *
 *   00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
 *   0  3                                36               53
 */
#ifndef PYTRACEPROP_TRACEPARENT_H
#define PYTRACEPROP_TRACEPARENT_H

enum {
	TRACEPARENT_LEN = 55,	/* of a version 00 value */
	TRACEPARENT_READ = 56,	/* bytes that traceparent_parse looks at */
	TRACEPARENT_FIELD = 70, /* "traceparent: " value "\r\n" */
	FLAG_SAMPLED = 1,
	FLAG_RANDOM = 2,
	FLAGS_DEFINED = FLAG_SAMPLED | FLAG_RANDOM, /* others are not passed on (3.2.2.5) */
};

#define ALL(byte) ((byte) * 0x0101010101010101ull)

struct trace_ids {
	uint64_t trace_id[2]; /* as bytes in network order, like span_id */
	uint64_t span_id;
	uint8_t flags;
};

static inline __attribute__((always_inline)) uint64_t load8(const uint8_t *p)
{
	return *(const uint64_t *)p;
}

/*
 * Four bytes from eight lower-case digits; *bad becomes non-zero for anything else. Not inlined, for
 * its constants would fill the BPF stack.
 */
static __attribute__((noinline)) uint32_t hex8_decode(uint64_t digits, uint64_t *bad)
{
	uint64_t alpha = (digits >> 6) & ALL(0x01);
	uint64_t low = digits ^ (ALL(0x30) + alpha * 0x30); /* 0-9, or 1-6 for a-f */
	uint64_t value;

	*bad |= low & ALL(0xf0);
	low &= ALL(0x0f);
	*bad |= (low + ALL(0x06) + alpha * 3) & ALL(0x10); /* above 9, above 'f' */
	*bad |= alpha & ~((low + ALL(0x0f)) >> 4);	   /* '`' is 0x60: below 'a' */
	value = low + alpha * 9;
	value = ((value & 0x000f000f000f000full) << 4 | value >> 8) & 0x00ff00ff00ff00ffull;
	value = (value | value >> 8) & 0x0000ffff0000ffffull;
	return (uint32_t)(value | value >> 16);
}

static inline __attribute__((always_inline)) uint64_t hex8_encode(uint32_t bytes)
{
	uint64_t x = bytes, alpha;

	x = (x | x << 16) & 0x0000ffff0000ffffull;
	x = (x | x << 8) & 0x00ff00ff00ff00ffull;
	x = ((x >> 4) & 0x000f000f000f000full) | (x & 0x000f000f000f000full) << 8;
	alpha = ((x + ALL(0x06)) >> 4) & ALL(0x01);
	return x + ALL(0x30) + alpha * 39;
}

/* Two digits at p, the rest of the eight filled with valid ones. */
static inline __attribute__((always_inline)) uint8_t hex2_decode(const uint8_t *p, uint64_t *bad)
{
	return (uint8_t)hex8_decode((ALL(0x30) & ~0xffffull) | p[0] | (uint64_t)p[1] << 8, bad);
}

/*
 * raw: the first TRACEPARENT_READ bytes of a value of len bytes (what lies behind len is not used).
 * 1 and *out when it is valid, else 0. A higher version than 00 may have more after a dash
 * (section 3.2.4); version ff and all-zero ids are invalid (3.2.2.1 and following).
 */
static inline __attribute__((always_inline)) int traceparent_parse(const uint8_t *raw, uint64_t len,
								   struct trace_ids *out)
{
	uint64_t bad = 0, hi, lo;
	uint8_t version;

	if (len < TRACEPARENT_LEN)
		return 0;
	version = hex2_decode(raw, &bad);
	hi = hex8_decode(load8(raw + 3), &bad);
	lo = hex8_decode(load8(raw + 11), &bad);
	out->trace_id[0] = hi | lo << 32;
	hi = hex8_decode(load8(raw + 19), &bad);
	lo = hex8_decode(load8(raw + 27), &bad);
	out->trace_id[1] = hi | lo << 32;
	hi = hex8_decode(load8(raw + 36), &bad);
	lo = hex8_decode(load8(raw + 44), &bad);
	out->span_id = hi | lo << 32;
	out->flags = hex2_decode(raw + 53, &bad);
	if (bad || raw[2] != '-' || raw[35] != '-' || raw[52] != '-')
		return 0;
	if (version == 0xff || (version == 0 && len != TRACEPARENT_LEN))
		return 0;
	if (len > TRACEPARENT_LEN && raw[55] != '-')
		return 0;
	return (out->trace_id[0] | out->trace_id[1]) != 0 && out->span_id != 0;
}

/*
 * The HTTP/1 header line, in words: the verifier wants aligned stores on its stack. Nine words, of
 * which TRACEPARENT_FIELD bytes are the line. The name is lower case (section 3.2.1).
 */
static inline __attribute__((always_inline)) void traceparent_field(const struct trace_ids *ids,
								    uint64_t field[9])
{
	uint64_t hi = hex8_encode((uint32_t)ids->span_id), lo = hex8_encode((uint32_t)(ids->span_id >> 32));
	uint64_t flags = hex8_encode(ids->flags) & 0xffff;

	field[0] = 0x7261706563617274ull; /* "tracepar" */
	field[1] = 0x2d3030203a746e65ull; /* "ent: 00-" */
	field[2] = hex8_encode((uint32_t)ids->trace_id[0]);
	field[3] = hex8_encode((uint32_t)(ids->trace_id[0] >> 32));
	field[4] = hex8_encode((uint32_t)ids->trace_id[1]);
	field[5] = hex8_encode((uint32_t)(ids->trace_id[1] >> 32));
	field[6] = '-' | hi << 8;
	field[7] = hi >> 56 | lo << 8;
	field[8] = lo >> 56 | (uint64_t)'-' << 8 | flags << 16 | (uint64_t)'\r' << 32 | (uint64_t)'\n' << 40;
}

#endif
