"""Probe sites are found in machine code that has the shape of the compiler's, and refused in other."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pytraceprop.go import Executable
from pytraceprop.go.sites import Code, SiteMissing
from tests.unit.elfwriter import GoELF

PUSH = bytes.fromhex("55 4889e5")  # push rbp; mov rbp, rsp
FRAME = bytes.fromhex("4881ec98010000")  # sub rsp, 0x198
TEST_RBX = bytes.fromhex("4885db")
NOP = bytes.fromhex("66 0f1f440000")
RET = b"\xc3"


def je(distance: int) -> bytes:
    return b"\x0f\x84" + struct.pack("<i", distance)


def jne(distance: int) -> bytes:
    return b"\x0f\x85" + struct.pack("<i", distance)


class Sample:
    """A function under test, in an executable with a callee."""

    def __init__(self, directory: Path) -> None:
        self.go = GoELF()
        self.callee = self.go.function("callee", RET)
        self.start = self.go.next_function()
        self.path = directory / "program"

    def call(self, at: int) -> bytes:
        """A call of the callee, `at` bytes behind the function's start."""
        return b"\xe8" + struct.pack("<i", self.callee - (self.start + at + 5))

    def code(self, code: bytes) -> Code:
        """The function, disassembled."""
        assert self.go.function("sample", code) == self.start
        self.path.write_bytes(self.go.build())
        with Executable(self.path) as executable:
            return executable.code("sample")

    def function(self):
        """The callee."""
        with Executable(self.path) as executable:
            return executable.function("callee")


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path)


def test_code_that_is_none_is_refused(sample: Sample) -> None:
    with pytest.raises(SiteMissing, match="disassembled"):
        sample.code(PUSH + b"\x06\x06\x06")


def test_the_only_call_is_found_and_others_are_refused(sample: Sample) -> None:
    code = sample.code(PUSH + sample.call(4) + RET)
    assert code.only_call(sample.function()) == sample.start + 4


@pytest.mark.parametrize("times", [0, 2])
def test_no_call_or_several_are_not_the_only_one(sample: Sample, times: int) -> None:
    code = PUSH
    for _ in range(times):
        code += sample.call(len(code))
    found = sample.code(code + RET)
    with pytest.raises(SiteMissing, match=f"{times} times"):
        found.only_call(sample.function())


@pytest.mark.parametrize(
    "between", [b"", NOP, bytes.fromhex("4889442440"), b"\xeb\x02\x06\x06"[:2] + b"\x90\x90"]
)
def test_the_jump_on_a_result_is_found_behind_harmless_instructions(sample: Sample, between: bytes) -> None:
    head = PUSH + sample.call(4) + between + TEST_RBX
    code = sample.code(head + je(1) + RET + RET)
    assert code.test_after(sample.start + 4, 1) == (
        sample.start + len(head),
        sample.start + len(head) + 6 + 1,
    )


def test_with_the_other_jump_success_falls_through(sample: Sample) -> None:
    head = PUSH + sample.call(4) + TEST_RBX
    code = sample.code(head + jne(1) + RET + RET)
    assert code.test_after(sample.start + 4, 1) == (
        sample.start + len(head),
        sample.start + len(head) + 6,
    )


@pytest.mark.parametrize("between", [bytes.fromhex("4889c3"), bytes.fromhex("31db"), bytes.fromhex("5b")])
def test_a_result_that_is_overwritten_first_is_refused(sample: Sample, between: bytes) -> None:
    code = sample.code(PUSH + sample.call(4) + between + TEST_RBX + je(0) + RET)
    with pytest.raises(SiteMissing, match="does not test result 1"):
        code.test_after(sample.start + 4, 1)


def test_returns_behind_the_cut_are_left_out(sample: Sample) -> None:
    # test; je success; ret (failure); success: ret
    code = sample.code(TEST_RBX + je(1) + RET + RET)
    failure, success = sample.start + 9, sample.start + 10
    assert code.returns_from(sample.start) == {failure, success}
    assert code.returns_from(sample.start, without=success) == {failure}


@pytest.mark.parametrize("jump", ["ff24c5 00104000", "ffe0"], ids=["jmp [table+rax*8]", "jmp rax"])
def test_returns_behind_a_jump_through_a_table_cannot_be_told(sample: Sample, jump: str) -> None:
    code = sample.code(PUSH + je(1) + RET + bytes.fromhex(jump) + RET)
    with pytest.raises(SiteMissing, match="through a table"):
        code.returns_from(sample.start)
    assert code.returns_from(sample.start, without=sample.start + len(PUSH)) == set()


def test_a_loop_ends(sample: Sample) -> None:
    code = sample.code(b"\xeb\xfe" + RET)  # jmp to itself
    assert code.returns_from(sample.start) == set()


