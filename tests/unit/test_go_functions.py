"""Functions are found by name in .gopclntab, and a table that contradicts itself is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytraceprop.errors import MalformedExecutable, UnsupportedExecutable
from pytraceprop.go import Executable
from pytraceprop.go import executable as executable_module
from tests.unit.elfwriter import BASE, LAYOUTS, GoELF

#: Where the fields of the header are.
MAGIC, POINTER_SIZE, COUNT, NAMES, UNITS, FUNCTIONS = 0, 7, 8, 32, 40, 64


class Program:
    """An executable with some functions, to be damaged."""

    def __init__(self, layout: str = "1.27") -> None:
        self.go = GoELF(layout)
        self.go.types.struct("main.T", [], 0)  # moduledata wants a typelink
        self.starts = {
            name: self.go.function(name, b"\x90" * 16)
            for name in ("main.main", "main.main.func1", "net/http.(*conn).serve", "main.ma")
        }
        self.data = bytearray(self.go.build())
        self.table = self.data.index(struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8))
        self.rows = self.table + int(struct.unpack_from("<Q", self.data, self.table + FUNCTIONS)[0])

    def set(self, layout: str, where: int, value: int) -> None:
        """Overwrites a field of the table's header."""
        struct.pack_into(layout, self.data, self.table + where, value)

    def set_row(self, index: int, *, start: int | None = None, offset: int | None = None) -> None:
        """Overwrites parts of a row of the function table."""
        for value, where in ((start, 0), (offset, 4)):
            if value is not None:
                struct.pack_into("<I", self.data, self.rows + 8 * index + where, value)

    def open(self, tmp_path: Path) -> Executable:
        """The executable, as it is by now."""
        path = tmp_path / "program"
        path.write_bytes(self.data)
        return Executable(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_are_matched_whole(tmp_path: Path, layout: str) -> None:
    program = Program(layout)
    with program.open(tmp_path) as executable:
        for name, start in program.starts.items():
            assert executable.function(name).start == start
        for missing in ("main.mai", "ain.main", "main.main.func", "main.main.func11", ""):
            assert not executable.has_function(missing)


def test_a_function_ends_where_the_next_begins(tmp_path: Path) -> None:
    program = Program()
    with program.open(tmp_path) as executable:
        functions = [executable.function(name) for name in program.starts]
    assert [f.end for f in functions[:-1]] == [f.start for f in functions[1:]]


def test_many_names_are_looked_up_in_one_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks = []
    find = executable_module.find_functions
    monkeypatch.setattr(executable_module, "find_functions", lambda *args: walks.append(args) or find(*args))
    program = Program()
    with program.open(tmp_path) as executable:
        names = [*program.starts, "nonsense"]
        executable.load_functions(names)
        assert [executable.has_function(name) for name in names] == [True] * 4 + [False]
        executable.load_functions(names)
    assert len(walks) == 1


def test_the_table_of_go_1_18_is_read_too(tmp_path: Path) -> None:
    program = Program()
    program.set("<I", MAGIC, 0xFFFFFFF0)
    with program.open(tmp_path) as executable:
        assert executable.has_function("main.main")


@pytest.mark.parametrize("magic", [0xFFFFFFFB, 0xFFFFFFFA, 0xFFFFFFF2, 0, 0xF1FFFFFF])
def test_another_magic_is_not_covered(tmp_path: Path, magic: int) -> None:
    program = Program()
    program.set("<I", MAGIC, magic)
    with program.open(tmp_path) as executable, pytest.raises(UnsupportedExecutable, match="magic"):
        executable.function("main.main")


def test_pointers_of_four_bytes_are_not_covered(tmp_path: Path) -> None:
    program = Program()
    program.set("<B", POINTER_SIZE, 4)
    with program.open(tmp_path) as executable, pytest.raises(UnsupportedExecutable):
        executable.function("main.main")


@pytest.mark.parametrize("where", [COUNT, NAMES, UNITS, FUNCTIONS])
@pytest.mark.parametrize("value", [1 << 20, 1 << 40, 1 << 63, (1 << 64) - 1])
def test_a_header_that_points_outside_the_table_is_refused(tmp_path: Path, where: int, value: int) -> None:
    program = Program()
    program.set("<Q", where, value)
    with program.open(tmp_path) as executable, pytest.raises(MalformedExecutable, match="contradicts"):
        executable.function("main.main")


@pytest.mark.parametrize("offset", [1 << 20, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_function_outside_the_table_is_refused(tmp_path: Path, offset: int) -> None:
    program = Program()
    program.set_row(1, offset=offset)
    with program.open(tmp_path) as executable, pytest.raises(MalformedExecutable, match="outside itself"):
        executable.function("main.main")


@pytest.mark.parametrize(
    ("start", "stop"), [(32, 32), (48, 32), (16, 1 << 20), (16, 0xFFFFFFFF), (0xFFFFFFFF, 32)]
)
def test_a_function_that_is_not_within_the_text_is_refused(tmp_path: Path, start: int, stop: int) -> None:
    program = Program()
    program.set_row(1, start=start)
    program.set_row(2, start=stop)
    with program.open(tmp_path) as executable, pytest.raises(MalformedExecutable, match="outside the text"):
        executable.function(list(program.starts)[1])


def test_a_wrong_row_of_another_function_does_no_harm(tmp_path: Path) -> None:
    program = Program()
    program.set_row(3, start=1 << 30)
    with program.open(tmp_path) as executable:
        assert executable.function("main.main").start == program.starts["main.main"]


def test_a_table_too_short_for_its_header_is_refused(tmp_path: Path) -> None:
    program = Program()
    (start,) = struct.unpack_from("<Q", program.data, 40)
    for at in range(start, start + 64 * 9, 64):
        if struct.unpack_from("<Q", program.data, at + 16)[0] == BASE + program.table:
            struct.pack_into("<Q", program.data, at + 32, 71)
    with program.open(tmp_path) as executable, pytest.raises(MalformedExecutable, match="too short"):
        executable.function("main.main")
