"""python -m examples.demo: four unmodified Go services, traced, and their trace as a tree."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import pytraceprop
from examples.demo.shop import Shop
from pytraceprop.sinks import format_traces

_ROOT = Path(__file__).resolve().parents[2]
_KERNEL = "6.12"
_ORDERS = 3


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _show_machine(lockdown: pytraceprop.LockdownStatus) -> None:
    _title("What this kernel allows")
    answer = {True: "yes", False: "no", None: "could not tell"}[lockdown.write_user]
    print(f"lockdown mode:       {lockdown.mode}")
    print(f"writing user memory: {answer}. {lockdown.reason}")


def _trace(environment: pytraceprop.Environment) -> bool:
    """Starts, attaches, drives, prints; whether propagation was at work."""
    _title("Building and starting four Go services, which know nothing of tracing")
    print("front -> HTTP/2 over TLS -> middle -> gRPC -> back -> HTTP/1.1 -> depot", flush=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        Shop(Path(directory)) as shop,
        pytraceprop.Tracer(environment=environment) as tracer,
    ):
        for pid, name in shop.names.items():
            print(f"  {name:6}  pid {pid}")
        _title("Attaching to them while they run")
        for pid, name in shop.names.items():
            attachment = tracer.attach(pid)
            sides = [
                f"{protocol_name} {' and '.join(side for side in ('client', 'server') if getattr(protocol, side))}"
                for protocol_name, protocol in attachment.protocols.items()
                if protocol.client or protocol.server
            ]
            print(f"  {name:6}  Go {attachment.go}: {', '.join(sides)}")
        propagation = attachment.propagation["http/1.1"]
        print(f"  propagation: {propagation}")
        _title(f"Placing {_ORDERS} orders, without any traceparent")
        for number in range(1, _ORDERS + 1):
            print(f"  GET /order/{number} -> {shop.order(number)}")
        shop.wait_idle()
        spans = list(tracer.spans(timeout=0.2))
        _title(f"What was traced: {len(spans)} spans in {len({s.trace_id for s in spans})} traces")
        for line in format_traces(spans, shop.names):
            print(f"  {line}")
        dropped = {name: n for name, n in tracer.stats().items() if n and name.startswith("not_injected")}
        if dropped:
            print(f"\n  without header: {dropped}")
    return propagation.method is not None


def _trace_in_vm() -> int:
    """The same demo on a kernel that lets the header be written; its exit status."""
    from tools import kernelvm

    _title("The same in a virtual machine, where propagation can be seen")
    print(
        "This machine's kernel forbids writing into processes, so the services above could not pass a\n"
        f"traceparent on. Debian's kernel {_KERNEL}, without lockdown, runs them under qemu: the same\n"
        "programs, the same library. (Slow, because the processor is emulated.)",
        flush=True,
    )
    try:
        kernel = kernelvm.fetch(_KERNEL)
        result = kernelvm.run(
            kernel,
            [sys.executable, "-m", "examples.demo", "--no-vm"],
            cwd=_ROOT,
            stream=sys.stdout.buffer,
            timeout=180,
        )
    except kernelvm.KernelVMError as error:
        print(f"The virtual machine did not work: {error}", file=sys.stderr)
        return 1
    return result.exit_code


def main() -> int:
    """Runs the demo; 0 when everything was shown."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="Traces four Go services.")
    parser.add_argument("--no-vm", action="store_true", help="stay on this kernel, whatever it allows")
    arguments = parser.parse_args()
    environment = pytraceprop.Environment.detect()
    _show_machine(environment.lockdown)
    try:
        propagated = _trace(environment)
    except pytraceprop.TracepropError as error:
        print(f"Tracing is not possible here: {error}", file=sys.stderr)
        return 1
    if propagated or arguments.no_vm:
        return 0
    if shutil.which("qemu-system-x86_64") is None:
        print("\nInstall qemu-system-x86 to see propagation in a virtual machine.", flush=True)
        return 1
    return _trace_in_vm()


if __name__ == "__main__":
    sys.exit(main())
