"""Environment: what this kernel and the rights of this thread allow."""

from __future__ import annotations

import os
from typing import Any

import attrs

from pytraceprop.environment import features, mounts, rights, uprobe_filter
from pytraceprop.environment.answer import Answer, no, yes
from pytraceprop.lockdown import LockdownStatus

_TRACED_MACHINES = ("x86_64",)


@attrs.frozen(kw_only=True)
class Environment:
    """What this kernel and the rights of this thread allow. Make it with `detect()`.

    `kernel` is the release string, `machine` the processor's name as uname(2) gives them, `lockdown` a
    LockdownStatus. All others are Answers: yes, no or "could not tell", with the reason and with what
    would change it. docs/environment.md says what each is for.
    """

    kernel: str
    machine: str
    lockdown: LockdownStatus
    capabilities: Answer
    other_users: Answer
    ptrace_scope: Answer
    memlock: Answer
    btf: Answer
    ring_buffer: Answer
    uprobe_multi: Answer
    uprobe_multi_filter: Answer
    perf_uprobe: Answer
    perf_link: Answer
    attach_cookie: Answer
    bpf_loop: Answer
    sleepable_uprobe: Answer
    write_user: Answer
    cgroup_v2: Answer
    securityfs: Answer

    @classmethod
    def detect(cls) -> Environment:
        """Finds out; never raises for what it finds, and leaves nothing behind.

        Needs nothing compiled and no privileges; without them much is "could not tell". The first time
        it takes a tenth of a second or two, because a probe is attached to this process and taken off
        again; what is known of the kernel is then remembered for the life of the process.
        """
        lockdown = LockdownStatus.detect()
        mine = rights.Rights.detect()
        multi = features.detect(features.UPROBE_MULTI, mine)
        return cls(
            kernel=os.uname().release,
            machine=os.uname().machine,
            lockdown=lockdown,
            capabilities=rights.capabilities(mine),
            other_users=rights.other_users(mine),
            ptrace_scope=rights.ptrace_scope(mine),
            memlock=rights.memlock(mine, features.detect(features.CGROUP_CHARGE, mine)),
            btf=mounts.btf(),
            ring_buffer=features.detect(features.RING_BUFFER, mine),
            uprobe_multi=multi,
            uprobe_multi_filter=_filter(multi, mine),
            perf_uprobe=features.perf_uprobe(mine),
            perf_link=features.detect(features.PERF_LINK, mine),
            attach_cookie=features.detect(features.ATTACH_COOKIE, mine),
            bpf_loop=features.detect(features.BPF_LOOP, mine),
            sleepable_uprobe=features.detect(features.SLEEPABLE_UPROBE, mine),
            write_user=rights.write_user(mine, lockdown),
            cgroup_v2=mounts.cgroup_v2(),
            securityfs=mounts.securityfs(lockdown.mode),
        )

    @property
    def answers(self) -> dict[str, Answer]:
        """All answers by name, in the order of the fields."""
        return {
            field.name: value
            for field in attrs.fields(Environment)
            if isinstance(value := getattr(self, field.name), Answer)
        }

    @property
    def attaching(self) -> Answer:
        """The answer of the better of two ways to attach probes: uprobe-multi links, or perf events."""
        return self.uprobe_multi if self.uprobe_multi.value else self.perf_uprobe

    @property
    def tracing(self) -> Answer:
        """Whether Go processes can be traced: the first answer that forbids it, or leaves it open."""
        if self.machine not in _TRACED_MACHINES:
            return no(
                f"Programs on {self.machine} are not traced yet.", f"a machine of {_TRACED_MACHINES[0]}"
            )
        needed = (self.capabilities, self.btf, self.ring_buffer, self.memlock, self.attaching)
        for value in (False, None):
            for answer in needed:
                if answer.value is value:
                    return answer
        if self.uprobe_multi.value:
            return yes(
                "Go processes can be traced, with one link for the probes of a process (uprobe-multi)."
            )
        return yes("Go processes can be traced, with a perf event for each probe; detaching is slow.")

    @property
    def propagation(self) -> Answer:
        """Whether the traceparent header can be added to outgoing requests, by writing user memory."""
        if self.tracing.value is not True:
            return self.tracing
        return self.write_user

    def summary(self) -> str:
        """One line that says what will work."""
        if self.tracing.value is False:
            return f"nothing can be traced: {self.tracing.reason}"
        spans = "spans" if self.tracing.value else "perhaps spans"
        if self.propagation.value:
            return f"{spans} and propagation"
        return f"{spans}, without propagation: {self.propagation.reason}"

    def as_dict(self) -> dict[str, Any]:
        """Everything, the two conclusions included, ready for JSON."""
        return {
            "kernel": self.kernel,
            "machine": self.machine,
            "lockdown": self.lockdown.as_dict(),
            "answers": {name: answer.as_dict() for name, answer in self.answers.items()},
            "tracing": self.tracing.as_dict(),
            "propagation": self.propagation.as_dict(),
            "summary": self.summary(),
        }


def _filter(multi: Answer, mine: rights.Rights) -> Answer:
    if not multi.value:
        return multi if multi.value is None else no(multi.reason, "Linux 6.10")
    return features.settle("uprobe_multi_filter", lambda: uprobe_filter.prove(mine))
