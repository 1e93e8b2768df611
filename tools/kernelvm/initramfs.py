"""The initramfs: static busybox, the modules that reach the host's files, one script.

The archive is the kernel's `newc` cpio format (Documentation/driver-api/early-userspace/
buffer-format.rst), written here because it is shorter than calling cpio(1) on a staged tree.
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.kernelvm.errors import KernelUnavailable, ToolMissing
from tools.kernelvm.kernels import Kernel

ROOT_MODULES = ("virtio_pci", "virtiofs", "overlay")
"""What the guest needs for its root file system; old kernels have them as modules, newer ones built in."""

_DIRECTORIES = ("bin", "dev", "host", "modules", "new", "proc", "scratch", "sys")


def build(kernel: Kernel, init: str, modules: Iterable[str] = ()) -> bytes:
    """Return a cpio archive whose /init is the shell script `init`.

    ROOT_MODULES and `modules` lie in /modules, dependencies included, so named that their
    alphabetical order is the order to load them in. Raises KernelUnavailable when the
    kernel has one of them neither as a module nor built in, ToolMissing without busybox.
    """
    archive = _Archive()
    for directory in _DIRECTORIES:
        archive.add_directory(directory)
    archive.add_file("bin/busybox", _find_busybox().read_bytes(), 0o755)
    for position, (name, content) in enumerate(_in_load_order(kernel, (*ROOT_MODULES, *modules))):
        archive.add_file(f"modules/{position:02}-{name}.ko", content, 0o644)
    archive.add_file("init", init.encode(errors="surrogateescape"), 0o755)
    return archive.finish()


class _Archive:
    """A cpio archive in the making."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._entries = 0

    def add_directory(self, name: str) -> None:
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def add_file(self, name: str, content: bytes, permissions: int) -> None:
        self._add(name, stat.S_IFREG | permissions, content)

    def finish(self) -> bytes:
        self._add("TRAILER!!!", 0, b"")
        return bytes(self._content)

    def _add(self, name: str, mode: int, content: bytes) -> None:
        self._entries += 1
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device major and minor, the same of
        # a device node, length of the name with its NUL, checksum (unused in newc)
        fields = (self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        self._content += b"070701" + b"".join(b"%08X" % field for field in fields)
        for part in (encoded, content):
            self._content += part
            self._content += bytes(-len(self._content) % 4)


def _find_busybox() -> Path:
    """Return the path of a busybox that needs no shared library."""
    found = shutil.which("busybox", path="/bin:/usr/bin:/usr/local/bin")
    # A dynamically linked program names its interpreter in its first page; busybox-static has none.
    if found is None or b"/ld-linux" in Path(found).read_bytes()[:4096]:
        raise ToolMissing("a statically linked busybox", "busybox-static")
    return Path(found)


def _in_load_order(kernel: Kernel, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the modules `wanted` and all they depend on, dependencies first."""
    files = {_module_name(path): path for path in kernel.modules.rglob("*.ko*")}
    built_in = {_module_name(Path(line)) for line in _lines(kernel.modules / "modules.builtin")}
    done: set[str] = set()

    def visit(name: str) -> Iterator[tuple[str, bytes]]:
        if name in done or name in built_in:
            return
        done.add(name)
        if name not in files:
            raise KernelUnavailable(kernel.release, f"it has no module {name}, and not built in either")
        content = _decompress(files[name])
        for dependency in _dependencies(content):
            yield from visit(dependency)
        yield name, content

    for name in wanted:
        yield from visit(name.replace("-", "_"))


def _module_name(path: Path) -> str:
    """Return the kernel's own spelling: `crc-t10dif.ko.xz` is crc_t10dif."""
    return path.name.split(".ko")[0].replace("-", "_")


def _dependencies(module: bytes) -> list[str]:
    """Return the modules that this one says it needs.

    Its .modinfo section holds NUL-terminated `key=value` strings. depmod's list does not
    exist for a package that was unpacked rather than installed.
    """
    found = re.search(rb"\0depends=([a-zA-Z0-9_,-]+)\0", module)
    return found[1].decode().replace("-", "_").split(",") if found else []


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _decompress(path: Path) -> bytes:
    """Return a module's bytes, whichever way the distribution compressed it."""
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        zstd = shutil.which("zstd")
        if zstd is None:
            raise ToolMissing("zstd", "zstd")
        return subprocess.run([zstd, "-dcq"], input=content, stdout=subprocess.PIPE, check=True).stdout
    return content
