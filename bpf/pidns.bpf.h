/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The current process as the tracer numbers it. A process has a number in its own pid namespace and in
 * each one around it (struct pid, include/linux/pid.h); bpf_get_current_pid_tgid gives the outermost,
 * which a tracer in a container never sees. bpf_get_ns_current_pid_tgid (Linux 5.7, commit
 * b4490c5c4e02) answers only for tasks of the very namespace asked for, and not of those inside it.
 *
 * Needs <bpf/bpf_core_read.h>.
 */
#ifndef PYTRACEPROP_PIDNS_BPF_H
#define PYTRACEPROP_PIDNS_BPF_H

enum { PIDNS_LEVELS = 33 }; /* MAX_PID_NS_LEVEL and the outermost (include/linux/pid_namespace.h) */

/* The inode of the tracer's pid namespace, set before loading (csrc/core.c). */
const volatile uint32_t tracer_pidns = 0;

/* The process's leader: its start time and pid are those of the process. */
static inline struct task_struct *current_leader(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, group_leader);
}

/* The tgid that the tracer sees in /proc, or 0 if the task is not visible from there. */
static inline uint32_t visible_tgid_of(struct task_struct *leader)
{
	struct pid *pid = BPF_CORE_READ(leader, thread_pid);
	const char *numbers = (const char *)pid + bpf_core_field_offset(struct pid, numbers);
	const uint32_t stride = bpf_core_type_size(struct upid);
	uint32_t deepest = BPF_CORE_READ(pid, level);
	struct upid upid;
	int i;

	if (!pid)
		return 0;
	/* From the task's own namespace outwards, for the tracer's is rarely far. */
	for (i = 0; i < PIDNS_LEVELS; i++) {
		if ((uint32_t)i > deepest ||
		    bpf_probe_read_kernel(&upid, sizeof(upid), numbers + (deepest - i) * stride))
			break;
		if (BPF_CORE_READ(upid.ns, ns.inum) == tracer_pidns)
			return (uint32_t)upid.nr;
	}
	return 0;
}

static inline uint32_t visible_tgid(void)
{
	return visible_tgid_of(current_leader());
}

#endif
