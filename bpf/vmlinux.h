/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's types, as far as the programs here use them: no header of the running kernel is
 * needed to build. Structures that differ between kernels carry preserve_access_index, so that
 * libbpf moves the accesses to where the running kernel has the field (CO-RE).
 *
 * struct pt_regs is user ABI on x86-64 (the order that PTRACE_GETREGS shows) and needs no
 * relocation; on arm64 it begins with struct user_pt_regs, which is.
 */
#ifndef PYTRACEPROP_VMLINUX_H
#define PYTRACEPROP_VMLINUX_H

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef _Bool bool;
enum { false = 0, true = 1 };

/* What bpf_helper_defs.h expects to find. */
typedef int8_t __s8;
typedef uint8_t __u8;
typedef int16_t __s16;
typedef uint16_t __u16;
typedef int32_t __s32;
typedef uint32_t __u32;
typedef int64_t __s64;
typedef uint64_t __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_EXIST = 2 };
enum { BPF_RB_NO_WAKEUP = 1 };

/* Of a task and its pid, the fields that pidns.bpf.h reads. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct task_struct {
	struct task_struct *group_leader;
	struct pid *thread_pid;
	uint64_t start_boottime; /* nanoseconds; of the leader: when the process began */
};

#pragma clang attribute pop

#if defined(__TARGET_ARCH_arm64)

struct pt_regs {
	uint64_t regs[31], sp, pc, pstate;
};

#else

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs,
		flags, sp, ss;
};

#endif

#endif
