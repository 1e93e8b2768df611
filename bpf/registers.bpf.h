/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where Go keeps its values at a probed instruction, in both architectures' words (Go 1.17 and later,
 * cmd/compile/abi-internal.md). go_register(regs, n): the n-th integer argument of the function about
 * to be called, or result of the one that returned; n is a number from 0 to 8.
 */
#ifndef PYTRACEPROP_REGISTERS_BPF_H
#define PYTRACEPROP_REGISTERS_BPF_H

#if defined(__TARGET_ARCH_x86)

#define GO_REGISTER_0 ax
#define GO_REGISTER_1 bx
#define GO_REGISTER_2 cx
#define GO_REGISTER_3 di
#define GO_REGISTER_4 si
#define GO_REGISTER_5 r8
#define GO_REGISTER_6 r9
#define GO_REGISTER_7 r10
#define GO_REGISTER_8 r11
#define go_register(registers, n) ((registers)->GO_REGISTER_##n)
#define go_current_g(registers) ((registers)->r14)
#define go_instruction(registers) ((registers)->ip)

#elif defined(__TARGET_ARCH_arm64)

#define go_register(registers, n) ((registers)->regs[n])
#define go_current_g(registers) ((registers)->regs[28])
#define go_instruction(registers) ((registers)->pc)

#else
#error "pytraceprop knows Go's registers on x86-64 and arm64 only"
#endif

#define go_stack_pointer(registers) ((registers)->sp)

#endif
