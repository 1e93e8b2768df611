"""Where this installation keeps its compiled BPF programs; setup.py puts them there."""

from __future__ import annotations

from importlib import resources

from pytraceprop.errors import CoreUnavailable

#: The folder of the objects for each machine, as uname names it.
FOLDERS = {"x86_64": "x86_64", "aarch64": "arm64"}
_BASIC = ".basic.bpf.o"


def object_paths(machine: str, *, basic: bool) -> list[str]:
    """The BPF objects for a machine: the full ones, or the basic ones for kernels that refuse those.

    Raises CoreUnavailable where this installation has none.
    """
    name = FOLDERS.get(machine)
    if name is None:
        raise CoreUnavailable(f"there are BPF objects for {' and '.join(FOLDERS)}, not for {machine}")
    folder = resources.files("pytraceprop") / "objects" / name
    entries = folder.iterdir() if folder.is_dir() else ()
    paths = sorted(
        str(entry)
        for entry in entries
        if entry.name.endswith(".bpf.o") and entry.name.endswith(_BASIC) == basic
    )
    if not paths:
        raise CoreUnavailable(f"the BPF objects for {machine} are missing from this installation")
    return paths
