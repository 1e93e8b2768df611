"""Probe sites are found in arm64 code that has the shape of the compiler's, and refused in other.

Instructions are encoded here by the architecture's manual, not by what disassembles them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytraceprop.errors import UnsupportedExecutable
from pytraceprop.go import Executable
from pytraceprop.go.arm64 import Arm64Code
from pytraceprop.go.functions import Function
from pytraceprop.go.sites import SiteMissing
from tests.unit.elfwriter import GoELF

ARM64 = 183
SP = ZERO = 31
LINK = 30
GUARD, SCRATCH = 16, 17


def word(value: int) -> bytes:
    return struct.pack("<I", value)


def load(register: int, base: int, offset: int) -> bytes:
    return word(0xF9400000 | offset // 8 << 10 | base << 5 | register)


def store(register: int, base: int, offset: int) -> bytes:
    return word(0xF9000000 | offset // 8 << 10 | base << 5 | register)


def store_byte(register: int, base: int, offset: int) -> bytes:
    return word(0x39000000 | offset << 10 | base << 5 | register)


def load_pair(first: int, second: int, base: int, offset: int) -> bytes:
    return word(0xA9400000 | (offset // 8 & 0x7F) << 15 | second << 10 | base << 5 | first)


def store_pair(first: int, second: int, base: int, offset: int) -> bytes:
    return word(0xA9000000 | (offset // 8 & 0x7F) << 15 | second << 10 | base << 5 | first)


def move(to: int, source: int) -> bytes:
    return word(0xAA0003E0 | source << 16 | to)


def subtract(to: int, source: int, amount: int) -> bytes:
    return word(0xD1000000 | amount << 10 | source << 5 | to)


def branch(distance: int) -> bytes:
    return word(0x14000000 | distance // 4 & 0x3FFFFFF)


def call(distance: int) -> bytes:
    return word(0x94000000 | distance // 4 & 0x3FFFFFF)


def branch_if_zero(register: int, distance: int) -> bytes:
    return word(0xB4000000 | (distance // 4 & 0x7FFFF) << 5 | register)


def branch_if_not_zero(register: int, distance: int) -> bytes:
    return word(0xB5000000 | (distance // 4 & 0x7FFFF) << 5 | register)


def branch_if_lower(distance: int) -> bytes:
    return word(0x54000003 | (distance // 4 & 0x7FFFF) << 5)


def branch_if_lower_or_same(distance: int) -> bytes:
    return word(0x54000009 | (distance // 4 & 0x7FFFF) << 5)


NOP = word(0xD503201F)
RET = word(0xD65F03C0)
JUMP_THROUGH_TABLE = word(0xD61F0360)  # br x27
CALL_CLOSURE = word(0xD63F0060)  # blr x3
COMPARE = word(0xEB3063FF)  # cmp sp, x16
COMPARE_BELOW = word(0xEB10023F)  # cmp x17, x16
EXCHANGE = word(0xF8A08020)  # swpa x0, x0, [x1], Armv8.1: writes its second operand
NOT_CODE = word(0xFFFFFFFF)

CHECK = load(GUARD, 28, 0x10) + COMPARE + branch_if_lower_or_same(0x40)
CHECK_LARGE = (
    load(GUARD, 28, 0x10) + subtract(SCRATCH, SP, 0x130) + COMPARE_BELOW + branch_if_lower_or_same(0x40)
)
FRAME = word(0xF81D0FFE) + word(0xF81F83FD) + subtract(29, SP, 8)  # str x30, [sp, #-48]!; stur x29, [sp, #-8]
FRAME_LARGE = (
    subtract(20, SP, 0x1B0) + store_pair(29, LINK, 20, -8) + word(0x9100029F) + subtract(29, SP, 8)
)  # sub x20, sp, #432; stp x29, x30, [x20, #-8]; mov sp, x20; sub x29, sp, #8


class Sample:
    """A function under test, in an arm64 executable with a callee."""

    def __init__(self, directory: Path) -> None:
        self.go = GoELF()
        self.callee = self.go.function("callee", RET)
        self.start = self.go.next_function()
        self.path = directory / "program"
        self.executable: Executable | None = None

    def call(self, at: int) -> bytes:
        """A call of the callee, `at` bytes behind the function's start."""
        return call(self.callee - (self.start + at))

    def code(self, code: bytes) -> Arm64Code:
        """The function, disassembled."""
        assert self.go.function("sample", code) == self.start
        self.path.write_bytes(self.go.build(machine=ARM64))
        self.executable = Executable(self.path)
        assert self.executable.image.machine == "arm64"
        found = self.executable.code("sample")
        assert isinstance(found, Arm64Code)
        return found

    def function(self) -> Function:
        """The callee."""
        return self.executable.function("callee")