SAVE = bytes.fromhex("48898424a8010000")  # mov [rsp+0x1a8], rax
LOAD = bytes.fromhex("488b9424a8010000")  # mov rdx, [rsp+0x1a8]
FIELD = bytes.fromhex("488b4238")  # mov rax, [rdx+0x38]


def test_the_stack_slot_of_the_receiver_is_found(sample: Sample) -> None:
    head = PUSH + FRAME + SAVE + LOAD + FIELD
    code = sample.code(head + sample.call(len(head)) + RET)
    assert code.receiver_slot(sample.start + len(head), 0, 0x38) == 0x1A8


@pytest.mark.parametrize(
    "body",
    [
        SAVE + LOAD + bytes.fromhex("488b4240"),  # another field
        SAVE + bytes.fromhex("4889c2") + FIELD,  # not from the stack
        LOAD + FIELD,  # never saved
        SAVE + bytes.fromhex("48899c24a8010000") + LOAD + FIELD,  # overwritten by rbx
        SAVE + LOAD + FIELD + bytes.fromhex("31c0"),  # the argument is something else in the end
    ],
)
def test_a_receiver_that_cannot_be_told_is_refused(sample: Sample, body: bytes) -> None:
    head = PUSH + FRAME + body
    code = sample.code(head + sample.call(len(head)) + RET)
    with pytest.raises(SiteMissing):
        code.receiver_slot(sample.start + len(head), 0, 0x38)


CHECK = bytes.fromhex("493b6610 760a")  # cmp rsp, [r14 + 0x10]; jbe
LARGE_CHECK = bytes.fromhex("4c8da42468ffffff 4d3b6610 760a")  # lea r12, [rsp - 0x98]; cmp r12, ...; jbe


@pytest.mark.parametrize("check", [CHECK, LARGE_CHECK])
def test_a_function_is_entered_behind_the_check_of_its_stack(sample: Sample, check: bytes) -> None:
    code = sample.code(check + PUSH + NOP + RET * 8)
    assert code.entry() == sample.start + len(check)  # push rbp


def test_a_function_that_pushes_nothing_is_entered_at_the_check_itself(sample: Sample) -> None:
    code = sample.code(CHECK + FRAME + NOP + RET * 8)
    assert code.entry() == sample.start + 4


def test_a_function_without_a_check_has_no_entry(sample: Sample) -> None:
    code = sample.code(PUSH + FRAME + RET)
    with pytest.raises(SiteMissing, match="checking its stack"):
        code.entry()


MOV_RAX_RDX = bytes.fromhex("4889d0")
LOAD_RDX = bytes.fromhex("488b9424f0000000")  # mov rdx, [rsp + 0xf0]
LOAD_R10 = bytes.fromhex("4c8b542438")  # mov r10, [rsp + 0x38]
LOAD_RDI = bytes.fromhex("498b7a08")  # mov rdi, [r10 + 8]


def test_an_argument_is_followed_to_its_place_on_the_stack(sample: Sample) -> None:
    before = FRAME + LOAD_RDX + NOP + MOV_RAX_RDX
    code = sample.code(before + sample.call(len(before)) + RET)
    assert code.stack_slot(sample.start + len(before), 0) == 0xF0


def test_so_is_the_struct_that_an_argument_is_a_field_of(sample: Sample) -> None:
    before = FRAME + LOAD_R10 + LOAD_RDI + NOP
    code = sample.code(before + sample.call(len(before)) + RET)
    assert code.stack_slot(sample.start + len(before), 3, 8) == 0x38
    with pytest.raises(SiteMissing, match="from the stack"):
        code.stack_slot(sample.start + len(before), 3, 16)


@pytest.mark.parametrize("between", [bytes.fromhex("31c0"), bytes.fromhex("488d05ffffffff")])
def test_an_argument_that_is_computed_has_no_place(sample: Sample, between: bytes) -> None:
    before = LOAD_RDX + MOV_RAX_RDX + between  # xor eax, eax; lea rax, ...
    code = sample.code(before + sample.call(len(before)) + RET)
    with pytest.raises(SiteMissing, match="from the stack"):
        code.stack_slot(sample.start + len(before), 0)


@pytest.mark.parametrize("jump", [je, jne])
def test_a_conditional_jump_has_another_branch(sample: Sample, jump: Callable[[int], bytes]) -> None:
    code = sample.code(jump(3) + NOP[:1] + b"\x90\xc3" + RET * 3)
    taken, straight = sample.start + 9, sample.start + 6
    assert code.other_branch(sample.start, taken) == straight
    assert code.other_branch(sample.start, straight) == taken


def test_the_next_call_is_found_up_to_a_jump(sample: Sample) -> None:
    indirect = bytes.fromhex("ffd6")  # call rsi
    code = sample.code(sample.call(0) + NOP + indirect + je(0) + sample.call(19) + RET)
    following = code.next_call(sample.start)
    assert (following.address, following.target) == (sample.start + 11, None)
    with pytest.raises(SiteMissing, match="calls nothing"):
        code.next_call(sample.start + 11)
