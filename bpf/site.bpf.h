/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which process and which site a program runs for.
 *
 * The full objects learn the site from the link's cookie (bpf_get_attach_cookie, Linux 5.15, commit
 * 7adfc6c9b315), and the process too, unless a link is shared by all processes of the file: then it is
 * looked up, as in the basic objects, which know no cookies. Those have one program for each site
 * instead of one for several.
 */
#ifndef PYTRACEPROP_SITE_BPF_H
#define PYTRACEPROP_SITE_BPF_H

/* What a program knows at every site. */
struct here {
	struct target *target;
	struct counters *counters;
	uint64_t goid; /* not where a connection's goroutine writes a request */
	enum site site;
};

/* Atomic although per CPU: a program on a uprobe can be preempted by another. */
static inline void count(const struct here *here, enum counter which)
{
	__sync_fetch_and_add(&here->counters->count[which], 1);
}

#ifdef PYTRACEPROP_BASIC

enum { any_process = true };

#define PROGRAM(name, handler)
#define SITE_PROGRAM(name, at, handler)                                                                      \
	SEC("uprobe")                                                                                        \
	int name(struct pt_regs *regs)                                                                       \
	{                                                                                                    \
		struct here here = {.site = at};                                                             \
                                                                                                             \
		return look_around(regs, &here, 0) ? handler(&here, regs) : 0;                               \
	}

#else

/* Whether a link may run for any process of the file. Set before loading (csrc/core.c). */
const volatile bool any_process = false;

#define PROGRAM(name, handler)                                                                               \
	SEC("uprobe.s")                                                                                      \
	int name(struct pt_regs *regs)                                                                       \
	{                                                                                                    \
		uint64_t cookie = bpf_get_attach_cookie(regs);                                               \
		struct here here = {.site = cookie & 0xff};                                                  \
                                                                                                             \
		return look_around(regs, &here, cookie) ? handler(&here, regs) : 0;                          \
	}
#define SITE_PROGRAM(name, at, handler)

#endif

/* False where this is no traced process, or no longer (a detach is under way): then touch nothing. */
static __always_inline bool look_around(struct pt_regs *regs, struct here *here, uint64_t cookie)
{
	uint32_t slot = (cookie >> 8) & 0xffff, owner = cookie >> 32;
	bool stale;

	if (any_process) {
		struct task_struct *leader = current_leader();
		uint32_t tgid = visible_tgid_of(leader);
		uint64_t start = BPF_CORE_READ(leader, start_boottime);
		struct watched_process *process = bpf_map_lookup_elem(&watched, &tgid);

		if (!process || process->link != owner) /* the latter: of this file by another path */
			return false;
		if (!process->start)
			process->start = start;
		slot = process->slot;
		stale = process->start != start; /* the tgid is another process's now */
	}
	here->target = bpf_map_lookup_elem(&targets, &slot);
	here->counters = bpf_map_lookup_elem(&counts, &slot);
	if (!here->target || !here->counters)
		return false;
	if (any_process)
		stale |= !here->target->incarnation;
	else
		stale = here->target->incarnation != owner;
	if (stale) {
		count(here, COUNT_STALE_SITE);
		return false;
	}
	here->goid = 0;
	if (here->site == SITE_HTTP1_CLIENT_WRITE) /* the connection's goroutine, of no interest */
		return true;
	here->goid = read_word(go_current_g(regs) + here->target->g_goid);
	if (!here->goid) {
		count(here, COUNT_MEMORY_UNREADABLE);
		return false;
	}
	return true;
}

#endif
