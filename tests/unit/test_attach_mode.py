"""The way of attaching follows from what the kernel has, not from its release."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytraceprop.attach_mode import ATTACH_MODES, choose_attach_mode
from pytraceprop.errors import FeatureMissing
from pytraceprop.native import ffi

NAMES = (
    "uprobe_multi_filter",
    "uprobe_multi",
    "sleepable_uprobe",
    "bpf_loop",
    "perf_link",
    "attach_cookie",
    "btf",
    "ring_buffer",
)
"""From what came last to what came first."""


def kernel(**answers: bool | None) -> Any:
    """An environment: everything is there but what is named."""
    values = dict.fromkeys(NAMES, True) | answers
    return SimpleNamespace(**{name: SimpleNamespace(value=value) for name, value in values.items()})


def without(*names: str) -> Any:
    return kernel(**dict.fromkeys(names, False))


@pytest.mark.parametrize(
    ("release", "lacks", "mode"),
    [
        ("6.10", 0, "multi"),
        ("6.6", 1, "multi-unfiltered"),
        ("6.0", 2, "perf-link"),
        ("5.17", 3, "perf-ioctl"),
        ("5.15", 4, "perf-ioctl"),
        ("5.10", 6, "perf-ioctl"),
    ],
)
def test_each_release_gets_the_best_it_has(release: str, lacks: int, mode: str) -> None:
    assert choose_attach_mode(without(*NAMES[:lacks])) == mode


@pytest.mark.parametrize("name", NAMES[:6])
def test_what_could_not_be_told_counts_as_missing(name: str) -> None:
    unsure, missing = kernel(**{name: None}), kernel(**{name: False})
    assert choose_attach_mode(unsure) == choose_attach_mode(missing)


@pytest.mark.parametrize(("name", "minimum"), [("ring_buffer", "5.8"), ("btf", "5.4")])
def test_a_kernel_that_lacks_even_this_is_told_the_least_release(name: str, minimum: str) -> None:
    with pytest.raises(FeatureMissing) as caught:
        choose_attach_mode(without(name))
    assert caught.value.minimum.startswith(minimum)
    assert choose_attach_mode(kernel(**{name: None})) == "multi"  # attaching will tell


def test_the_modes_are_those_of_the_core() -> None:
    names = ffi.typeof("enum attach_mode").elements
    assert tuple(names[i].removeprefix("ATTACH_").lower().replace("_", "-") for i in range(len(names))) == (
        ATTACH_MODES
    )
