"""Start, drive and stop the mixed chain, built with any of several versions of grpc.

Used like `tests.chain.services`. Also a command that runs the chain once, without any tracing:
python -m tests.mixed.services --go 1.24 --grpc 1.73
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.chain.services import SOURCES as CHAIN_SOURCES
from tests.chain.services import Chain, Programs
from tools import golang

SOURCES = Path(__file__).resolve().parent.parent / "go" / "mixed"

#: The services in the order in which a request passes them.
SERVICES = ("front", "gateway", "unary", "stream", "back")

_GRPC = re.compile(r"^\s*(?:require )?google\.golang\.org/grpc v(\d+\.\d+)", re.MULTILINE)


@functools.cache
def modfiles(module: Path = SOURCES) -> Mapping[str, Path]:
    """Return the files of a module that say which versions it is built with, by version of grpc.

    They are go.mod, for the newest, and the files in `mods`.
    """
    found = {}
    for path in (module / "go.mod", *sorted(module.glob("mods/*.mod"))):
        match = _GRPC.search(path.read_text())
        if match is None:
            raise ValueError(f"{path} does not say which grpc it takes")
        found[match[1]] = path
    return found


def newest_grpc() -> str:
    """Return the version of grpc that go.mod asks for."""
    return next(iter(modfiles()))


def build_programs(go: str = "1.27", grpc: str | None = None, *, ldflags: str = "") -> Programs:
    """Build the service with this Go release and grpc; driver and certificates with the newest.

    Only the services are traced. What is built already is taken from the cache.
    """
    newest = list(golang.RELEASES)[-1]
    modfile = modfiles()[grpc or newest_grpc()]
    return Programs(
        service=golang.build(SOURCES / "cmd" / "service", go, ldflags=ldflags, modfile=modfile),
        drive=golang.build(SOURCES / "cmd" / "drive", newest),
        certs=golang.build(CHAIN_SOURCES / "cmd" / "certs", newest),
    )


class MixedChain(Chain):
    """The five running services."""

    services = SERVICES

    def _options(self, name: str) -> list[str]:
        following = self.address_of_next(name)
        options = ["-next", following] if following else []
        if name in ("front", "gateway"):
            options += self.trusting
        if name in ("gateway", "unary"):
            options += self.certified
        return options


def main() -> int:
    """Run the chain once, untraced, and let the judge say whether nothing was lost or added."""
    from tests.mixed.judge import judge

    parser = argparse.ArgumentParser(description="run the mixed chain once, without tracing")
    parser.add_argument("--go", default="1.27", help="Go release of the services")
    parser.add_argument("--grpc", choices=list(modfiles()), default=newest_grpc())
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=16)
    options = parser.parse_args()

    programs = build_programs(options.go, options.grpc)
    with tempfile.TemporaryDirectory() as directory:
        with MixedChain(programs, Path(directory)) as chain:
            driven = chain.drive(options.requests, concurrency=options.concurrency)
        errors = chain.errors()
        verdict = judge(driven.records, chain.witness(), None)
    print(json.dumps(driven.summary))
    print(verdict)
    if errors:
        print(f"the services complained:\n{errors}")
    return 0 if verdict.ok and not errors else 1


if __name__ == "__main__":
    sys.exit(main())
