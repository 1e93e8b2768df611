"""Probe sites in arm64 functions.

Under a uprobe the kernel simulates B, BL, B.cond, CBZ, CBNZ, TBZ, TBNZ, BR, BLR, RET, ADR and ADRP, and NOP
from Linux 6.13 (commit ac4ad5c09b34). Loads of literals (commit acc450aa0709) and exclusive accesses are
refused; everything else is stepped out of line (arch/arm64/kernel/probes/decode-insn.c). The author of
ac4ad5c09b34 measured 1.86 million hits a second simulated, 0.92 million stepped: stepping costs twice as
much here, not thirty times as on x86.

Registers (cmd/compile/abi-internal.md): arguments and results in R0 to R15, the closure in R26, g in R28.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import attrs
import capstone

from pytraceprop.errors import MalformedExecutable
from pytraceprop.go.functions import Function
from pytraceprop.go.sites import Code, Frame, Instruction

_STACK_GUARD = "x16, [x28, #0x10]"  # g.stackguard0: what a stack check begins with (cmd/internal/obj/arm64)
_LONGEST_SEARCH = 64  # instructions looked at for one answer

_ENDS = frozenset({"b", "br", "ret", "brk", "udf", ".byte"})

#: What writes its first operand, or its first two, or none. Every search that depends on a register ends
#: at any other instruction: the atomics of Armv8.1, for one, write an operand in the middle.
_WRITES_ONE = frozenset(
    (
        *("ldr", "ldrb", "ldrh", "ldrsb", "ldrsh", "ldrsw", "ldur", "ldurb", "ldurh", "adr", "adrp"),
        *("mov", "movz", "movn", "movk", "fmov", "add", "sub", "mul", "madd", "neg", "mvn"),
        *("and", "orr", "eor", "bic", "lsl", "lsr", "asr", "ubfx", "sbfx", "ubfiz"),
        *("sxtb", "sxth", "sxtw", "uxtb", "uxth", "uxtw", "cset", "csel", "csinc"),
    )
)
_WRITES_TWO = frozenset({"ldp"})
_STORES = frozenset({"str", "strb", "strh", "stur", "sturb", "sturh", "stp"})
_WRITES_NONE = _STORES | {"cmp", "cmn", "tst", "nop"}

_ACCESS = re.compile(r"(\w+)(?:, (\w+))?, \[(\w+)(?:, #(-?(?:0x)?[0-9a-f]+))?\]")
_WIDTHS = {"x": 8, "w": 4, "q": 16, "d": 8, "s": 4, "h": 2, "b": 1}


def _number(register: str) -> int:
    """5 for x5 and w5; -1 for what is not a general register."""
    return int(register[1:]) if register[:1] in ("x", "w") and register[1:].isdigit() else -1


@attrs.frozen
class _Access:
    """A load or store of one or two registers at base + offset; `width` is of one of them, in bytes."""

    registers: tuple[str, ...]
    base: str
    offset: int
    width: int

    def offset_of(self, register: int) -> int | None:
        """Where the whole of a register goes to or comes from, in bytes from the base."""
        name = f"x{register}"
        return self.offset + 8 * self.registers.index(name) if name in self.registers else None

    def overlaps(self, offset: int, size: int) -> bool:
        """Whether it touches any of these bytes."""
        return self.offset < offset + size and offset < self.offset + self.width * len(self.registers)


class Arm64Instruction(Instruction):
    """One instruction of four bytes."""

    @property
    def target(self) -> int | None:
        """Where a direct call or branch goes."""
        if self.mnemonic in ("b", "bl", "cbz", "cbnz", "tbz", "tbnz") or self.mnemonic.startswith("b."):
            return int(self.operands.rpartition("#")[2], 16)
        return None

    def written(self) -> set[int] | None:
        """Numbers of the general registers that it writes; None where that is not known."""
        operands = self.operands.split(", ")
        if self.mnemonic in _WRITES_ONE:
            written = operands[:1]
        elif self.mnemonic in _WRITES_TWO:
            written = operands[:2]
        elif self.mnemonic in _WRITES_NONE:
            written = []
        else:
            return None
        inside, _, behind = self.operands.partition("[")[2].partition("]")
        if behind:  # `[sp, #-0x30]!` and `[x5], #0x20` change the base as well
            written.append(inside.partition(",")[0])
        return {_number(register) for register in written} - {-1}

    def access(self) -> _Access | None:
        """What it loads or stores, where that is at a fixed offset from a register that stays the same."""
        match = _ACCESS.fullmatch(self.operands)
        if not match or not (self.mnemonic in _STORES or self.mnemonic.startswith("ld")):
            return None
        registers = tuple(name for name in match.group(1, 2) if name)
        width = _WIDTHS.get(registers[0][0], 8)
        if self.mnemonic[-1] in "bh":
            width = _WIDTHS[self.mnemonic[-1]]
        return _Access(registers, match[3], int(match[4] or "0", 0), width)


class Arm64Code(Code):
    """A disassembled arm64 function."""

    instructions: Sequence[Arm64Instruction]

    def _disassemble(self, code: bytes) -> Sequence[Arm64Instruction]:
        decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
        decoder.skipdata = True  # the assembler puts large constants into the text
        found = [Arm64Instruction(*row) for row in decoder.disasm_lite(code, self.function.start)]
        self._targets = {one.target for one in found if one.mnemonic != "bl"}
        self._has_table = any(one.mnemonic == "br" for one in found)
        return found

    def calls(self, callee: Function) -> list[int]:
        called = {one.target for one in self.instructions if one.mnemonic == "bl" and one.target is not None}
        ways = {one for one in called if callee.start in (one, self._leads_to(one))}
        return [one.address for one in self.instructions if one.mnemonic == "bl" and one.target in ways]

    def _leads_to(self, address: int) -> int | None:
        """Where a trampoline goes: the linker makes them for calls over 128 MiB and more."""
        try:
            page, offset, jump = self._image.unpack("<III", address)
        except MalformedExecutable:
            return None
        register = page & 31
        # adrp register, page; add register, register, offset; br register
        if page & 0x9F000000 != 0x90000000 or jump != 0xD61F0000 | register << 5:
            return None
        if offset & 0xFFC003FF != 0x91000000 | register << 5 | register:
            return None
        pages = (page >> 5 & 0x7FFFF) << 2 | page >> 29 & 3
        pages -= (pages & 1 << 20) << 1
        return (address & ~0xFFF) + (pages << 12) + (offset >> 10 & 0xFFF)

    def test_after(self, call: int, result: int) -> tuple[int, int]:
        index = self._at[call] + 1
        for _ in range(_LONGEST_SEARCH):
            if index >= len(self.instructions):
                break
            one = self.instructions[index]
            if one.mnemonic == "b" and one.target in self._at:
                index = self._at[one.target]
                continue
            if one.target is not None and one.operands.startswith(f"x{result}, "):
                if one.mnemonic == "cbz":
                    return one.address, one.target
                if one.mnemonic == "cbnz":
                    return one.address, one.end
            written = one.written()
            if written is None or not written.isdisjoint(range(result + 1)):
                break
            index += 1
        raise self.missing(f"does not test result {result} after the call at {call:#x}")

    def _successors(self, one: Instruction) -> Iterator[int]:
        if one.mnemonic == "br":
            raise self.missing("jumps through a table")
        if one.target is not None and one.mnemonic != "bl":
            yield one.target
        if one.mnemonic not in _ENDS:
            yield one.end

    def entry(self) -> int:
        first = self.instructions[0]
        if (first.mnemonic, first.operands) == ("ldr", _STACK_GUARD):
            for one in self.instructions[1:8]:
                if one.mnemonic == "b.ls":
                    return one.address
                if one.mnemonic not in ("sub", "cmp", "mov", "b.lo"):
                    break
        raise self.missing("does not begin by checking its stack")

    def next_call(self, address: int) -> Instruction:
        for one in self.instructions[self._at[address] + 1 :]:
            if one.mnemonic in ("bl", "blr"):
                return one
            if one.target is not None or one.mnemonic in _ENDS:
                break
        raise self.missing(f"calls nothing behind {address:#x}")

    def stack_slot(self, call: int, argument: int, field_offset: int | None = None) -> int:
        index = self._at[call]
        wanted = argument
        for one in reversed(self.instructions[max(0, index - _LONGEST_SEARCH) : index]):
            written = one.written()
            if written is None and (one.target is not None or one.mnemonic in _ENDS):
                continue
            if written is None:
                break
            if wanted not in written:
                continue
            source = _number(one.operands.partition(", ")[2])
            if one.mnemonic == "mov" and source >= 0:
                wanted = source
                continue
            access = one.access() if one.mnemonic in ("ldr", "ldp") else None
            offset = access.offset_of(wanted) if access else None
            if access is None or offset is None:
                break
            if access.base == "sp" and field_offset is None:
                return offset
            if offset != field_offset:
                break
            wanted, field_offset = _number(access.base), None
        raise self.missing(f"does not load argument {argument} of the call at {call:#x} from the stack")

    # What these are for, a block of headers on the stack, is in registers here: there are sixteen.

    def frame(self) -> Frame:
        raise self.missing("is not understood on arm64: its frame")

    def argument_slot(self, argument: int) -> int:
        raise self.missing(f"is not understood on arm64: its argument {argument}")

    def nil_returns(self) -> list[int]:
        raise self.missing("is not understood on arm64: its returns")

    def receiver_slot(self, call: int, argument: int, field_offset: int) -> int:
        slot = self._slot_loaded(self._at[call], argument, field_offset)
        if slot is None:
            raise self.missing(f"does not load the receiver of the call at {call:#x} from the stack")
        stores = [
            one
            for one in self.instructions
            if one.mnemonic in _STORES
            and (access := one.access())
            and access.base == "sp"
            and access.overlaps(slot, 8)
        ]
        if len(stores) != 1 or not self._stores_receiver(stores[0], slot):
            raise self.missing("keeps something else where its receiver was expected")
        return slot

    def _slot_loaded(self, index: int, argument: int, field_offset: int) -> int | None:
        wanted, in_receiver = argument, False
        for i in range(index - 1, max(-1, index - 1 - _LONGEST_SEARCH), -1):
            if self._has_table or self.instructions[i + 1].address in self._targets:
                return None  # there is another way to the call
            one = self.instructions[i]
            written = one.written()
            if written is None:
                return None
            if wanted not in written:
                continue
            access = one.access() if one.mnemonic in ("ldr", "ldp") else None
            offset = access.offset_of(wanted) if access else None
            if access is None or offset is None:
                return None
            if in_receiver:
                return offset if access.base == "sp" and offset >= 0 else None
            if offset != field_offset:
                return None
            wanted, in_receiver = _number(access.base), True
        return None

    def _stores_receiver(self, store: Arm64Instruction, slot: int) -> bool:
        """Whether the instruction stores the function's first argument to the slot.

        Only the stack check may branch before it (B.LS, and B.LO for a huge frame): what it goes to calls
        runtime.morestack and begins again.
        """
        access = store.access()
        if access is None or access.offset_of(0) != slot or self._has_table:
            return False
        first = self.instructions[0]
        checks = ("b.lo", "b.ls") if (first.mnemonic, first.operands) == ("ldr", _STACK_GUARD) else ()
        for one in self.instructions[:_LONGEST_SEARCH]:
            if one.address in self._targets and one is not first:
                return False
            if one is store:
                return True
            if one.mnemonic in checks:
                checks = () if one.mnemonic == "b.ls" else checks
                continue
            written = one.written()
            if written is None or 0 in written:
                return False
        return False
