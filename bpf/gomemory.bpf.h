/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading values of Go's built-in types out of the traced process. */
#ifndef PYTRACEPROP_GOMEMORY_BPF_H
#define PYTRACEPROP_GOMEMORY_BPF_H

/*
 * The programs are sleepable (BPF_F_SLEEPABLE for uprobes, Linux 6.0, commit 8c7dcb84e3b7), so that a
 * page which this process has not touched yet is faulted in. Itabs and constant strings are in
 * file-backed memory: with bpf_probe_read_user one of the first 500 calls of a fresh process had no
 * parent, because the itab of its context could not be read.
 */
#define read_user bpf_copy_from_user

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

/* Keeps up to max bytes of the string (max a power of two, or any constant) and says how many. */
#define keep_string(string, buffer, max, truncated)                                                          \
	({                                                                                                   \
		uint64_t _len = (string).len;                                                                \
		if (_len > (max)) {                                                                          \
			_len = (max);                                                                        \
			(truncated) = 1;                                                                     \
		}                                                                                            \
		if (_len && read_user((buffer), (uint32_t)_len, (void *)(string).data))            \
			_len = 0;                                                                            \
		(uint16_t) _len;                                                                             \
	})

#endif
