"""From an executable to its plan, once per file."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict

import attrs

from pytraceprop.go import Executable
from pytraceprop.probes import grpc, http1, http2
from pytraceprop.probes.plan import Plan, ProtocolPlan, with_sites

_CACHE_SIZE = 64
_SHARED = "what it shares with http/1.1 cannot be read"

_cache: OrderedDict[tuple[object, ...], Plan] = OrderedDict()
_cache_lock = threading.Lock()


def site_name(kind: int) -> str:
    """What a site is called, such as "server_start" or "http2_server_start"."""
    if kind in set(grpc.SiteKind):
        return grpc.site_name(kind)
    return http1.site_name(kind) if kind in set(http1.SiteKind) else http2.site_name(kind)


def read_plan(path: str | os.PathLike[str], display: str | None = None) -> Plan:
    """Reads an executable, once per file: a second process of the same file costs next to nothing.

    A program that lacks what a protocol needs has a plan too, which says so. Raises NotGo,
    UnsupportedExecutable, MalformedExecutable, or OSError when it cannot be opened.
    """
    started = time.perf_counter()
    with Executable(path, display) as executable:
        image = executable.image
        # Never by build id: the linker takes any (Bazel's is "redacted"), and a file may claim another's.
        key = image.identity
        with _cache_lock:
            if key in _cache:
                _cache.move_to_end(key)
                return attrs.evolve(_cache[key], path=image.path, seconds=time.perf_counter() - started)
        build = executable.build
        fields, first, context_types = http1.read(executable)
        missing = "" if fields else _SHARED
        second = http2.read(executable, missing, net_http_client=first.client.possible)
        rpc_layout, rpc = grpc.read(executable, missing)
        plan = Plan(
            path=image.path,
            identity=key,
            build_id=image.note_build_id(),
            go=build.go,
            module=build.main_module,
            protocols={
                "http/1.1": ProtocolPlan(
                    client=with_sites(first.client, second.counted_client),
                    server=with_sites(first.server, second.counted_server),
                ),
                "http/2": second.protocol,
                "grpc": rpc,
            },
            fields=fields | second.fields,
            layouts={"http2": second.layouts, "grpc": rpc_layout},
            context_types=context_types,
            machine=image.machine,
            position_independent=image.position_independent,
            segments=tuple(image.segments),
            stripped=".symtab" not in image.sections,
            seconds=time.perf_counter() - started,
        )
    with _cache_lock:
        _cache[key] = plan
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return plan
