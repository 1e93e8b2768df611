"""The real programs that reading is held against: every release in every build form, and Debian's.

CI reads a fraction: the plain form of every release, each other form of the newest, one experiment for
each layout of maps, and Debian's small packages. PYTRACEPROP_FULL reads all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from tools import debian, golang

SERVICE = Path(__file__).resolve().parents[1] / "go" / "chain" / "cmd" / "service"

#: Forms other than "static" in CI, by release: those that tests/bpf/test_chain.py builds too, and one old.
_CI_FORMS = {"1.27": tuple(golang.FORMS), "1.19": ("pie",)}

#: GOEXPERIMENT by release: other map layouts, and such as change the version's text or the runtime.
_EXPERIMENTS = (
    ("1.20", "unified"),
    ("1.21", "loopvar"),
    ("1.22", "rangefunc"),
    ("1.23", "aliastypeparams"),
    ("1.24", "noswissmap"),
    ("1.25", "noswissmap"),
    ("1.25", "jsonv2,greenteagc"),
    ("1.26", "goroutineleakprofile"),
    ("1.27", "mapsplitgroup"),
    ("1.27", "nogreenteagc"),
)
#: Forms of arm64 programs, as far as they need no C compiler for it, and the releases of them in CI.
_ARM64_FORMS = ("static", "no-symbols", "pie")
_CI_ARM64 = {"1.19": ("static",), "1.27": ("static", "no-symbols", "pie")}

_CI_EXPERIMENTS = (("1.24", "noswissmap"), ("1.27", "mapsplitgroup"))


@attrs.frozen
class Program:
    """A program to read: how it is built, or which of Debian's it is. `name` tells it in tables.

    `refused` is a part of the reason for which it must be refused; empty where it must be read.
    """

    name: str
    go: str = ""
    form: str = ""
    experiment: str = ""
    arch: str = "amd64"
    debian: debian.Program | None = None
    refused: str = ""

    def path(self) -> Path:
        """The executable, built or fetched if need be. Raises GoError, ProgramUnavailable."""
        if self.debian:
            return debian.fetch(self.debian)
        return self._build(golang.FORMS[self.form] if self.form else {})

    def twin(self) -> Path | None:
        """The same build with symbols and DWARF; None for Debian's, which keep none."""
        if self.debian:
            return None
        form = golang.FORMS[self.form] if self.form else {}
        unstripped = {key: value for key, value in form.items() if key != "strip" and value != "-s -w"}
        return self._build(unstripped)  # type: ignore[arg-type]

    def _build(self, form: golang.Form) -> Path:
        more: golang.Form = {"experiment": self.experiment} if self.experiment else {}
        return golang.build(SERVICE, self.go, **{**form, **more}, arch=self.arch)  # type: ignore[typeddict-item]


def programs(*, full: bool) -> Iterator[Program]:
    """The fraction for CI, or all."""
    for go in golang.RELEASES:
        for form in golang.FORMS:
            if full or form == "static" or form in _CI_FORMS.get(go, ()):
                yield Program(f"go{go} {form}", go, form)
        for form in _ARM64_FORMS:
            if full or form in _CI_ARM64.get(go, ()):
                yield Program(f"go{go} {form} arm64", go, form, arch="arm64")
    for go, experiment in _EXPERIMENTS:
        if full or (go, experiment) in _CI_EXPERIMENTS:
            yield Program(f"go{go} X:{experiment}", go, experiment=experiment)
    for name, program in debian.PROGRAMS.items():
        if full or program.small:
            old = "a Go release before 1.18" if program.suite == "bullseye" else ""
            yield Program(f"debian {name}", debian=program, refused=old)
