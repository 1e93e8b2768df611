"""The choice of a method: what was wished for, what the kernel allows, and the reason."""

from __future__ import annotations

import pytest

from pytraceprop.lockdown import LockdownMode, LockdownStatus
from pytraceprop.propagation import choose

ALLOWED = LockdownStatus(LockdownMode.NONE, True, "allowed")
LOCKED = LockdownStatus(LockdownMode.INTEGRITY, False, "locked down")
UNSURE = LockdownStatus(LockdownMode.UNKNOWN, None, "could not tell")


@pytest.mark.parametrize("wish", ["auto", ["user-memory"], ("user-memory",)])
def test_user_memory_is_taken_where_it_is_allowed(wish: str | list[str]) -> None:
    assert choose(wish, ALLOWED).method == "user-memory"


@pytest.mark.parametrize("status", [LOCKED, UNSURE])
def test_where_it_is_not_known_to_be_allowed_there_is_none_and_the_reason(status: LockdownStatus) -> None:
    chosen = choose("auto", status)
    assert (chosen.method, chosen.reason) == (None, status.reason)
    assert str(chosen) == f"none: {status.reason}"


def test_off_is_off_wherever_it_would_be_allowed() -> None:
    chosen = choose("off", ALLOWED)
    assert chosen.method is None
    assert "switched off" in chosen.reason


@pytest.mark.parametrize(
    "wish", ["", "user-memory", [], ["socket"], ["user-memory", "nonsense"], "any", 5, None]
)
def test_what_is_no_wish_is_an_error_that_names_them(wish: str | list[str]) -> None:
    with pytest.raises(ValueError, match="'auto', 'off' or a list of user-memory"):
        choose(wish, ALLOWED)


@pytest.mark.parametrize("status", [LOCKED, UNSURE])
def test_asking_for_user_memory_does_not_make_it_possible(status: LockdownStatus) -> None:
    assert choose(["user-memory"], status).method is None
    assert choose(["user-memory"], status).reason == status.reason


@pytest.mark.parametrize("status", [ALLOWED, LOCKED, UNSURE])
def test_off_gives_its_own_reason_on_every_kernel(status: LockdownStatus) -> None:
    assert choose("off", status) == choose("off", ALLOWED)


def test_a_choice_can_be_printed() -> None:
    chosen = choose("auto", ALLOWED)
    assert str(chosen) == f"user-memory: {chosen.reason}"


@pytest.mark.parametrize("wish", [["off"], ["auto"], "AUTO", " off", None, b"auto", [None]])
def test_a_near_miss_is_no_wish(wish: object) -> None:
    with pytest.raises(ValueError, match="propagation must be"):
        choose(wish, ALLOWED)  # type: ignore[arg-type]