@pytest.fixture
def sample(tmp_path: Path) -> Iterator[Sample]:
    sample = Sample(tmp_path)
    yield sample
    if sample.executable:
        sample.executable.close()


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7])
def test_a_function_that_ends_within_an_instruction_is_refused(sample: Sample, length: int) -> None:
    with pytest.raises(SiteMissing, match="disassembled"):
        sample.code((FRAME + RET)[:length])


def test_constants_in_the_text_are_stepped_over(sample: Sample) -> None:
    head = FRAME + branch(8) + NOT_CODE
    code = sample.code(head + sample.call(len(head)) + RET)
    assert code.calls(sample.function()) == [sample.start + len(head)]


@pytest.mark.parametrize("times", [0, 1, 2])
def test_the_only_call_is_found_and_others_are_refused(sample: Sample, times: int) -> None:
    code = FRAME
    for _ in range(times):
        code += sample.call(len(code))
    jump = branch(sample.callee - (sample.start + len(code)))  # a jump is no call
    found = sample.code(code + jump + RET)
    if times == 1:
        assert found.only_call(sample.function()) == sample.start + len(FRAME)
    else:
        with pytest.raises(SiteMissing, match=f"{times} times"):
            found.only_call(sample.function())


def trampoline(at: int, to: int, register: int = 16) -> bytes:
    """What the linker makes for a far call: adrp, add, br."""
    pages = (to >> 12) - (at >> 12)
    adrp = 0x90000000 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5 | register
    add = 0x91000000 | (to & 0xFFF) << 10 | register << 5 | register
    return word(adrp) + word(add) + word(0xD61F0000 | register << 5)


@pytest.mark.parametrize("register", [16, 27])
@pytest.mark.parametrize("distance", [0, 0x5000, 0x7FFFF000, -0x5000], ids=hex)
def test_a_call_through_a_trampoline_is_one_of_what_it_leads_to(
    sample: Sample, register: int, distance: int
) -> None:
    at = sample.start + 8
    code = sample.code(call(8) + RET + trampoline(at, sample.callee + distance, register))
    for where in (distance, distance + 4):
        callee = Function("callee", sample.callee + where, sample.callee + where + 4)
        assert code.calls(callee) == ([sample.start] if where == distance else [])


@pytest.mark.parametrize(
    "change",
    [
        lambda code: code[:4] + word(0xD503201F) + code[8:],
        lambda code: code[:8] + RET,
        lambda code: code[:8] + word(0xD61F0000 | 17 << 5),  # another register
        lambda code: code[:4] + word(0x91000000 | 17 << 5 | 16) + code[8:],
        lambda code: word(0x10000010) + code[4:],  # adr
    ],
)
def test_what_is_not_quite_a_trampoline_leads_nowhere(
    sample: Sample, change: Callable[[bytes], bytes]
) -> None:
    tail = change(trampoline(sample.start + 8, sample.callee))
    code = sample.code(call(8) + RET + tail)
    assert code.calls(sample.function()) == []


def test_a_call_outside_the_file_leads_nowhere(sample: Sample) -> None:
    assert sample.code(call(0x7FFFFFC) + RET).calls(sample.function()) == []


BETWEEN = [b"", NOP, store(0, SP, 0x40), store_pair(0, 1, SP, 0x40), load(5, 0, 8), branch(8) + RET]


@pytest.mark.parametrize("between", BETWEEN)
def test_the_branch_on_a_result_is_found_behind_harmless_instructions(sample: Sample, between: bytes) -> None:
    head = FRAME + sample.call(len(FRAME)) + between
    code = sample.code(head + branch_if_zero(1, 8) + RET + RET)
    site = sample.start + len(head)
    assert code.test_after(sample.start + len(FRAME), 1) == (site, site + 8)


def test_with_the_other_branch_success_falls_through(sample: Sample) -> None:
    head = FRAME + sample.call(len(FRAME))
    code = sample.code(head + branch_if_not_zero(1, 8) + RET + RET)
    site = sample.start + len(head)
    assert code.test_after(sample.start + len(FRAME), 1) == (site, site + 4)


@pytest.mark.parametrize(
    "between",
    [
        move(1, 9),
        move(0, 9),  # the result before it is read, too
        load_pair(5, 1, SP, 0x40),
        EXCHANGE,
        CALL_CLOSURE,
        branch_if_zero(2, 8),
        branch_if_zero(11, 8),  # x11 is not x1
        word(0x34000041),  # cbz w1: half of it
        word(0x36000041),  # tbz x1, #0: one bit of it
        RET,
        branch(0),
        branch(-4),  # to the call
        branch(0x1000),
        JUMP_THROUGH_TABLE,
        NOT_CODE,
        80 * NOP,
    ],
)
def test_a_result_that_is_not_tested_first_is_refused(sample: Sample, between: bytes) -> None:
    head = FRAME + sample.call(len(FRAME)) + between
    code = sample.code(head + branch_if_zero(1, 8) + RET + RET)
    with pytest.raises(SiteMissing, match="does not test result 1"):
        code.test_after(sample.start + len(FRAME), 1)


