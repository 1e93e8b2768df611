"""Everything that pytraceprop raises on purpose.

One small tree. Each error carries its data as attributes, so that a caller reacts to
facts and not to the wording of a message; `str(error)` is one sentence for a person.
"""

from __future__ import annotations


class TracepropError(Exception):
    """Base class of all errors raised by pytraceprop."""


class TracerClosed(TracepropError):
    """The Tracer (or the Attachment) was closed before this use."""

    def __init__(self, what: str = "tracer") -> None:
        super().__init__(f"the {what} is closed")
        self.what = what


class CoreUnavailable(TracepropError):
    """The compiled core, libbpf or the BPF objects are missing from this installation."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the native core cannot be used: {reason}")
        self.reason = reason


class PrivilegeError(TracepropError):
    """This process lacks a right that tracing needs."""

    def __init__(self, action: str, missing: str) -> None:
        super().__init__(f"{action} needs {missing}")
        self.action = action
        self.missing = missing


class KernelError(TracepropError):
    """The kernel refused an operation.

    `errno` is the positive error number, `log` libbpf's and the verifier's full text.
    """

    def __init__(self, action: str, errno: int, message: str, log: str = "") -> None:
        super().__init__(f"{action}: {message}")
        self.action = action
        self.errno = errno
        self.log = log


class FeatureMissing(KernelError):
    """The kernel lacks a feature; `minimum` names the first release that has it."""

    def __init__(self, feature: str, minimum: str, log: str = "") -> None:
        super().__init__(feature, 0, f"this kernel does not have it (Linux {minimum} and later do)", log)
        self.feature = feature
        self.minimum = minimum


class ProcessGone(TracepropError):
    """The process does not exist, or is no longer the one that was asked for."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} does not exist (any more)")
        self.pid = pid


class ExecutableError(TracepropError):
    """An executable cannot be traced. `path` is the file, `reason` one sentence."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class NotGo(ExecutableError):
    """The file is not an executable made by the Go toolchain."""


class MalformedExecutable(ExecutableError):
    """The file is truncated, or contradicts itself."""


class UnsupportedExecutable(ExecutableError):
    """A Go executable of a kind that pytraceprop does not cover (yet)."""
