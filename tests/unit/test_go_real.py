"""Plans of real programs, of every release that is covered, plain and stripped."""

from __future__ import annotations

import functools
import subprocess
import time
from collections import OrderedDict
from pathlib import Path

import attrs
import pytest

from pytraceprop.probes import Plan, read_plan, reading
from tools import golang

GO = Path(__file__).resolve().parents[1] / "go"
SERVICE = GO / "chain" / "cmd" / "service"
STRIPPED = "-s -w"


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_cache", OrderedDict())


@functools.cache
def told_by_the_compiler(go: str) -> dict[str, int]:
    """Offsets that a program compiled with the same release prints (unsafe.Offsetof)."""
    program = golang.build(GO / "offsets", go)
    lines = subprocess.run([program], capture_output=True, text=True, check=True, timeout=30).stdout
    return {name: int(offset) for name, offset in (line.split() for line in lines.splitlines())}


def same_layout(one: Plan, other: Plan) -> bool:
    """Whether two plans agree on all but where the linker put things."""

    def layout(plan: Plan) -> dict[str, int]:
        return {name: value for name, value in plan.fields.items() if not name.startswith("type_")}

    return layout(one) == layout(other)


@pytest.mark.parametrize("ldflags", ["", STRIPPED], ids=["plain", "stripped"])
@pytest.mark.parametrize("go", golang.RELEASES)
def test_both_sides_are_traced_and_fields_are_where_the_compiler_put_them(go: str, ldflags: str) -> None:
    found = read_plan(golang.build(SERVICE, go, ldflags=ldflags))
    protocol = found.protocols["http/1.1"]
    assert (protocol.client.reason, protocol.server.reason) == ("", "")
    assert protocol.client.possible and protocol.server.possible
    assert (found.go, found.module) == (golang.release(go), "chain")
    told = told_by_the_compiler(go)
    wanted = {"request_method", "request_url", "request_header", "request_host", "url_path", "url_host"}
    assert wanted | {"client_response_status", "tcp_addr_ip", "tcp_addr_port"} <= told.keys()
    assert {name: found.fields[name] for name in told} == told


@pytest.mark.parametrize("go", golang.RELEASES)
def test_stripping_changes_no_layout(go: str) -> None:
    plain, stripped = (read_plan(golang.build(SERVICE, go, ldflags=flags)) for flags in ("", STRIPPED))
    assert same_layout(plain, stripped)
    assert len(plain.sites) == len(stripped.sites)
    assert sorted(plain.context_types.values()) == sorted(stripped.context_types.values())


@pytest.mark.parametrize("go", golang.RELEASES)
def test_every_value_fits_what_the_bpf_programs_are_told_in(go: str) -> None:
    found = read_plan(golang.build(SERVICE, go))
    for name, value in found.fields.items():
        assert 0 <= value < 1 << (64 if name.startswith("type_") else 16), name
    assert all(0 < t < 1 << 64 and 0 <= o < 1 << 32 for t, o in found.context_types.items())
    assert found.context_types


@pytest.mark.parametrize("go", golang.RELEASES)
def test_the_map_layout_is_that_of_the_release(go: str) -> None:
    fields = read_plan(golang.build(SERVICE, go)).fields
    swiss = tuple(int(part) for part in go.split(".")) >= (1, 24)
    assert (fields["bucket_overflow"] == 0) is swiss
    assert (fields["group_size"], fields["group_keys"]) == ((328, 8) if swiss else (336, 8))


def test_a_second_read_of_the_same_build_is_served_from_the_cache(tmp_path: Path) -> None:
    program, link = golang.build(SERVICE, "1.27", ldflags=STRIPPED), tmp_path / "exe"
    link.symlink_to(program)  # as /proc/<pid>/exe is
    started = time.perf_counter()
    first = read_plan(program)
    between = time.perf_counter()
    second = read_plan(link)
    ended = time.perf_counter()
    assert second == attrs.evolve(first, path=str(link))
    assert (ended - between) * 5 < between - started
    assert ended - between < 0.01
    assert read_plan(link, display="/elsewhere").path == "/elsewhere"


def test_a_plain_and_a_stripped_build_do_not_share_a_plan() -> None:
    plain, stripped = (golang.build(SERVICE, "1.27", ldflags=flags) for flags in ("", STRIPPED))
    one, other = read_plan(plain), read_plan(stripped)
    assert (one.path, other.path) == (str(plain), str(stripped))
    reading._cache.clear()
    assert attrs.evolve(read_plan(stripped), path="") == attrs.evolve(other, path="")


@pytest.mark.parametrize("go", golang.RELEASES)
@pytest.mark.parametrize(("ldflags", "stripped"), [("", False), (STRIPPED, True)])
def test_a_plan_says_what_kind_of_file_it_is_of(go: str, ldflags: str, stripped: bool) -> None:
    found = read_plan(golang.build(SERVICE, go, ldflags=ldflags))
    assert (found.machine, found.position_independent, found.stripped) == ("x86_64", False, stripped)
    code = [segment for segment in found.segments if segment.executable]
    assert code and all(
        any(0 <= site.offset - segment.offset < segment.size for segment in code) for site in found.sites
    )
    assert 0 < found.seconds < 60


HALVES = {
    "client": """package main

import "net/http"

func main() {
	http.Get("http://localhost")
}
""",
    "server": """package main

import "net/http"

type handler struct{}

func (handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) }

func main() {
	(&http.Server{Handler: handler{}}).ListenAndServe()
}
""",
}


@pytest.mark.parametrize("go", [min(golang.RELEASES, key=golang.release), "1.27"])
@pytest.mark.parametrize("half", HALVES)
def test_the_half_that_the_linker_left_out_does_not_hinder_the_other(
    tmp_path: Path, go: str, half: str
) -> None:
    (tmp_path / "go.mod").write_text("module demo\n\ngo 1.19\n")
    (tmp_path / "main.go").write_text(HALVES[half])
    protocol = read_plan(golang.build(tmp_path, go, output_name=half)).protocols["http/1.1"]
    here, gone = protocol.client, protocol.server
    if half == "server":
        here, gone = gone, here
    assert here.possible and not here.reason
    assert not gone.possible and gone.reason.startswith("it has no type net/http.")


PROGRAM = """package main

import "net/http"

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X", %s)
	})
	http.Get("http://localhost")
	http.ListenAndServe("", nil)
}
"""


def test_different_builds_of_one_redacted_build_id_do_not_share_a_plan(tmp_path: Path) -> None:
    """Bazel links every Go program with -buildid=redacted; padding often keeps the size the same."""
    paths = []
    for name, value in (("one", '"x"'), ("other", "r.Host + r.URL.Path + r.Method")):
        source = tmp_path / name
        source.mkdir()
        (source / "go.mod").write_text("module demo\n\ngo 1.22\n")
        (source / "main.go").write_text(PROGRAM % value)
        flags = f"{STRIPPED} -buildid=redacted"
        paths.append(golang.build(source, "1.27", ldflags=flags, output_name="redacted"))
    fresh = []
    for path in paths:
        reading._cache.clear()
        fresh.append(read_plan(path))
    # Otherwise nothing is tested:
    assert fresh[0].build_id == fresh[1].build_id == b"redacted".hex()
    assert paths[0].stat().st_size == paths[1].stat().st_size
    assert fresh[0].fields != fresh[1].fields
    reading._cache.clear()
    assert [read_plan(path) for path in paths] == fresh