def test_a_call_at_the_very_end_has_no_test(sample: Sample) -> None:
    code = sample.code(FRAME + sample.call(len(FRAME)))
    with pytest.raises(SiteMissing, match="does not test"):
        code.test_after(sample.start + len(FRAME), 1)


def test_returns_behind_the_cut_are_left_out(sample: Sample) -> None:
    code = sample.code(branch_if_zero(1, 8) + RET + RET)
    failure, success = sample.start + 4, sample.start + 8
    assert code.returns_from(sample.start) == {failure, success}
    assert code.returns_from(sample.start, without=success) == {failure}


def test_a_call_comes_back_and_a_jump_elsewhere_does_not(sample: Sample) -> None:
    code = sample.code(sample.call(0) + CALL_CLOSURE + branch_if_zero(1, 8) + branch(0x1000) + RET)
    assert code.returns_from(sample.start) == {sample.start + 16}


@pytest.mark.parametrize("code", [branch(0), NOT_CODE, word(0), word(0xD4200000)])  # udf, brk
def test_what_loops_or_traps_does_not_return(sample: Sample, code: bytes) -> None:
    assert sample.code(code + RET).returns_from(sample.start) == set()


def test_as_many_returns_as_functions_have_are_found(sample: Sample) -> None:
    few = 63 * (branch_if_zero(1, 8) + RET) + RET
    assert len(sample.code(few).returns_from(sample.start)) == 64


def test_more_returns_than_any_function_has_are_refused(sample: Sample) -> None:
    many = 64 * (branch_if_zero(1, 8) + RET) + RET
    with pytest.raises(SiteMissing, match="returns in 65 places"):
        sample.code(many).returns_from(sample.start)


def test_returns_behind_a_jump_table_are_not_guessed(sample: Sample) -> None:
    with pytest.raises(SiteMissing, match="table"):
        sample.code(JUMP_THROUGH_TABLE + RET).returns_from(sample.start)


SLOT = 0x1B8
SAVE = store(0, SP, SLOT)
LOAD = load(5, SP, SLOT)
FIELD = load(0, 5, 0x38)
HEAD = CHECK_LARGE + FRAME_LARGE


def receiver_slot(
    sample: Sample, body: bytes, *, head: bytes = HEAD, tail: Callable[[int], bytes] = lambda _: b""
) -> int:
    head += body
    code = sample.code(head + sample.call(len(head)) + RET + tail(len(head) + 8))
    return code.receiver_slot(sample.start + len(head), 0, 0x38)


@pytest.mark.parametrize(
    "body",
    [
        SAVE + LOAD + FIELD,
        SAVE + CALL_CLOSURE + LOAD + FIELD,
        SAVE + LOAD + FIELD + load(1, SP, 0x60) + word(0x9000001B) + load(3, 27, 0x798),
        SAVE + load_pair(5, 6, SP, SLOT) + FIELD,
        SAVE + load_pair(6, 5, SP, SLOT - 8) + FIELD,
        SAVE + LOAD + load_pair(0, 1, 5, 0x38),
        SAVE + LOAD + load_pair(1, 0, 5, 0x30),
        SAVE + load(0, SP, SLOT) + load(0, 0, 0x38),  # in one register
        store_pair(0, 1, SP, SLOT) + LOAD + FIELD,
        store_pair(1, 0, SP, SLOT - 8) + LOAD + FIELD,
        SAVE + store(1, SP, SLOT - 8) + store_byte(1, SP, SLOT + 8) + LOAD + FIELD,  # neighbours
        SAVE + store(1, 6, SLOT) + LOAD + FIELD,  # elsewhere
        store(1, SP, 0x40) + move(1, 0) + SAVE + LOAD + FIELD,
    ],
)
def test_the_stack_slot_of_the_receiver_is_found(sample: Sample, body: bytes) -> None:
    assert receiver_slot(sample, body) == SLOT


