"""What can go wrong between asking for a kernel and a command's exit code."""

from __future__ import annotations

CONSOLE_LINES_SHOWN = 25


class KernelVMError(Exception):
    """Base class of everything this package raises on purpose."""


class ToolMissing(KernelVMError):
    """A program that the virtual machine needs is not on this machine.

    `tool` is the program, `package` the Debian package that has it.
    """

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(f"{tool} is missing: run tools/install-packages, or install {package}")
        self.tool = tool
        self.package = package


class KernelUnavailable(KernelVMError):
    """A kernel package cannot be found, fetched or used.

    `series` is what was asked for, `reason` says what happened and what to do about it.
    """

    def __init__(self, series: str, reason: str) -> None:
        super().__init__(f"kernel {series}: {reason}")
        self.series = series
        self.reason = reason


class MachineError(KernelVMError):
    """The virtual machine gave no exit code.

    `what` says it in one sentence, `console` is the guest's kernel log followed by what qemu and virtiofsd said, `output`
    what the command had written by then, `attempts` how often the machine was started.
    """

    def __init__(self, what: str, *, console: str, output: bytes = b"", attempts: int = 1) -> None:
        tail = "\n".join(console.strip().splitlines()[-CONSOLE_LINES_SHOWN:])
        super().__init__(
            f"{what}; its console ends with:\n{tail}" if tail else f"{what}; its console is empty"
        )
        self.what = what
        self.console = console
        self.output = output
        self.attempts = attempts


class BootFailed(MachineError):
    """The machine did not get as far as starting the command.

    `ended` is true when the guest came to an end by itself: a crash of qemu or a panic.
    """

    def __init__(self, what: str, *, console: str, attempts: int = 1, ended: bool) -> None:
        super().__init__(what, console=console, attempts=attempts)
        self.ended = ended


class GuestDied(MachineError):
    """The guest ended after the command was started and before it finished. Never tried again."""


class CommandTimeout(MachineError):
    """The command ran for longer than it was given; the machine was ended with it.

    `timeout` is that limit in seconds, counted from the command's start.
    """

    def __init__(self, timeout: float, *, console: str, output: bytes, attempts: int) -> None:
        super().__init__(
            f"the command did not finish within {timeout:g} s",
            console=console,
            output=output,
            attempts=attempts,
        )
        self.timeout = timeout
