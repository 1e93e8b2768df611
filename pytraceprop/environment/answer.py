"""Answer: yes, no or "could not tell", with the reason and with what would change it."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen
class Answer:
    """One answer about this machine or process.

    `value` is True, False, or None when that could not be told (which counts as no). `reason` is one
    sentence. `remedy` names what would change a no or a "could not tell": the least kernel release, a
    right, a command; empty for yes.
    """

    value: bool | None
    reason: str
    remedy: str = ""

    @property
    def word(self) -> str:
        """The value in a person's words: yes, no, could not tell."""
        return {True: "yes", False: "no", None: "could not tell"}[self.value]

    def as_dict(self) -> dict[str, Any]:
        """The three fields, ready for JSON."""
        return {"value": self.value, "reason": self.reason, "remedy": self.remedy}


def yes(reason: str) -> Answer:
    """It is so."""
    return Answer(True, reason)


def no(reason: str, remedy: str) -> Answer:
    """It is not so; `remedy` would change that."""
    return Answer(False, reason, remedy)


def unsure(reason: str, remedy: str) -> Answer:
    """It could not be told; `remedy` would make it known."""
    return Answer(None, reason, remedy)
