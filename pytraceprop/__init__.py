"""Distributed tracing for unmodified Go programs.

with pytraceprop.Tracer() as tracer:
    attachment = tracer.attach(pid=4242)
    print(attachment.propagation)
    for span in tracer.spans(timeout=5.0):
        print(span.name, span.trace_id)
"""

from pytraceprop.attachment import Attachment
from pytraceprop.context import InvalidTraceparent, TraceContext
from pytraceprop.environment import Answer, Environment
from pytraceprop.errors import (
    CoreUnavailable,
    ExecutableError,
    FeatureMissing,
    KernelError,
    MalformedExecutable,
    NotGo,
    PrivilegeError,
    ProcessGone,
    TracepropError,
    TracerClosed,
    UnsupportedExecutable,
)
from pytraceprop.lockdown import LockdownMode, LockdownStatus
from pytraceprop.propagation import Propagation
from pytraceprop.protocol import Protocol
from pytraceprop.span import Span
from pytraceprop.subscription import Subscription
from pytraceprop.tracer import Tracer

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Attachment",
    "CoreUnavailable",
    "Environment",
    "ExecutableError",
    "FeatureMissing",
    "InvalidTraceparent",
    "KernelError",
    "LockdownMode",
    "LockdownStatus",
    "MalformedExecutable",
    "NotGo",
    "PrivilegeError",
    "ProcessGone",
    "Propagation",
    "Protocol",
    "Span",
    "Subscription",
    "TraceContext",
    "TracepropError",
    "Tracer",
    "TracerClosed",
    "UnsupportedExecutable",
]
