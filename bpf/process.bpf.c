/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Processes that call execve(2). The probes of the kernel stay with the process, and fire in its new
 * program if that is of the same file; but what was learnt of the old one is true no more, and the
 * goroutine ids of both are alike. So the target is retired at once, before the new program runs.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "records.h"
#include "traceparent.h"
#include "gomemory.bpf.h"
#include "state.bpf.h"
#include "pidns.bpf.h"

/* TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm): p is current. */
SEC("raw_tp/sched_process_exec")
int process_exec(void *args)
{
	uint32_t tgid = visible_tgid();
	struct watched_process *process = tgid ? bpf_map_lookup_elem(&watched, &tgid) : 0;
	struct target *target = process ? bpf_map_lookup_elem(&targets, &process->slot) : 0;

	if (target)
		target->incarnation = 0; /* look_around compares it */
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
