"""Boots a kernel under qemu, runs one command in it, and brings back what it said.

The processor is emulated (TCG), so this works where virtual machines cannot be nested.
Its root file system is the host's, read-only through virtiofs, under an overlay in memory.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tools.kernelvm import guest, initramfs
from tools.kernelvm.boot import KERNEL_ARGUMENTS, Boot, Machine, Result
from tools.kernelvm.errors import BootFailed
from tools.kernelvm.kernels import REPOSITORY, Kernel, fetch

ATTEMPTS = 3
"""How often a machine is started whose guest ends before the command was started: qemu 7.2
crashes now and then while it boots a kernel. Nothing of the command has run by then, so
nothing that it did wrong is hidden."""


def run(
    kernel: Kernel | str,
    command: Sequence[str],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    cmdline: str = "",
    cpus: int = 2,
    memory_mib: int = 2048,
    timeout: float = 300.0,
    boot_timeout: float = 120.0,
    share: Path | str | None = None,
    modules: Sequence[str] = (),
    stream: BinaryIO | None = None,
) -> Result:
    """Boot `kernel` (or the newest of a series), run `command` as root, return its Result.

    The guest sees this machine's files at their paths; its writes are lost, except those
    below `share`. /run is empty there, and so is /tmp unless `cwd`, `share` or this
    repository lie in it. The network is its own loopback. `env` is set on top of
    guest.ENVIRONMENT. `cmdline` is added to the kernel's, `modules` are loaded at boot.
    `timeout` (seconds) counts from the command's start, `boot_timeout` from qemu's.
    `stream` gets the output as it comes.

    Raises BootFailed, GuestDied, CommandTimeout (all MachineError), KernelUnavailable,
    ToolMissing, and NotADirectoryError when `cwd` or `share` is none.
    """
    if isinstance(kernel, str):
        kernel = fetch(kernel)
    directory = _directory(cwd or Path.cwd())
    shared = _directory(share) if share is not None else None
    visible = [directory, REPOSITORY, *([shared] if shared else [])]
    machine = Machine(
        kernel=kernel,
        initramfs=initramfs.build(kernel, guest.init_script(shared, visible), modules),
        script=guest.command_script(command, directory, env or {}),
        share=shared,
        cmdline=" ".join((*KERNEL_ARGUMENTS, cmdline)),
        cpus=cpus,
        memory_mib=memory_mib,
    )
    failed: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        with tempfile.TemporaryDirectory(prefix="kernelvm-") as scratch:
            boot = Boot(machine, Path(scratch), stream, attempt)
            try:
                result = boot.run(timeout=timeout, boot_timeout=boot_timeout)
            except BootFailed as error:
                failure = error
            else:
                return dataclasses.replace(result, failed_boots=tuple(failed))
        failed.append(f"[attempt {attempt}: {failure.what}]\n{failure.console}")
        if not failure.ended:
            break
    raise BootFailed(failure.what, console="\n".join(failed), attempts=len(failed), ended=failure.ended)


def _directory(path: Path | str) -> Path:
    resolved = Path(path).resolve()
    if not resolved.is_dir():
        raise NotADirectoryError(f"{path} is not a directory")
    return resolved
