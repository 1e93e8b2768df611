"""Runs a command inside a real Debian kernel: give it a kernel and a command, get output and exit code.

    from tools import kernelvm

    kernel = kernelvm.fetch("6.12")
    result = kernelvm.run(kernel, ["uname", "-r"], cmdline="lockdown=integrity")
    result.exit_code, result.output

The guest sees this machine's files, so a build made here is what runs there. Whatever the
guest writes is lost with it, but for one directory that may be shared. No KVM is needed.
"""

from __future__ import annotations

from tools.kernelvm.boot import Result
from tools.kernelvm.errors import (
    BootFailed,
    CommandTimeout,
    GuestDied,
    KernelUnavailable,
    KernelVMError,
    MachineError,
    ToolMissing,
)
from tools.kernelvm.kernels import Kernel, fetch
from tools.kernelvm.machine import run

__all__ = [
    "BootFailed",
    "CommandTimeout",
    "GuestDied",
    "Kernel",
    "KernelUnavailable",
    "KernelVMError",
    "MachineError",
    "Result",
    "ToolMissing",
    "fetch",
    "run",
]
