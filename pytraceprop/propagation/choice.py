"""Which method of propagation a process gets, or why none."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from pytraceprop.lockdown import LockdownStatus

#: What `propagation=` accepts in a list. This release has one method.
METHODS = ("user-memory",)


@attrs.frozen
class Propagation:
    """How the header gets into outgoing requests of one protocol.

    `method` is "user-memory", or None for spans without propagation; `reason` is one sentence.
    """

    method: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.method or 'none'}: {self.reason}"


def choose(wanted: str | Sequence[str], lockdown: LockdownStatus) -> Propagation:
    """The method for a wish: "auto", "off", or an ordered list of METHODS.

    User memory is chosen only where it is known to be possible: unknown means off. Raises ValueError
    for a wish that is none of these.
    """
    if wanted == "off":
        return Propagation(None, "propagation was switched off (propagation='off')")
    methods = METHODS if wanted == "auto" else wanted
    listed = isinstance(methods, Sequence) and not isinstance(methods, str)
    if not listed or not methods or any(method not in METHODS for method in methods):
        raise ValueError(
            f"propagation must be 'auto', 'off' or a list of {', '.join(METHODS)}, not {wanted!r}"
        )
    if lockdown.write_user:
        return Propagation("user-memory", "the kernel lets this process write the header (user memory)")
    return Propagation(None, lockdown.reason)
