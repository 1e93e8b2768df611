"""gRPC inside Debian's kernels: what tests/bpf/test_grpc.py asks, where headers can be written and where not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.bpf.grpccases import VERSIONS, build
from tests.skips import require
from tools import kernelvm

pytestmark = pytest.mark.vm

ROOT = Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("PYTRACEPROP_FULL"))
GUESTS = [("6.12", ""), ("6.1", ""), ("5.10", ""), ("6.12", "lockdown=integrity")]
NOT_EVERY_VERSION = ["-k", "not every_version or 1.50.1 or 1.69.4 or 1.85.0"]


@pytest.mark.parametrize(("kernel", "cmdline"), GUESTS)
def test_calls_are_traced_as_on_this_kernel(kernel: str, cmdline: str) -> None:
    require("needs qemu")
    for version in VERSIONS:
        build(version)
    for form in ("stripped", "pie"):
        build(form=form)
    chosen = [] if FULL or (kernel, cmdline) == ("6.12", "") else NOT_EVERY_VERSION
    result = kernelvm.run(
        kernelvm.fetch(kernel),
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, "tests/bpf/test_grpc.py"],
        cwd=ROOT,
        cmdline=cmdline,
        cpus=2,
        timeout=900,
    )
    print(result.output)
    assert result.exit_code == 0, result.output
