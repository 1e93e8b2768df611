"""A process whose executable is for another machine, as emulators and box64 leave them behind."""

from __future__ import annotations

import pytest

import pytraceprop
from pytraceprop import tracer as tracer_module
from pytraceprop.probes import read_plan
from tests.bpf.conftest import SOURCES, Cases
from tests.skips import require
from tools import golang

pytestmark = pytest.mark.bpf


def test_an_executable_for_another_machine_is_refused_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require("needs root")
    foreign = read_plan(golang.build(SOURCES, "1.27", arch="arm64"))
    assert foreign.sites and foreign.machine == "arm64"
    cases = Cases()
    try:
        with pytraceprop.Tracer() as tracer:
            with monkeypatch.context() as patched:
                patched.setattr(tracer_module, "read_plan", lambda *_, **__: foreign)
                with pytest.raises(
                    pytraceprop.UnsupportedExecutable, match="compiled for arm64, and only x86_64"
                ):
                    tracer.attach(pid=cases.pid)
            assert tracer.attachments == ()
            assert tracer.attach(pid=cases.pid).protocols["http/1.1"].server
    finally:
        cases.stop()
