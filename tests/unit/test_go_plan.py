"""What one executable may claim of what all traced processes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytraceprop.errors import MalformedExecutable
from pytraceprop.probes import Side, Site, http1, read_plan, reading
from pytraceprop.probes.plan import side
from tools import golang

SERVICE = Path(__file__).resolve().parents[1] / "go" / "chain" / "cmd" / "service"


@pytest.mark.parametrize("count", [1, 256])
def test_a_side_with_sites_is_possible(count: int) -> None:
    sites = [Site("http1_client", 1, i) for i in range(count)]
    assert side(lambda: sites) == Side(sites=tuple(sites))


def test_a_side_with_absurdly_many_sites_is_off() -> None:
    found = side(lambda: [Site("http1_client", 1, i) for i in range(257)])
    assert not found.possible
    assert found.reason == "it has 257 sites"


def test_an_executable_with_absurdly_many_context_types_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = golang.build(SERVICE, "1.27")
    monkeypatch.setattr(reading, "_cache", type(reading._cache)())
    found = len(read_plan(program).context_types)
    reading._cache.clear()
    monkeypatch.setattr(http1, "_MOST_CONTEXT_TYPES", found - 1)
    with pytest.raises(MalformedExecutable, match="context"):
        read_plan(program)
    monkeypatch.setattr(http1, "_MOST_CONTEXT_TYPES", found)
    assert len(read_plan(program).context_types) == found
