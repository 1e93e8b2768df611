"""Directories of this machine, served to the guest by virtiofsd.

Two programs bear that name: the one in C that came with qemu up to 7.2 (Debian 12), and
its successor in Rust (Debian 13). Their options differ; what they do for us does not.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.kernelvm.errors import BootFailed, ToolMissing
from tools.kernelvm.processes import read_log, running

LEGACY_PROGRAM = Path("/usr/lib/qemu/virtiofsd")
PROGRAMS = (Path("/usr/libexec/virtiofsd"), Path("/usr/lib/virtiofsd"), LEGACY_PROGRAM)

START_TIMEOUT = 20.0
"""Seconds that virtiofsd gets to offer its socket; it needs some milliseconds."""

_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Share:
    """One directory under one virtiofs tag.

    `immutable` promises that nobody changes it while the guest runs, so that the guest may
    keep all it has ever looked up.
    """

    tag: str
    directory: Path
    immutable: bool = False

    def qemu_options(self, socket: Path) -> list[str]:
        """Return the qemu options of the device that speaks to the daemon at `socket`."""
        return [
            "-chardev",
            f"socket,id={self.tag},path={socket}",
            "-device",
            f"vhost-user-fs-pci,chardev={self.tag},tag={self.tag},queue-size=512",
        ]


@contextlib.contextmanager
def serving(share: Share, socket: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Serve `share` at the unix socket `socket` for as long as the context lasts; give the daemon.

    Raises ToolMissing when virtiofsd is not installed, BootFailed when it does not start.
    """
    with running(_command(share, socket), log) as daemon:
        deadline = time.monotonic() + START_TIMEOUT
        while not socket.exists():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise BootFailed(
                    f"virtiofsd does not serve {share.directory}", console=read_log(log), ended=False
                )
            time.sleep(_POLL_SECONDS)
        yield daemon


def _command(share: Share, socket: Path) -> list[str]:
    program = next((path for path in PROGRAMS if os.access(path, os.X_OK)), None)
    if program is None:
        raise ToolMissing("virtiofsd", "qemu-system-common (Debian 12) or virtiofsd (later)")
    cache = "always" if share.immutable else "auto"
    # The chroot sandbox works inside containers too, where namespaces cannot be made.
    # Mounts below the directory are not announced: overlayfs does not follow announced ones.
    if program == LEGACY_PROGRAM:
        options = ["-o", f"source={share.directory},cache={cache},sandbox=chroot", "--thread-pool-size=0"]
    else:
        options = ["--shared-dir", str(share.directory), "--cache", cache, "--sandbox", "chroot"]
    return [str(program), f"--socket-path={socket}", *options]
