"""From an executable to its plan, once per file."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict

import attrs

from pytraceprop.go import Executable
from pytraceprop.probes import grpc, http1
from pytraceprop.probes.plan import Plan

_CACHE_SIZE = 64

_cache: OrderedDict[tuple[object, ...], Plan] = OrderedDict()
_cache_lock = threading.Lock()


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
        fields, http1_plan, context_types = http1.read(executable)
        grpc_layout, grpc_plan = grpc.read(executable, "" if fields else http1_plan.client.reason)
        plan = Plan(
            path=image.path,
            identity=key,
            build_id=image.note_build_id(),
            go=build.go,
            module=build.main_module,
            protocols={"http/1.1": http1_plan, "grpc": grpc_plan},
            fields=fields,
            layouts={"grpc": grpc_layout},
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
