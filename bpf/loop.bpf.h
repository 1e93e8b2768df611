/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * repeat(times, step, data) calls step(i, data) up to so many times, until it answers 1. With bpf_loop
 * (Linux 5.17, commit e6f2dd0f8067) the verifier looks at step once. The basic objects do without: there
 * it follows every turn, so that the bound of the costliest is smaller, and steps are functions of their
 * own, which keeps the loop in a form that Linux 5.10 takes. What ends at its bound is incomplete and says
 * so: FIELD_UNSURE, COUNT_PARENT_TOO_FAR.
 */
#ifndef PYTRACEPROP_LOOP_BPF_H
#define PYTRACEPROP_LOOP_BPF_H

#ifdef PYTRACEPROP_BASIC

#define repeat(times, step, data)                                                                            \
	({                                                                                                   \
		for (uint32_t _turn = 0; _turn < (times); _turn++)                                           \
			if (step(_turn, data))                                                               \
				break;                                                                       \
	})

enum {
	MAX_GROUPS = 80, /* read per search of a map: 640 cells */
	MAX_FIELDS = 0,	 /* of a block of HTTP/2 headers: too many ways for the verifier of Linux 5.10 */
};

#else

#define repeat(times, step, data) bpf_loop(times, step, data, 0)

enum {
	MAX_GROUPS = 512, /* 4096 cells */
	MAX_FIELDS = 128,
};

#endif

enum { MAX_HOPS = 128 }; /* contexts around one another */

#endif
