"""python -m tools.kernelvm --kernel 6.12 -- command: runs a command inside a Debian kernel."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.kernelvm.errors import CommandTimeout, KernelVMError
from tools.kernelvm.kernels import fetch
from tools.kernelvm.machine import run

EXIT_NO_RESULT = 125
"""Exit code when there is no exit code of the command, as with docker-run(1) and chroot(1)."""

EXIT_TIMEOUT = 124
"""Exit code when the command took too long, as with timeout(1)."""


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.kernelvm", description="Runs a command inside a Debian kernel, as root."
    )
    parser.add_argument(
        "--kernel", default="6.12", metavar="SERIES", help="such as 6.1 (default: %(default)s)"
    )
    parser.add_argument("--cmdline", default="", help="more kernel arguments, such as lockdown=integrity")
    parser.add_argument("--cpus", type=int, default=2, help="processors (default: %(default)s)")
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB", help="default: %(default)s")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="SECONDS", help="default: %(default)s"
    )
    parser.add_argument("--share", type=Path, metavar="DIR", help="a directory that the guest may write to")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    parser.add_argument(
        "--module", action="append", default=[], metavar="NAME", help="load this kernel module"
    )
    parser.add_argument("--console", action="store_true", help="show the guest's kernel log too")
    parser.add_argument("command", nargs="+", help="the command and its arguments, after --")
    arguments = parser.parse_args()
    environment = dict(assignment.partition("=")[::2] for assignment in arguments.env)
    try:
        kernel = fetch(arguments.kernel)
        result = run(
            kernel,
            arguments.command,
            env=environment,
            cmdline=arguments.cmdline,
            cpus=arguments.cpus,
            memory_mib=arguments.memory,
            timeout=arguments.timeout,
            share=arguments.share,
            modules=arguments.module,
            stream=sys.stdout.buffer,
        )
    except (KernelVMError, NotADirectoryError) as error:
        print(f"kernelvm: {error}", file=sys.stderr)
        return EXIT_TIMEOUT if isinstance(error, CommandTimeout) else EXIT_NO_RESULT
    for failed_boot in result.failed_boots:
        print(f"kernelvm: {failed_boot}", file=sys.stderr)
    if arguments.console:
        print(result.console, file=sys.stderr)
    tries = f", {result.attempts} attempts" if result.attempts > 1 else ""
    print(
        f"kernelvm: Linux {kernel.release}, booted in {result.boot_seconds:.1f} s,"
        f" {result.seconds:.1f} s in all{tries}, exit code {result.exit_code}",
        file=sys.stderr,
    )
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
