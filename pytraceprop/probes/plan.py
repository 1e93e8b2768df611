"""What will be done to one executable: sites, offsets, and reasons where something cannot be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from pytraceprop.errors import ExecutableError
from pytraceprop.go.image import Segment

_MOST_SITES = 256  # of a side; programs have some ten


@attrs.frozen
class Site:
    """One probe: the BPF program, the site's number (enum site in bpf/records.h), the file offset."""

    program: str
    kind: int
    offset: int


@attrs.frozen
class Side:
    """Client or server of a protocol: its sites, or the reason why it cannot be traced."""

    sites: tuple[Site, ...] = ()
    reason: str = ""

    @property
    def possible(self) -> bool:
        """Whether this side can be traced."""
        return bool(self.sites)


@attrs.frozen
class ProtocolPlan:
    """Both sides of one protocol."""

    client: Side
    server: Side


@attrs.frozen
class Plan:
    """An executable, understood. Holds no open file, so it can be cached and shared.

    `fields` are the numbers in struct target in bpf/records.h, `layouts` the structs in it, which hold
    what a protocol needs of the program's types and functions; `context_types` maps type descriptors to the
    place of the context.Context that values of the type wrap (Types.wrappers). Their keys, and the fields
    whose name begins with `type_`, are virtual addresses of the file: where `position_independent` is
    true the process has them at a load bias, which `segments` tell together with its mappings.

    `machine` is "x86_64" or "arm64". `stripped` says that there is no symbol table. `seconds` is what
    reading took; of a plan that was read before, what finding it again took.
    """

    path: str
    identity: tuple[int, ...]  # of the file: Image.identity
    build_id: str
    go: str
    module: str
    protocols: dict[str, ProtocolPlan]
    fields: dict[str, int]
    layouts: dict[str, Any]
    context_types: dict[int, int]
    machine: str
    position_independent: bool
    segments: tuple[Segment, ...]
    stripped: bool
    seconds: float = attrs.field(eq=False)

    def fields_at(self, bias: int) -> dict[str, Any]:
        """The fields as they are in a process whose executable was moved by so many bytes."""
        return {**_moved(self.fields, bias), **_moved(self.layouts, bias)}

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites of all protocols."""
        return tuple(s for p in self.protocols.values() for side in (p.client, p.server) for s in side.sites)


def with_sites(side: Side, sites: tuple[Site, ...]) -> Side:
    """The side with more sites, unless it cannot be traced."""
    return attrs.evolve(side, sites=side.sites + sites) if side.possible else side


def _moved(fields: dict[str, Any], bias: int) -> dict[str, Any]:
    """The addresses among the fields, and those of structs in them, moved."""
    moved: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            moved[name] = _moved(value, bias)
        elif isinstance(value, tuple):
            moved[name] = tuple(_moved(one, bias) for one in value)
        else:
            moved[name] = value + bias if value and name.startswith("type_") else value
    return moved


def side(read: Callable[[], list[Site]]) -> Side:
    """Reads one side; what is missing in the executable becomes its reason."""
    try:
        sites = tuple(read())
        return Side(sites) if len(sites) <= _MOST_SITES else Side(reason=f"it has {len(sites)} sites")
    except ExecutableError as error:
        return Side(reason=error.reason)
