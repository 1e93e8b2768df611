"""What the documents list is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from pytraceprop.native import COUNTER_NAMES
from tests.bpf import grpccases, test_http2
from tools import golang

ROOT = Path(__file__).resolve().parents[2]


def test_every_counter_is_explained_and_no_other() -> None:
    rows = (ROOT / "docs" / "counters.md").read_text().splitlines()
    names = {
        name for row in rows if row.startswith("|") for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert names == {*COUNTER_NAMES, "subscription_dropped"}


def test_every_document_that_the_readme_names_is_there() -> None:
    names = re.findall(r"\]\((docs/[\w.]+)\)", (ROOT / "README.md").read_text())
    assert names
    assert all((ROOT / name).is_file() for name in names)
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} == set(names)


def test_every_make_target_that_the_documents_name_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    texts = "\n".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    named = set(re.findall(r"^ {4}make ([\w-]+)", texts, re.MULTILINE))
    assert {"demo", "test", "test-full", "bench"} <= named
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in named)


def covered() -> dict[str, str]:
    """The rows of README's table of what works now."""
    rows = re.findall(r"^\| ([^|]+) \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return {name.strip(): text for name, text in rows}


def release(version: str) -> tuple[int, ...]:
    """1.50 of 1.50.1."""
    return tuple(int(part) for part in version.split(".")[:2])


def claimed(text: str) -> list[tuple[int, ...]]:
    """First and last of `1.50 to 1.85`."""
    found = re.search(r"(\d+\.\d+) to (\d+\.\d+)", text)
    assert found, text
    return [release(version) for version in found.groups()]


def test_the_readme_claims_the_versions_that_are_tested() -> None:
    go = sorted(map(release, golang.RELEASES))
    grpc = sorted(map(release, grpccases.VERSIONS))
    modfiles = [modfile for _, modfile in test_http2.PROGRAMS if modfile != "go.mod"]
    xnet = sorted(release(re.findall(r"[\d.]+\d", modfile)[0]) for modfile in modfiles)
    rows = covered()
    assert claimed(rows["Go programs"]) == [go[0], go[-1]]
    assert claimed(rows["gRPC"]) == [grpc[0], grpc[-1]]
    assert claimed(rows["HTTP/2"]) == [xnet[0], xnet[-1]]


def test_the_readme_claims_the_frameworks_that_are_tested() -> None:
    source = (ROOT / "tests/go/frameworks/list.go").read_text()
    tested = re.findall(r'^\t\{"([\w-]+)"', source, re.MULTILINE)
    claims = covered()["Frameworks"].lower()
    for name in ("gin", "echo", "chi", "gorilla", "connect", "reverseproxy", "roundtripper"):
        assert name in claims
        assert any(name in one for one in tested), (name, tested)
