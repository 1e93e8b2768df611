"""Features: what each errno of a kernel means, what is remembered; then this very kernel."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import attrs
import pytest

from pytraceprop import libbpf
from pytraceprop.environment import Answer, features, uprobe_filter
from pytraceprop.environment.rights import Rights
from tests.skips import require

ROOT = Rights((1 << 41) - 1, True, True, False)
NOBODY = Rights(0, True, True, False)
ALL = [
    features.RING_BUFFER,
    features.BPF_LOOP,
    features.ATTACH_COOKIE,
    features.PERF_LINK,
    features.SLEEPABLE_UPROBE,
    features.UPROBE_MULTI,
    features.CGROUP_CHARGE,
]
UNRELATED = [errno.EPERM, errno.ENOMEM, errno.ENOSYS, errno.E2BIG, errno.EAGAIN, 524]


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(features, "_settled", {})


@pytest.fixture
def kernel(monkeypatch):
    """Lets a test say what the kernel answers to a feature, and to the simplest program."""

    def answers(feature: features.Feature, answer: int | None, simplest: int | None = 0) -> features.Feature:
        monkeypatch.setattr(features, "_loads", lambda code, **options: simplest)
        return attrs.evolve(feature, ask=lambda: answer)

    return answers


def open_descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


def name_of(feature: features.Feature) -> str:
    return feature.name


# What an errno means


@pytest.mark.parametrize("feature", ALL, ids=name_of)
def test_what_only_a_kernel_with_the_feature_says_is_yes(kernel, feature):
    for number in feature.present:
        answer = features._try(kernel(feature, number), ROOT)
        assert (answer.value, answer.remedy) == (True, "")
        assert feature.what in answer.reason


@pytest.mark.parametrize("feature", ALL, ids=name_of)
def test_what_only_a_kernel_without_it_says_is_no_with_the_release(kernel, feature):
    for number in feature.absent:
        answer = features._try(kernel(feature, number), ROOT)
        assert (answer.value, answer.remedy) == (False, feature.remedy)
        assert answer.remedy.startswith("Linux ")


@pytest.mark.parametrize("number", UNRELATED)
@pytest.mark.parametrize("feature", ALL, ids=name_of)
def test_any_other_errno_says_nothing(kernel, feature, number):
    answer = features._try(kernel(feature, number), NOBODY)
    assert answer.value is None
    assert errno.errorcode.get(number, str(number)) in answer.reason
    assert answer.remedy


@pytest.mark.parametrize("feature", [f for f in ALL if f.control is not None], ids=name_of)
@pytest.mark.parametrize("simplest", [errno.EINVAL, errno.EPERM, None])
def test_no_is_not_believed_where_the_simplest_program_is_refused_too(kernel, feature, simplest):
    answer = features._try(kernel(feature, errno.EINVAL, simplest), ROOT)
    assert answer.value is None
    assert answer.remedy


@pytest.mark.parametrize("feature", ALL, ids=name_of)
def test_without_libbpf_nothing_is_known(kernel, feature):
    answer = features._try(kernel(feature, None), ROOT)
    assert answer.value is None
    assert "libbpf" in answer.remedy


@pytest.mark.parametrize("feature", ALL, ids=name_of)
def test_present_and_absent_are_told_apart(feature):
    assert not feature.present & feature.absent
    assert not {errno.EPERM, errno.ENOMEM} & (feature.present | feature.absent)


# What is remembered


@pytest.mark.parametrize("value", [True, False])
def test_what_is_known_of_the_kernel_is_asked_once(value):
    asked = []
    for _ in range(3):
        features.settle("it", lambda: asked.append(1) or Answer(value, "So.", ""))
    assert len(asked) == 1


def test_could_not_tell_is_asked_again_each_time():
    asked = []
    answers = iter(
        [Answer(None, "Refused.", "root"), Answer(None, "Refused.", "root"), Answer(True, "Yes.", "")]
    )

    def ask() -> Answer:
        asked.append(1)
        return next(answers)

    assert [features.settle("it", ask).value for _ in range(4)] == [None, None, True, True]
    assert len(asked) == 3


# The uprobe PMU


@pytest.fixture
def pmu(tmp_path):
    (tmp_path / "devices" / "uprobe").mkdir(parents=True)
    path = tmp_path / "devices" / "uprobe" / "type"
    path.write_text("9\n")
    return path


@pytest.mark.parametrize(
    ("number", "mine", "value", "remedy"),
    [
        (errno.ENOTDIR, ROOT, True, ""),
        (errno.EACCES, NOBODY, None, "CAP_BPF"),
        (errno.EACCES, Rights(1 << 38 | 1 << 39, True, True, False), False, "CAP_SYS_ADMIN"),
        (errno.EACCES, Rights(1 << 21, True, False, False), None, "outside of user namespaces"),
        (errno.EPERM, Rights(1 << 21, True, True, True), None, "seccomp"),
        (errno.ENOENT, ROOT, None, "ENOENT"),
    ],
)
def test_opening_an_event_that_cannot_be_tells_whether_one_may_be(
    pmu, monkeypatch, number, mine, value, remedy
):
    asked = []
    monkeypatch.setattr(libbpf, "open_uprobe_event", lambda *arguments: asked.append(arguments) or -number)
    monkeypatch.setattr(libbpf, "open_dummy_event", lambda: os.open("/dev/null", 0))
    answer = features.perf_uprobe(mine, pmu)
    assert answer.value is value
    assert remedy in answer.remedy
    assert asked == [(9, os.fsencode(pmu) + b"/", 0)]


@pytest.mark.parametrize(
    ("others", "paranoid", "value", "reason"),
    [
        (True, "2\n", False, "demands CAP_SYS_ADMIN on this kernel"),
        (True, "3\n", False, "demands CAP_SYS_ADMIN on this kernel"),
        (False, "3\n", False, "perf_event_paranoid is 3"),
        (False, "4\n", False, "perf_event_paranoid is 4"),
        (False, "2\n", None, "any perf event"),
        (False, "-1\n", None, "any perf event"),
        (False, "", None, "any perf event"),
    ],
)
def test_three_who_refuse_a_uprobe_event_alike_are_told_apart(
    pmu, tmp_path, monkeypatch, others, paranoid, value, reason
):
    """A newer kernel, Debian's kernel.perf_event_paranoid=3, and a security module."""
    monkeypatch.setattr(libbpf, "open_uprobe_event", lambda *arguments: -errno.EACCES)
    opened = (lambda: os.open("/dev/null", 0)) if others else (lambda: -errno.EACCES)
    monkeypatch.setattr(libbpf, "open_dummy_event", opened)
    (tmp_path / "paranoid").write_text(paranoid)
    before = open_descriptors()
    answer = features.perf_uprobe(Rights(1 << 38 | 1 << 39, True, True, False), pmu, tmp_path / "paranoid")
    assert answer.value is value
    assert reason in answer.reason
    assert "CAP_SYS_ADMIN" in answer.remedy
    assert open_descriptors() == before


