"""python -m pytraceprop inspect, as a user would run it."""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytraceprop.cli import main
from pytraceprop.probes import read_plan
from pytraceprop.probes.emulation import is_emulated
from tests.unit.elfwriter import GoELF
from tools import golang

GO = Path(__file__).resolve().parents[1] / "go"
SERVICE = GO / "chain" / "cmd" / "service"


def inspect(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The exit status, and what was printed."""
    status = main(["inspect", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def inspect_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    status, out, err = inspect(capsys, *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_json_says_what_the_build_was_and_what_can_be_traced(capsys: pytest.CaptureFixture[str]) -> None:
    program = golang.build(SERVICE, "1.27")
    found = inspect_json(capsys, program)
    assert found["path"] == str(program)
    assert (found["go"], found["module"]) == (golang.release("1.27"), "chain")
    assert (found["machine"], found["position_independent"], found["stripped"]) == ("x86_64", False, False)
    assert 0 < found["seconds"] < 10
    assert found["protocols"]["http/1.1"] == {"client": True, "server": True, "reason": ""}
    assert found["protocols"]["http/2"] == {"client": True, "server": True, "reason": ""}


def test_json_lists_every_site_and_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    program = golang.build(SERVICE, "1.27")
    sites = inspect_json(capsys, program)["sites"]
    assert sorted(site["offset"] for site in sites) == sorted(
        site.offset for site in read_plan(program).sites
    )
    assert {(site["protocol"], site["side"]) for site in sites} == {
        (protocol, side) for protocol in ("http/1.1", "http/2") for side in ("client", "server")
    }
    for site in sites:
        rare = site["name"] in ("client_fail", "http2_client_fail")
        assert site["name"].startswith("http2_") is (site["protocol"] == "http/2")
        assert site["emulated"] is not rare
        assert (site["instruction"] == "ret") is rare
    assert {"client_start", "client_write", "client_end", "server_start", "server_end"} <= {
        site["name"] for site in sites
    }


def test_the_form_of_the_build_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect_json(capsys, golang.build(SERVICE, "1.27", buildmode="pie", ldflags="-s -w"))
    assert (found["position_independent"], found["stripped"]) == (True, True)
    status, page, _ = inspect(capsys, found["path"])
    assert status == 0
    assert "position-independent, stripped" in page


def test_another_machines_executable_is_read_too(capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect_json(capsys, golang.build(SERVICE, "1.27", arch="arm64"))
    assert found["machine"] == "arm64"
    assert found["protocols"]["http/1.1"] == {"client": True, "server": True, "reason": ""}
    assert (found["protocols"]["http/2"]["client"], found["protocols"]["http/2"]["server"]) == (False, True)
    assert "arm64" in found["protocols"]["http/2"]["reason"]
    start = next(site for site in found["sites"] if site["name"] == "server_start")
    assert (start["instruction"], start["emulated"]) == ("bl", True)


def test_the_page_says_it_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    program = golang.build(SERVICE, "1.27")
    status, page, err = inspect(capsys, program)
    assert (status, err) == (0, "")
    lines = page.splitlines()
    assert lines[0] == str(program)
    assert lines[1].strip() == f"Go {golang.release('1.27')}, module chain"
    assert "fixed address, with symbols" in lines[2]
    assert any(line.split() == ["http/1.1", "client", "and", "server"] for line in lines)
    assert any(line.split() == ["http/2", "client", "and", "server"] for line in lines)
    assert any(
        line.split()[0] == "server_start" and line.endswith("call   emulated") for line in lines if line
    )
    assert any("client_fail" in line and line.endswith("ret    single-stepped") for line in lines)


def test_a_program_without_http_has_the_reason_once(capsys: pytest.CaptureFixture[str]) -> None:
    program = golang.build(GO / "hello", "1.27")
    found = inspect_json(capsys, program)
    reason = "it has no type net/http.Request"
    assert found["protocols"]["http/1.1"] == {"client": False, "server": False, "reason": reason}
    assert found["sites"] == []
    status, page, _ = inspect(capsys, program)
    assert status == 0
    assert page.count(reason) == 1
    assert "probe site" not in page


def test_the_executable_of_a_process_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    program = golang.build(GO / "cases", "1.27")
    with subprocess.Popen([program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 30)[0]  # it runs, and not the shell before it
            found = inspect_json(capsys, "--pid", process.pid)
        finally:
            process.kill()
    assert Path(found["path"]).resolve() == program.resolve()
    assert found["module"] == "cases"
    assert found["sites"]


@pytest.mark.parametrize("as_json", [False, True], ids=["page", "json"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"hello" * 100, "not an ELF file"),
        (b"", "too short"),
        (Path("/bin/sh").read_bytes(), ""),
        (GoELF().build()[:4000], "truncated"),
        (GoELF().build(machine=40), "only executables for"),
    ],
    ids=["missing", "text", "empty", "no Go", "truncated", "32-bit arm"],
)
def test_what_cannot_be_read_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None, reason: str, as_json: bool
) -> None:
    path = tmp_path / "program"
    if content is not None:
        path.write_bytes(content)
    status, out, err = inspect(capsys, path, *["--json"][:as_json])
    assert status == 1
    if as_json:
        found = json.loads(out)
        assert (set(found), found["path"], err) == ({"path", "error"}, str(path), "")
        told = found["error"]
    else:
        assert (out, err.count("\n")) == ("", 1)
        told = err.removeprefix(f"{path}: ")
    assert reason in told
    assert str(path) not in told


def test_what_is_no_file_and_a_process_that_is_gone_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for a writer
    assert inspect(capsys, pipe) == (1, "", f"{pipe}: not a regular file\n")
    assert inspect(capsys, tmp_path) == (1, "", f"{tmp_path}: not a regular file\n")
    status, out, err = inspect(capsys, "--pid", 4_000_000)
    assert (status, out) == (1, "")
    assert err.startswith("process 4000000: ")
    assert "does not exist" in err


@pytest.mark.parametrize("arguments", [[], ["a", "--pid", "1"], ["--pid", "x"], ["a", "b"]])
def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", *arguments])
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_what_a_file_says_of_itself_cannot_steer_a_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    version = b"go" + golang.release("1.27").encode()
    evil = b"go1\x1b[2J".ljust(len(version), b"\x07")
    program = golang.build(GO / "hello", "1.27").read_bytes()
    magic = program.index(b"\xff Go buildinf:")
    path = tmp_path / os.fsdecode(b"a\x1b[2J\xff")
    path.write_bytes(program[:magic] + program[magic:].replace(version, evil, 1))
    status, page, err = inspect(capsys, path)
    assert (status, err) == (0, "")
    assert all(c.isprintable() or c == "\n" for c in page)
    assert inspect_json(capsys, path)["go"] == evil.decode().removeprefix("go")


@pytest.mark.parametrize(
    ("code", "emulated"),
    [
        ("55", True),  # push rbp
        ("4157", True),  # push r15
        ("e800000000", True),  # call
        ("e900000000", True),  # jmp
        ("eb00", True),
        ("7400", True),  # je
        ("0f8400000000", True),
        ("90", True),  # nop
        ("0f1f440000", False),  # a longer one
        ("c3", False),  # ret
        ("ffd0", False),  # call rax
        ("4889e5", False),  # mov
        ("4183c001", False),  # add r8d, 1
    ],
)
def test_what_x86_64_emulates(code: str, emulated: bool) -> None:
    assert is_emulated("x86_64", bytes.fromhex(code).ljust(15, b"\0")) is emulated


@pytest.mark.parametrize(
    ("word", "emulated"),
    [
        (0x94000000, True),  # bl
        (0x14000000, True),  # b
        (0x54000049, True),  # b.ls
        (0xB4000040, True),  # cbz
        (0x37000040, True),  # tbnz
        (0xD65F03C0, True),  # ret
        (0xD63F0000, True),  # blr
        (0xF81E0FFE, False),  # str x30, [sp, #-32]!
        (0xA9BF7BFD, False),  # stp
        (0xD503201F, False),  # nop
    ],
)
def test_what_arm64_simulates(word: int, emulated: bool) -> None:
    assert is_emulated("arm64", struct.pack("<I", word)) is emulated
