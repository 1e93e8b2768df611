/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How large a list of header fields can be at most (RFC 9113, section 6.5.2), by the block that HPACK made
 * of it (RFC 7541). The table that the block refers to is not looked at: a field of it is as large as the
 * table may be.
 */
#ifndef PYTRACEPROP_BLOCKSIZE_BPF_H
#define PYTRACEPROP_BLOCKSIZE_BPF_H

enum {
	STATIC_FIELDS = 61, /* appendix A; the largest of them counts 60 bytes, a name alone 27 */
	STATIC_FIELD_SIZE = 60,
	STATIC_NAME_SIZE = 27,
	FIELD_OVERHEAD = 32,
};

struct block_walk {
	uint64_t at, end;
	uint64_t table; /* bytes that the encoder's dynamic table may hold */
	uint64_t size;
	bool failed;
};

/* The next eight bytes of the block, or what is left of it. */
static inline uint64_t peek_block(struct block_walk *walk)
{
	uint64_t bytes = 0, left = walk->end - walk->at;

	if (walk->at >= walk->end)
		walk->failed = true;
	else if (read_user(&bytes, left < sizeof(bytes) ? left & 7 : sizeof(bytes), (void *)walk->at))
		walk->failed = true;
	return bytes;
}

/* An integer (5.1) whose prefix is the bits of mask in the first byte; the walk goes on behind it. */
static inline uint64_t walk_integer(struct block_walk *walk, uint64_t bytes, uint32_t mask)
{
	uint64_t value = bytes & mask;
	uint32_t used = 1, last = 0;

	if (value == mask) {
		value += bytes >> 8 & 0x7f;
		last = bytes >> 8 & 0x80;
		used = 2;
		if (last) {
			value += (bytes >> 16 & 0x7f) << 7;
			last = bytes >> 16 & 0x80;
			used = 3;
		}
		if (last) {
			value += (bytes >> 24 & 0x7f) << 14;
			last = bytes >> 24 & 0x80;
			used = 4;
		}
	}
	if (last) /* 2 MiB and more */
		walk->failed = true;
	walk->at += used;
	return value;
}

/* A string (5.2). The shortest code of a Huffman coded one has five bits. */
static inline void walk_string(struct block_walk *walk)
{
	uint64_t bytes = peek_block(walk);
	uint64_t length = walk_integer(walk, bytes, 0x7f);

	walk->size += bytes & 0x80 ? length * 8 / 5 + 1 : length;
	walk->at += length;
}

/* One field, or a change of the table's size (6.1 to 6.3). */
static __noinline long walk_field(uint32_t index, void *data)
{
	struct block_walk *walk = data;
	uint64_t bytes, number;

	if (walk->at >= walk->end || walk->failed)
		return 1;
	bytes = peek_block(walk);
	if (bytes & 0x80) {
		number = walk_integer(walk, bytes, 0x7f);
		walk->size += number <= STATIC_FIELDS ? STATIC_FIELD_SIZE : walk->table;
		return 0;
	}
	if ((bytes & 0xe0) == 0x20) {
		walk_integer(walk, bytes, 0x1f);
		return 0;
	}
	number = walk_integer(walk, bytes, bytes & 0x40 ? 0x3f : 0x0f);
	if (!number)
		walk_string(walk);
	else
		walk->size += number <= STATIC_FIELDS ? STATIC_NAME_SIZE : walk->table;
	walk_string(walk);
	walk->size += FIELD_OVERHEAD;
	return 0;
}

/* Whether the list takes at most so many bytes; false also where that cannot be told. */
static __noinline bool list_fits(uint64_t block, uint64_t length, uint64_t table, uint64_t limit)
{
	struct block_walk walk = {.at = block, .end = block + length, .table = table};

	/* Each byte may stand for a field: most often that is enough to know. */
	if (table < STATIC_FIELD_SIZE + FIELD_OVERHEAD)
		walk.table = table = STATIC_FIELD_SIZE + FIELD_OVERHEAD;
	if (length <= limit / table)
		return true;
	repeat(MAX_FIELDS, walk_field, &walk);
	return walk.at == walk.end && !walk.failed && walk.size <= limit;
}

#endif