@pytest.mark.parametrize(
    "body",
    [
        SAVE + LOAD + load(0, 5, 0x40),  # another field
        store_pair(2, 0, SP, -0x20) + load_pair(2, 5, SP, -0x20) + FIELD,  # below the stack
        SAVE + load(0, SP, 0x38),  # no field at all
        SAVE + move(5, 0) + FIELD,  # not from the stack
        SAVE + load(5, 6, SLOT) + FIELD,
        SAVE + LOAD + word(0xF8607880) + NOP,  # ldr x0, [x4, x0, lsl #3]
        LOAD + FIELD,  # never saved
        store(1, SP, SLOT) + LOAD + FIELD,  # another argument is
        store_pair(1, 0, SP, SLOT) + LOAD + FIELD,
        word(0xB9000000 | SLOT // 4 << 10 | SP << 5) + LOAD + FIELD,  # str w0: half of it
        SAVE + store(1, SP, SLOT) + LOAD + FIELD,  # overwritten
        SAVE + store_byte(1, SP, SLOT + 7) + LOAD + FIELD,
        SAVE + store_pair(1, 2, SP, SLOT - 8) + LOAD + FIELD,
        SAVE + word(0x3D800000 | (SLOT - 8) // 16 << 10 | SP << 5) + LOAD + FIELD,  # str q0
        move(0, 9) + SAVE + LOAD + FIELD,  # something else is saved
        CALL_CLOSURE + SAVE + LOAD + FIELD,
        NOT_CODE + SAVE + LOAD + FIELD,
        EXCHANGE + SAVE + LOAD + FIELD,
        branch_if_zero(1, 8) + NOP + SAVE + LOAD + FIELD,  # behind a branch
        SAVE + LOAD + FIELD + move(0, 9),  # the argument is something else in the end
        SAVE + LOAD + FIELD + word(0x52800000),  # mov w0, #0
        SAVE + LOAD + CALL_CLOSURE + FIELD,  # R5 does not survive the call
        SAVE + LOAD + FIELD + EXCHANGE,
        SAVE + LOAD + 80 * NOP + FIELD,
        SAVE + LOAD + FIELD + 80 * NOP,
    ],
)
def test_a_receiver_that_cannot_be_told_is_refused(sample: Sample, body: bytes) -> None:
    with pytest.raises(SiteMissing):
        receiver_slot(sample, body)


@pytest.mark.parametrize("target", [0, -4], ids=["call", "field"])
def test_a_call_with_two_ways_to_it_has_no_receiver(sample: Sample, target: int) -> None:
    to = len(HEAD + SAVE + LOAD + FIELD) + target
    with pytest.raises(SiteMissing, match="does not load"):
        receiver_slot(sample, SAVE + LOAD + FIELD, tail=lambda at: branch(to - at))


def test_a_jump_to_before_the_load_does_not_matter(sample: Sample) -> None:
    to = len(HEAD + SAVE)
    assert receiver_slot(sample, SAVE + LOAD + FIELD, tail=lambda at: branch(to - at)) == SLOT


def test_with_a_jump_table_there_may_be_another_way_to_the_call(sample: Sample) -> None:
    with pytest.raises(SiteMissing, match="does not load"):
        receiver_slot(sample, SAVE + LOAD + FIELD, tail=lambda _: JUMP_THROUGH_TABLE)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        FRAME,
        CHECK + FRAME,
        load(GUARD, 28, 0x10) + branch_if_lower(0x40) + COMPARE + branch_if_lower_or_same(0x40) + FRAME,
    ],
    ids=["no frame", "no stack check", "small frame", "huge frame"],
)
def test_the_receiver_is_stored_behind_any_stack_check(sample: Sample, head: bytes) -> None:
    assert receiver_slot(sample, SAVE + LOAD + FIELD, head=head) == SLOT


@pytest.mark.parametrize(
    "head",
    [
        COMPARE + branch_if_lower_or_same(0x40),  # no stack check
        load(GUARD, 28, 0x18) + COMPARE + branch_if_lower_or_same(0x40),
        CHECK + COMPARE + branch_if_lower_or_same(0x40),  # another branch behind it
        CHECK + COMPARE + branch_if_lower(0x40),
        branch_if_zero(1, 4),  # the store can be jumped to
        80 * NOP,
    ],
)
def test_a_store_that_may_not_run_does_not_count(sample: Sample, head: bytes) -> None:
    with pytest.raises(SiteMissing, match="keeps something else"):
        receiver_slot(sample, SAVE + LOAD + FIELD, head=head)


def test_with_a_jump_table_the_store_may_not_run(sample: Sample) -> None:
    code = sample.code(SAVE + JUMP_THROUGH_TABLE)
    assert not code._stores_receiver(code.instructions[0], SLOT)


@pytest.mark.parametrize("machine", [0, 3, 40, 243, 0xFFFF])
def test_other_machines_are_refused(sample: Sample, machine: int) -> None:
    sample.path.write_bytes(sample.go.build(machine=machine))
    with pytest.raises(UnsupportedExecutable, match="x86-64 and arm64"):
        Executable(sample.path)
