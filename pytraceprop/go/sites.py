"""Where to put probes: instructions found by disassembling a function.

The kernel emulates `push`, `call`, `jmp`, conditional jumps and `nop` under a uprobe; anything else is
single-stepped, at some thirty times the cost (docs/benchmarks.md). So sites are such instructions
wherever one does the job. Return probes are never used: they corrupt Go stacks when those move.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs
import capstone

from pytraceprop.errors import UnsupportedExecutable
from pytraceprop.go.functions import Function
from pytraceprop.go.image import Image

_LARGEST_FUNCTION = 1 << 16  # bytes; those of net/http have below 10 000
_REGISTER_SLOT = re.compile(r"qword ptr \[rsp \+ (0x[0-9a-f]+|\d+)\]")
_MOVE = re.compile(r"(r\w+), (r\w+)")
_LOAD = re.compile(r"(\w+), qword ptr \[(\w+)(?: \+ (0x[0-9a-f]+|\d+))?\]")


def _names_of(register: str) -> tuple[str, ...]:
    """A 64-bit register and its parts: rax, eax, ax, al; r8, r8d, r8w, r8b."""
    if register[1:].isdigit():
        return (register, *(register + part for part in "dwb"))
    return (register, "e" + register[1:], register[1:], register[1:].rstrip("x") + "l")


class SiteMissing(UnsupportedExecutable):
    """A function has no instruction of the kind that a probe needs."""


@attrs.frozen
class Instruction:
    """One instruction; `target` is where a direct call or jump goes, else None."""

    address: int
    size: int
    mnemonic: str
    operands: str

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.size

    @property
    def target(self) -> int | None:
        """Where a direct call or jump goes."""
        if self.mnemonic == "call" or self.mnemonic.startswith("j"):
            try:
                return int(self.operands, 16)
            except ValueError:
                return None
        return None

    @property
    def is_conditional(self) -> bool:
        """Whether it is a conditional jump."""
        return self.mnemonic.startswith("j") and self.mnemonic != "jmp"


class Code:
    """A disassembled function."""

    def __init__(self, image: Image, function: Function) -> None:
        """Disassembles it whole. Raises SiteMissing where an instruction cannot be decoded."""
        self.function = function
        self._path = image.path
        if function.end - function.start > _LARGEST_FUNCTION:
            raise self.missing("is absurdly large")
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        code = image.read(function.start, function.end - function.start)
        self.instructions = [Instruction(*row) for row in decoder.disasm_lite(code, function.start)]
        self._at = {one.address: i for i, one in enumerate(self.instructions)}
        if not self.instructions or self.instructions[-1].end != function.end:
            raise self.missing("cannot be disassembled to its end")

    def missing(self, what: str) -> SiteMissing:
        """The error that says what this function lacks."""
        return SiteMissing(self._path, f"{self.function.name} {what}")

    def calls(self, callee: Function) -> list[int]:
        """Addresses of the direct calls to a function, in order of address."""
        return [
            one.address for one in self.instructions if one.mnemonic == "call" and one.target == callee.start
        ]

    def only_call(self, callee: Function) -> int:
        """The one direct call to a function. Raises SiteMissing for none or several."""
        calls = self.calls(callee)
        if len(calls) != 1:
            raise self.missing(f"calls {callee.name} {len(calls)} times where once was expected")
        return calls[0]

    def test_after(self, call: int, register: str) -> tuple[int, int]:
        """The conditional jump that tests a result of the call for zero.

        Gives its address and where it goes when the register is zero. Between call and test only
        instructions may stand that leave the register alone.
        """
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
        raise self.missing(f"does not test {register} after the call at {call:#x}")

    def entry(self) -> int:
        """An emulated instruction at the function's beginning, where the arguments are in their registers.

        Behind the check of the stack where functions begin with `push rbp` (Go 1.21 and later); before, the
        check's own jump, which is hit once more when the stack has grown.
        """
        for i, one in enumerate(self.instructions[:4]):
            if one.mnemonic == "jbe":
                following = self.instructions[i + 1]
                return following.address if following.mnemonic == "push" else one.address
        raise self.missing("does not begin by checking its stack")

    def next_call(self, address: int) -> Instruction:
        """The call that follows an instruction, with no jump in between."""
        for one in self.instructions[self._at[address] + 1 :]:
            if one.mnemonic == "call":
                return one
            if one.mnemonic.startswith("j") or one.mnemonic == "ret":
                break
        raise self.missing(f"calls nothing behind {address:#x}")

    def other_branch(self, jump: int, taken: int) -> int:
        """Where a conditional jump leads that does not lead to `taken`."""
        one = self.instructions[self._at[jump]]
        other = one.end if one.target == taken else one.target
        if other not in self._at:
            raise self.missing(f"jumps out of itself at {jump:#x}")
        return int(other)

    def stack_slot(self, call: int, argument: str, field_offset: int | None = None) -> int:
        """Where on the stack an argument of a call comes from, or the struct that it is a field of.

        Looks back from the call for the instructions that load it; the answer is in bytes from RSP. Whether
        it holds what is expected at run time is for the caller to make sure.
        """
        index = self._at[call]
        wanted = argument
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
        raise self.missing(f"does not load {argument} of the call at {call:#x} from the stack")

    def returns_from(self, start: int, *, without: int | None = None) -> set[int]:
        """Addresses of the RETs that can be reached from an address.

        `without` cuts the way: instructions at that address are not entered. Raises SiteMissing where a
        jump goes through a table (`switch` since Go 1.19): it may lead to any RET.
        """
        seen: set[int] = set()
        todo = [start]
        while todo:
            address = todo.pop()
            if address in seen or address == without or address not in self._at:
                continue
            seen.add(address)
            todo.extend(self._successors(self.instructions[self._at[address]]))
        return {a for a in seen if self.instructions[self._at[a]].mnemonic == "ret"}

    def _successors(self, one: Instruction) -> Iterator[int]:
        if one.mnemonic == "jmp" and one.target is None:
            raise self.missing(f"jumps through a table at {one.address:#x}")
        if one.target is not None and one.mnemonic != "call":
            yield one.target
        if one.mnemonic not in ("jmp", "ret", "ud2", "int3"):
            yield one.end

    def receiver_slot(self, call: int, argument: str, field_offset: int) -> int:
        """Where on the stack the receiver is kept whose field is passed to a call.

        Looks back from the call for `mov argument, [R + field_offset]` and, before it, for
        `mov R, [rsp + slot]`; then makes sure that the function stores to the slot once, from RAX, on
        entry. The answer is `slot`, in bytes from RSP at the call.
        """
        index = self._at[call]
        slot = None
        wanted, expected = argument, field_offset
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
                slot = offset if wanted != argument else None
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
