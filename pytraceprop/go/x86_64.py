"""Probe sites in x86-64 functions.

Under a uprobe the kernel emulates `push`, `call`, `jmp`, conditional jumps and `nop`
(arch/x86/kernel/uprobes.c); anything else is single-stepped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import capstone

from pytraceprop.go.functions import Function
from pytraceprop.go.sites import Code, Frame, Instruction

#: Arguments and results, by number (cmd/compile/abi-internal.md).
_ARGUMENTS = ("rax", "rbx", "rcx", "rdi", "rsi", "r8", "r9", "r10", "r11")
_REGISTER_SLOT = re.compile(r"qword ptr \[rsp \+ (0x[0-9a-f]+|\d+)\]")
_MOVE = re.compile(r"(r\w+), (r\w+)")
_FRAME = re.compile(r"rsp, (-?0x[0-9a-f]+|-?\d+)")
_LOAD = re.compile(r"(\w+), qword ptr \[(\w+)(?: \+ (0x[0-9a-f]+|\d+))?\]")


def _names_of(register: str) -> tuple[str, ...]:
    """A 64-bit register and its parts: rax, eax, ax, al; r8, r8d, r8w, r8b."""
    if register[1:].isdigit():
        return (register, *(register + part for part in "dwb"))
    return (register, "e" + register[1:], register[1:], register[1:].rstrip("x") + "l")


class X86Instruction(Instruction):
    """One instruction."""

    @property
    def target(self) -> int | None:
        """Where a direct call or jump goes."""
        if self.mnemonic == "call" or self.mnemonic.startswith("j"):
            try:
                return int(self.operands, 16)
            except ValueError:
                return None
        return None


class X86Code(Code):
    """A disassembled x86-64 function."""

    def _disassemble(self, code: bytes) -> Sequence[Instruction]:
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        return [X86Instruction(*row) for row in decoder.disasm_lite(code, self.function.start)]

    def calls(self, callee: Function) -> list[int]:
        return [
            one.address for one in self.instructions if one.mnemonic == "call" and one.target == callee.start
        ]

    def test_after(self, call: int, result: int) -> tuple[int, int]:
        register = _ARGUMENTS[result]
        index = self._at[call] + 1
        for _ in range(16):
            if index + 1 >= len(self.instructions):
                break
            one = self.instructions[index]
            if one.mnemonic == "jmp" and one.target in self._at:
                index = self._at[one.target]
                continue
            if one.mnemonic == "test" and one.operands == f"{register}, {register}":
                jump = self.instructions[index + 1]
                if jump.mnemonic == "je" and jump.target is not None:
                    return jump.address, jump.target
                if jump.mnemonic == "jne":
                    return jump.address, jump.end
                break
            stores = one.mnemonic == "mov" and one.operands.startswith(("qword ptr [rsp", "byte ptr [rsp"))
            if not (stores or one.mnemonic == "nop" or one.operands == "ax, ax"):
                break
            index += 1
        raise self.missing(f"does not test result {result} after the call at {call:#x}")

    def _successors(self, one: Instruction) -> Iterator[int]:
        if one.mnemonic == "jmp" and one.target is None:
            raise self.missing(f"jumps through a table at {one.address:#x}")
        if one.target is not None and one.mnemonic != "call":
            yield one.target
        if one.mnemonic not in ("jmp", "ret", "ud2", "int3"):
            yield one.end

    def entry(self) -> int:
        for i, one in enumerate(self.instructions[:3]):
            if one.mnemonic == "jbe":
                following = self.instructions[i + 1]
                return following.address if following.mnemonic == "push" else one.address
            if one.mnemonic != "cmp" and not (one.mnemonic == "lea" and one.operands.startswith("r12,")):
                break
        raise self.missing("does not begin by checking its stack")

    def next_call(self, address: int) -> Instruction:
        for one in self.instructions[self._at[address] + 1 :]:
            if one.mnemonic == "call":
                return one
            if one.mnemonic.startswith("j") or one.mnemonic == "ret":
                break
        raise self.missing(f"calls nothing behind {address:#x}")

    def stack_slot(self, call: int, argument: int, field_offset: int | None = None) -> int:
        index = self._at[call]
        wanted = _ARGUMENTS[argument]
        for one in reversed(self.instructions[max(0, index - 32) : index]):
            if one.operands.split(",")[0] not in _names_of(wanted):
                continue
            if one.mnemonic != "mov":
                break
            if move := _MOVE.fullmatch(one.operands):
                wanted = move[2]
                continue
            match = _LOAD.fullmatch(one.operands)
            if not match:
                break
            offset = int(match[3], 0) if match[3] else 0
            if match[2] == "rsp" and field_offset is None:
                return offset
            if offset != field_offset:
                break
            wanted, field_offset = match[2], None
        raise self.missing(f"does not load argument {argument} of the call at {call:#x} from the stack")

    def frame(self) -> Frame:
        pushed = 0
        for one in self.instructions[:16]:
            match = _FRAME.fullmatch(one.operands)
            if one.mnemonic == "push":
                pushed += 8
            elif match and one.mnemonic in ("sub", "add"):
                size = int(match[1], 0) * (1 if one.mnemonic == "sub" else -1)
                return Frame(return_address=pushed + size, caller=pushed + size + 8, arguments=0)
            elif one.mnemonic == "call":
                break
        raise self.missing("makes no frame on the stack")

    def argument_slot(self, argument: int) -> int:
        register = _ARGUMENTS[argument]
        body = next((i for i, one in enumerate(self.instructions) if one.mnemonic == "jbe"), -1) + 1
        slot = None
        for one in self.instructions[body:]:
            match = _REGISTER_SLOT.match(one.operands) if one.mnemonic == "mov" else None
            if match and one.operands.endswith(f", {register}"):
                slot = match
                break
            written = one.operands.split(",")[0] in _names_of(register)
            if one.mnemonic == "call" or one.mnemonic.startswith("j") or written:
                break
        stores = [one for one in self.instructions if slot and one.operands.startswith(f"{slot[0]}, ")]
        if slot is None or [one.mnemonic for one in stores] != ["mov"]:
            raise self.missing(f"does not keep its argument {argument} on the stack")
        return int(slot[1], 0)

    def nil_returns(self) -> list[int]:
        found = []
        for i, one in enumerate(self.instructions):
            if one.mnemonic != "ret":
                continue
            for before in reversed(self.instructions[max(0, i - 8) : i]):
                if before.mnemonic == "xor" and before.operands == "eax, eax":
                    found.append(one.address)
                written = before.operands.split(",")[0] in _names_of("rax")
                if before.mnemonic in ("call", "ret") or before.mnemonic.startswith("j") or written:
                    break
        return found

    def receiver_slot(self, call: int, argument: int, field_offset: int) -> int:
        # Looks back from the call for `mov argument, [R + field_offset]` and, before it, for
        # `mov R, [rsp + slot]`; then for the store of RAX.
        index = self._at[call]
        slot = None
        wanted, expected = _ARGUMENTS[argument], field_offset
        for one in reversed(self.instructions[max(0, index - 16) : index]):
            if one.mnemonic == "call" or one.mnemonic.startswith("j"):
                break
            match = _LOAD.fullmatch(one.operands) if one.mnemonic == "mov" else None
            if not match or match[1] != wanted:
                if one.operands.split(",")[0] in _names_of(wanted):
                    break  # it is something else by the time of the call
                continue
            offset = int(match[3], 0) if match[3] else 0
            if match[2] == "rsp":
                slot = offset if wanted != _ARGUMENTS[argument] else None
                break
            if offset != expected:
                break
            wanted = match[2]
        if slot is None:
            raise self.missing(f"does not load the receiver of the call at {call:#x} from the stack")
        stores = [
            (one.address, one.operands.rpartition(", ")[2])
            for one in self.instructions
            if one.mnemonic == "mov"
            and (match := _REGISTER_SLOT.match(one.operands))
            and int(match[1], 0) == slot
        ]
        if [source for _, source in stores] != ["rax"] or not self._has_receiver(stores[0][0]):
            raise self.missing("keeps something else where its receiver was expected")
        return slot

    def _has_receiver(self, address: int) -> bool:
        """Whether nothing can have changed RAX between the function's start and an address."""
        for one in self.instructions[: self._at[address]]:
            reads = one.mnemonic in ("cmp", "test", "push", "jbe", "jb", "nop")
            if one.mnemonic == "call" or (not reads and one.operands.split(",")[0] in _names_of("rax")):
                return False
        return True
