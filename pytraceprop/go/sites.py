"""Where to put probes: instructions found by disassembling a function.

Under a uprobe the kernel emulates calls, jumps and conditional jumps; most others it single-steps, at
some thirty times the cost on x86-64 (docs/benchmarks.md). So sites are such instructions wherever one
does the job. Return probes are never used: they corrupt Go stacks when those move.

What differs by machine is in `x86_64` and `arm64`.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence

import attrs

from pytraceprop.errors import UnsupportedExecutable
from pytraceprop.go.functions import Function
from pytraceprop.go.image import Image

_LARGEST_FUNCTION = 1 << 15  # bytes; those of net/http have below 10 000
_MOST_RETURNS = 64  # that are probed; Transport.roundTrip has below 20


class SiteMissing(UnsupportedExecutable):
    """A function has no instruction of the kind that a probe needs."""


@attrs.frozen
class Instruction(abc.ABC):
    """One instruction, as capstone writes it."""

    address: int
    size: int
    mnemonic: str
    operands: str

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.size

    @property
    @abc.abstractmethod
    def target(self) -> int | None:
        """Where a direct call or jump goes; None for anything else."""


@attrs.frozen
class Frame:
    """A function's frame on the stack, in bytes from the stack pointer.

    `return_address` is where it will go back to, `caller` the end of the frame: the caller's stack pointer.
    `arguments` is where those lie that are passed on the stack to what the function calls.
    """

    return_address: int
    caller: int
    arguments: int


class Code(abc.ABC):
    """A disassembled function."""

    def __init__(self, image: Image, function: Function) -> None:
        """Disassembles it whole. Raises SiteMissing where an instruction cannot be decoded."""
        self.function = function
        self._image = image
        if function.end - function.start > _LARGEST_FUNCTION:
            raise self.missing("is absurdly large")
        self.instructions = self._disassemble(image.read(function.start, function.end - function.start))
        self._at = {one.address: i for i, one in enumerate(self.instructions)}
        if not self.instructions or self.instructions[-1].end != function.end:
            raise self.missing("cannot be disassembled to its end")

    @abc.abstractmethod
    def _disassemble(self, code: bytes) -> Sequence[Instruction]: ...

    @abc.abstractmethod
    def _successors(self, one: Instruction) -> Iterator[int]:
        """Where it may go on from an instruction. Raises SiteMissing where that cannot be told."""

    def instruction(self, address: int) -> Instruction:
        """The instruction at an address."""
        return self.instructions[self._at[address]]

    @abc.abstractmethod
    def calls(self, callee: Function) -> list[int]:
        """Addresses of the direct calls to a function, in order of address."""

    @abc.abstractmethod
    def test_after(self, call: int, result: int) -> tuple[int, int]:
        """The conditional jump that tests a result of the call for zero, by the result's number.

        Gives its address and where it goes when the result is zero. Between call and test only
        instructions may stand that leave the results alone. Raises SiteMissing.
        """

    @abc.abstractmethod
    def receiver_slot(self, call: int, argument: int, field_offset: int) -> int:
        """Where on the stack the receiver is kept whose field is passed to a call.

        `argument` is the number of the call's argument that is loaded from that field. Raises SiteMissing
        unless the function stores to that slot once, its receiver, on entry. The answer is in bytes from
        the stack pointer at the call.
        """

    @abc.abstractmethod
    def entry(self) -> int:
        """A simulated instruction at the function's beginning, where the arguments are in their registers.

        Behind the check of the stack where functions begin with a push there (x86-64, Go 1.21 and later);
        elsewhere the check's own jump, which is hit once more whenever the stack has grown. Raises
        SiteMissing.
        """

    @abc.abstractmethod
    def next_call(self, address: int) -> Instruction:
        """The call that follows an instruction, with no jump in between. Raises SiteMissing."""

    @abc.abstractmethod
    def stack_slot(self, call: int, argument: int, field_offset: int | None = None) -> int:
        """Where on the stack an argument of a call comes from, or the struct that it is a field of.

        Looks back from the call for the instructions that load it; the answer is in bytes from the stack
        pointer. Whether it holds what is expected at run time is for the caller to make sure. Raises
        SiteMissing.
        """

    @abc.abstractmethod
    def frame(self) -> Frame:
        """The function's frame, as it is where the function calls others. Raises SiteMissing."""

    @abc.abstractmethod
    def argument_slot(self, argument: int) -> int:
        """Where on the stack an argument is kept, by its number; in bytes from the stack pointer.

        That is where the function stores its register, as long as that can only hold the argument, if it
        does not store there again. Raises SiteMissing.
        """

    @abc.abstractmethod
    def nil_returns(self) -> list[int]:
        """Addresses of the RETs right before which the first result is set to nil: returns with an error."""

    def missing(self, what: str) -> SiteMissing:
        """The error that says what this function lacks."""
        return SiteMissing(self._image.path, f"{self.function.name} {what}")

    def only_call(self, callee: Function) -> int:
        """The one direct call to a function. Raises SiteMissing for none or several."""
        calls = self.calls(callee)
        if len(calls) != 1:
            raise self.missing(f"calls {callee.name} {len(calls)} times where once was expected")
        return calls[0]

    def other_branch(self, jump: int, taken: int) -> int:
        """Where a conditional jump leads that does not lead to `taken`. Raises SiteMissing."""
        one = self.instruction(jump)
        other = one.end if one.target == taken else one.target
        if other not in self._at:
            raise self.missing(f"jumps out of itself at {jump:#x}")
        return int(other)

    def returns_from(self, start: int, *, without: int | None = None) -> set[int]:
        """Addresses of the RETs that can be reached from an address.

        `without` cuts the way: instructions at that address are not entered. Raises SiteMissing where a
        jump goes through a table (`switch` since Go 1.19), for it may lead to any RET, or where there
        are too many.
        """
        seen: set[int] = set()
        todo = [start]
        while todo:
            address = todo.pop()
            if address in seen or address == without or address not in self._at:
                continue
            seen.add(address)
            todo.extend(self._successors(self.instructions[self._at[address]]))
        returns = {a for a in seen if self.instructions[self._at[a]].mnemonic == "ret"}
        if len(returns) > _MOST_RETURNS:
            raise self.missing(f"returns in {len(returns)} places")
        return returns
