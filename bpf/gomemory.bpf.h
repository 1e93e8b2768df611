/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading values of Go's built-in types out of the traced process. */
#ifndef PYTRACEPROP_GOMEMORY_BPF_H
#define PYTRACEPROP_GOMEMORY_BPF_H

/*
 * The full programs are sleepable (BPF_F_SLEEPABLE for uprobes, Linux 6.0, commit 8c7dcb84e3b7), so that
 * a page which this process has not touched yet is faulted in. Itabs and constant strings are in
 * file-backed memory: with bpf_probe_read_user alone one of the first 500 calls of a fresh process had
 * no parent, most likely because the itab of its context could not be read (seen once, and not since).
 * It comes first because it is cheaper. For the basic programs the core touches those pages itself.
 */
#ifdef PYTRACEPROP_BASIC
#define read_user(to, size, from) bpf_probe_read_user((to), (size), (from))
#else
#define read_user(to, size, from)                                                                            \
	({                                                                                                   \
		long _failed = bpf_probe_read_user((to), (size), (from));                                    \
		_failed ? bpf_copy_from_user((to), (size), (from)) : 0;                                      \
	})
#endif

enum { SCRATCH_MASK = 511 }; /* a Swiss map group of our key and element types takes 328 bytes */

struct go_string {
	uint64_t data, len;
};

struct go_slice {
	uint64_t data, len, cap;
};

struct go_iface {
	uint64_t itab, data;
};

static inline uint64_t read_word(uint64_t address)
{
	uint64_t word = 0;

	read_user(&word, sizeof(word), (void *)address);
	return word;
}

static inline struct go_iface read_iface(uint64_t address)
{
	struct go_iface iface = {};

	read_user(&iface, sizeof(iface), (void *)address);
	return iface;
}

static inline struct go_string read_string(uint64_t address)
{
	struct go_string string = {};

	read_user(&string, sizeof(string), (void *)address);
	return string;
}

/* The dynamic type of a non-empty interface: the second word of its itab (runtime.itab). */
static inline uint64_t itab_type(uint64_t itab)
{
	return itab ? read_word(itab + 8) : 0;
}

/* Whether an interface's dynamic type is this one. An itab of it is remembered, and read just once. */
static inline bool has_type(uint64_t itab, uint64_t type, uint64_t *known_itab)
{
	if (!itab || !type)
		return false;
	if (itab == *known_itab)
		return true;
	if (itab_type(itab) != type)
		return false;
	*known_itab = itab;
	return true;
}

/*
 * Windows: the part of a struct that has all the fields of interest is read at once into an entry's
 * scratch memory; these take fields out of it. The verifier wants the offsets masked.
 */
static inline uint64_t window_word(const uint8_t *window, uint16_t offset)
{
	return *(const uint64_t *)(window + (offset & SCRATCH_MASK));
}

static inline struct go_string window_string(const uint8_t *window, uint16_t offset)
{
	return (struct go_string){window_word(window, offset), window_word(window, offset + 8)};
}

static inline struct go_iface window_iface(const uint8_t *window, uint16_t offset)
{
	return (struct go_iface){window_word(window, offset), window_word(window, offset + 8)};
}

static inline bool open_window(uint8_t *window, uint16_t size, uint64_t address)
{
	return !read_user(window, size & SCRATCH_MASK, (void *)address);
}

/* Keeps up to max bytes of the string (max a power of two, or any constant) and says how many. */
#define keep_string(string, buffer, max, truncated)                                                          \
	({                                                                                                   \
		uint64_t _len = (string).len;                                                                \
		if (_len > (max)) {                                                                          \
			_len = (max);                                                                        \
			(truncated) = 1;                                                                     \
		}                                                                                            \
		if (_len && read_user((buffer), (uint32_t)_len, (void *)(string).data))                      \
			_len = 0;                                                                            \
		(uint16_t)_len;                                                                              \
	})

#endif