def test_without_the_pmu_the_kernel_does_not_have_it_but_a_hidden_sysfs_says_nothing(tmp_path):
    (tmp_path / "devices").mkdir()
    answer = features.perf_uprobe(ROOT, tmp_path / "devices" / "uprobe" / "type")
    assert answer.value is False
    assert "Linux 4.17" in answer.remedy
    answer = features.perf_uprobe(ROOT, tmp_path / "hidden" / "uprobe" / "type")
    assert answer.value is None
    assert "sysfs" in answer.remedy


@pytest.mark.parametrize("content", [b"", b"nine", b"\xff"])
def test_a_pmu_without_a_number_says_nothing(pmu, content):
    pmu.write_bytes(content)
    assert features.perf_uprobe(ROOT, pmu).value is None


# This kernel


@pytest.mark.parametrize("feature", ALL, ids=name_of)
def test_asking_this_kernel_settles_it_for_root_and_leaves_nothing_open(feature):
    require("needs root")
    before = open_descriptors()
    answer = features.detect(feature, Rights.detect())
    assert answer.value is not None, answer.reason
    assert open_descriptors() == before


def test_a_helper_that_no_kernel_has_is_told_from_one_that_all_have():
    """Else the probes by helper would prove nothing on this kernel."""
    require("needs root")
    assert features._loads(libbpf.call(0x7FFF) + libbpf.EXIT) == errno.EINVAL
    assert features._loads(libbpf.call(5) + libbpf.EXIT) == 0  # bpf_ktime_get_ns
    kind = libbpf.PROG_TYPE_SOCKET_FILTER
    assert features._loads(libbpf.call(0x7FFF) + libbpf.EXIT, kind=kind) == errno.EINVAL
    assert features._loads(libbpf.call(5) + libbpf.EXIT, kind=kind) == 0
    assert features._loads(libbpf.call(1) + libbpf.EXIT) == errno.EACCES  # without its arguments


def test_the_helpers_asked_for_have_the_numbers_of_the_kernels_own_header():
    names = re.findall(r"\bFN\((\w+)[,)]", Path("/usr/include/linux/bpf.h").read_text())
    wanted = [features._GET_COARSE_NS, features._GET_ATTACH_COOKIE, features._LOOP]
    assert [names[number] for number in wanted] == ["ktime_get_coarse_ns", "get_attach_cookie", "loop"]


def test_a_kind_of_map_or_link_that_no_kernel_has_is_refused_with_einval():
    require("needs root")
    assert libbpf.create_map(0x7FFF, 0, 0, 4096) == -errno.EINVAL
    with libbpf.closing(libbpf.load_program(libbpf.RETURN_ZERO)) as program:
        assert program is not None
        # The program was not loaded for this attach type.
        assert libbpf.link_uprobe(program, b"/", 0, 0) == -errno.EINVAL


def test_where_the_answer_is_yes_an_event_on_a_real_function_opens():
    """What perf_uprobe concludes from ENOTDIR, proven."""
    require("needs root")
    answer = features.perf_uprobe(Rights.detect())
    assert answer.value is True, answer.reason
    target = uprobe_filter.find_target()
    assert target is not None
    pmu = int(Path(features.UPROBE_PMU_PATH).read_text())
    with libbpf.closing(libbpf.open_uprobe_event(pmu, target.path, target.offset)) as event:
        assert event is not None
        assert event >= 0, errno.errorcode.get(-event)


def test_an_event_that_counts_nothing_may_be_opened_here():
    require("needs root")
    with libbpf.closing(libbpf.open_dummy_event()) as event:
        assert event is not None
        assert event >= 0, errno.errorcode.get(-event)


def test_an_unknown_machine_has_no_system_calls_that_we_know(monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "1", "v", "s390x")))
    assert libbpf.create_map(libbpf.MAP_TYPE_ARRAY, 4, 8, 1) == -errno.ENOSYS
    assert features.detect(features.RING_BUFFER, NOBODY).value is None
