"""What will be done to one executable: sites, offsets, and reasons where something cannot be done."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

import attrs

from pytraceprop.errors import ExecutableError
from pytraceprop.go import Executable

_CACHE_SIZE = 64


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

    `fields` are those of struct target in bpf/records.h; `context_types` maps type descriptors to the
    offset, in bytes, of the context.Context that values of the type wrap.
    """

    path: str
    build_id: str
    go: str
    module: str
    protocols: dict[str, ProtocolPlan]
    fields: dict[str, int]
    context_types: dict[int, int]

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites of all protocols."""
        return tuple(s for p in self.protocols.values() for side in (p.client, p.server) for s in side.sites)


def side(read: Callable[[], list[Site]]) -> Side:
    """Reads one side; what is missing in the executable becomes its reason."""
    try:
        return Side(sites=tuple(read()))
    except ExecutableError as error:
        return Side(reason=error.reason)


_cache: OrderedDict[tuple[object, ...], Plan] = OrderedDict()
_cache_lock = threading.Lock()


def read_plan(path: str | os.PathLike[str], display: str | None = None) -> Plan:
    """Reads an executable, once per file: a second process of the same file costs next to nothing.

    Raises NotGo, UnsupportedExecutable, MalformedExecutable, or OSError when it cannot be opened.
    """
    from pytraceprop.probes import http1  # it needs the classes above

    with Executable(path, display) as executable:
        image = executable.image
        build_id = image.note_build_id()
        # Never by build id: the linker takes any (Bazel's is "redacted"), and a file may claim another's.
        key = image.identity
        with _cache_lock:
            if key in _cache:
                _cache.move_to_end(key)
                return attrs.evolve(_cache[key], path=image.path)
        fields, protocol, context_types = http1.read(executable)
        plan = Plan(
            path=image.path,
            build_id=build_id,
            go=executable.build.go,
            module=executable.build.main_module,
            protocols={"http/1.1": protocol},
            fields=fields,
            context_types=context_types,
        )
    with _cache_lock:
        _cache[key] = plan
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return plan
