"""One attempt at a virtual machine: qemu and its virtiofsd, from start to end."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict

from tools.kernelvm import virtiofs
from tools.kernelvm.errors import BootFailed, CommandTimeout, GuestDied, ToolMissing
from tools.kernelvm.kernels import Kernel
from tools.kernelvm.processes import PROGRAM_POSITION, read_log, running

CPU_MODEL = "max,-cx16"
"""All that qemu can emulate but cmpxchg16b: with it, qemu 7.2 crashed in 3 of 20 boots of 6.12."""

KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=5",  # the console shows warnings and worse
    "panic=-1 oops=panic",  # a kernel that fails ends the machine at once
    "mitigations=off random.trust_cpu=on",  # quicker; entropy from the emulated processor
    "tsc=reliable no_timer_check",  # a busy host makes clocks look broken that are not
)

POWER_OFF_SECONDS = 10.0
"""How long the guest may take to switch itself off after the command; then qemu is ended."""

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Result:
    """What a command in a guest did.

    `exit_code` is the command's, 128 + n if signal n ended it. `output_bytes` is what it
    wrote to standard output and standard error, unchanged. `console` is the guest's kernel
    log, warnings and worse. `boot_seconds` is the time from qemu's start to the command's,
    `seconds` that of the whole machine. `failed_boots` says what became of the machines that
    ended before the command was started, console included; mostly there are none.
    """

    exit_code: int
    output_bytes: bytes
    console: str
    boot_seconds: float
    seconds: float
    failed_boots: tuple[str, ...] = ()

    @property
    def attempts(self) -> int:
        """How often the machine was started until the command was."""
        return len(self.failed_boots) + 1

    @property
    def output(self) -> str:
        """The output as text; bytes that are not UTF-8 appear as escapes."""
        return self.output_bytes.decode(errors="backslashreplace")


@dataclass(frozen=True)
class Machine:
    """What is to be booted. `cmdline` is the kernel's whole command line, `script` the guest's work."""

    kernel: Kernel
    initramfs: bytes
    script: str
    share: Path | None
    cmdline: str
    cpus: int
    memory_mib: int

    def qemu_command(self, initramfs: Path, console: Path) -> list[str]:
        """Return the command that boots it, but for its virtiofs devices. Raises ToolMissing."""
        qemu = shutil.which("qemu-system-x86_64")
        if qemu is None:
            raise ToolMissing("qemu-system-x86_64", "qemu-system-x86")
        options = {
            "-machine": "q35,accel=tcg",
            "-cpu": CPU_MODEL,
            "-smp": str(self.cpus),
            "-m": str(self.memory_mib),
            # virtiofsd reads and writes the guest's memory
            "-object": f"memory-backend-memfd,id=memory,size={self.memory_mib}M,share=on",
            "-numa": "node,memdev=memory",
            "-display": "none",
            "-kernel": str(self.kernel.image),
            "-initrd": str(initramfs),
            "-append": self.cmdline,
            "-serial": f"file:{console}",
        }
        flags = ["-nodefaults", "-no-user-config", "-no-reboot"]
        return [qemu, *flags, *(word for option in options.items() for word in option)]


class _Progress(TypedDict):
    """What an error tells of a command that did not finish."""

    console: str
    output: bytes
    attempts: int


class Boot:
    """One boot of `machine`, with its files in `scratch`."""

    def __init__(self, machine: Machine, scratch: Path, stream: BinaryIO | None, attempt: int) -> None:
        self._machine = machine
        self._scratch = scratch
        self._stream = stream
        self._attempt = attempt
        self._exchange = scratch / "exchange"
        self._console = scratch / "console"
        self._log = scratch / "log"
        self._output = bytearray()
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, *, timeout: float, boot_timeout: float) -> Result:
        """Boot, wait for the command's end, return what came out. Both limits are in seconds.

        Raises BootFailed, GuestDied, CommandTimeout, ToolMissing. Nothing is left running.
        """
        self._exchange.mkdir()
        # Never to be made while the guest makes it: the virtiofsd in C aborts in such a race.
        (self._exchange / "output").touch()
        (self._exchange / "command").write_text(self._machine.script, errors="surrogateescape")
        (self._scratch / "initramfs").write_bytes(self._machine.initramfs)
        with contextlib.ExitStack() as stack:
            command = self._machine.qemu_command(self._scratch / "initramfs", self._console)
            for share in self._shares():
                socket = self._scratch / f"{share.tag}.socket"
                self._processes.append(stack.enter_context(virtiofs.serving(share, socket, self._log)))
                command += share.qemu_options(socket)
            begin = time.monotonic()
            qemu = stack.enter_context(running(command, self._log))
            self._processes.append(qemu)
            started = self._await_start(boot_timeout)
            exit_code = self._await_exit(started + timeout, timeout)
            with contextlib.suppress(subprocess.TimeoutExpired):
                qemu.wait(POWER_OFF_SECONDS)
            return Result(
                exit_code=exit_code,
                output_bytes=bytes(self._output),
                console=read_log(self._console),
                boot_seconds=started - begin,
                seconds=time.monotonic() - begin,
            )

    def _shares(self) -> list[virtiofs.Share]:
        shares = [
            virtiofs.Share("host", Path("/"), immutable=True),
            virtiofs.Share("exchange", self._exchange),
        ]
        if self._machine.share is not None:
            shares.append(virtiofs.Share("share", self._machine.share))
        return shares

    def _await_start(self, boot_timeout: float) -> float:
        """Return when (monotonic time) the guest was about to start the command."""
        deadline = time.monotonic() + boot_timeout
        started = self._exchange / "started"
        while not started.exists():
            ending = self._ending()
            if ending and not started.exists():
                raise BootFailed(f"the guest did not boot: {ending}", console=self._said(), ended=True)
            if time.monotonic() > deadline:
                raise BootFailed(
                    f"the guest was not ready after {boot_timeout:g} s", console=self._said(), ended=False
                )
            time.sleep(_POLL_SECONDS)
        return time.monotonic()

    def _await_exit(self, deadline: float, timeout: float) -> int:
        """Pass the output on until the command ends; return its exit status."""
        exit_status = self._exchange / "exit"
        with (self._exchange / "output").open("rb") as output:
            while True:
                # In this order: what is there when the end is seen, is all there is.
                ending = self._ending()
                finished = exit_status.exists()
                self._take(output.read())
                if finished:
                    return int(exit_status.read_text())
                if ending:
                    raise GuestDied(f"the guest ended while the command ran: {ending}", **self._progress())
                if time.monotonic() > deadline:
                    raise CommandTimeout(timeout, **self._progress())
                time.sleep(_POLL_SECONDS)

    def _take(self, output: bytes) -> None:
        self._output += output
        if output and self._stream is not None:
            self._stream.write(output)
            self._stream.flush()

    def _ending(self) -> str:
        """Return which of the machine's programs has ended and how, "" while all run."""
        for process in reversed(self._processes):  # qemu first: when it ends, virtiofsd follows
            code = process.poll()
            if code is not None:
                assert isinstance(process.args, list)
                how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
                return f"{Path(process.args[PROGRAM_POSITION]).name} {how}"
        return ""

    def _progress(self) -> _Progress:
        return {"console": self._said(), "output": bytes(self._output), "attempts": self._attempt}

    def _said(self) -> str:
        """Return the console, and after it what qemu and virtiofsd had to say."""
        return read_log(self._console) + read_log(self._log)
