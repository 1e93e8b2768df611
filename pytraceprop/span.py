"""Span: what one request was."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import attrs
from opentelemetry.trace import SpanContext

from pytraceprop.context import TraceContext

# struct span_record in bpf/records.h
_RECORD = struct.Struct("<16s8s8sQQQIHHHHH8BHH16s16s16s192s96s128sB5x")
RECORD_SIZE = _RECORD.size

_KINDS = {1: "server", 2: "client"}
_PROTOCOLS = ("http/1.1", "http/2", "grpc")
_HEADERS = ("none", "injected", "application", "forwarded")
_ERRORS = (None, "call failed", "panic")
_NO_SPAN = bytes(8)

#: Methods that name a span; any other is called HTTP there (OpenTelemetry HTTP conventions 1.44).
_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)


#: The names of status codes (google.golang.org/grpc/codes), as OpenTelemetry's RPC conventions want them.
_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
#: Codes that are the server's fault; the others tell the client of its own.
_SERVER_FAULTS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)


@attrs.frozen
class Span:
    """One side of one request. Ids are lower-case hexadecimal, times nanoseconds since 1970.

    `kind` is "server" or "client". `parent_span_id` is None for the root of a trace, and
    `parent_remote` says whether it came in a header. `header` says, for a client span, what became of
    the outgoing traceparent: "injected", "application" (the program sets its own, which is used),
    "forwarded" (the program passes on what came in), or "none". `status` is the HTTP status, 0 where
    there was none; `error` is None, "call failed" or "panic". `route` is the http.ServeMux pattern's
    path (Go 1.23 and later), empty where there is none. `peer` and `local` are "address:port", or None.
    `truncated` says that a text was longer than what the tracer keeps.

    `protocol` is "http/1.1", "http/2" or "grpc". Of a grpc call `path` is "/package.Service/Method", `status`
    the code and `status_name` its name; `host` is the client's authority and empty on servers; attempts
    that are retried are one span.

    A client span of HTTP ends when the response's header is there: its body may still be under way. One of
    grpc ends with its call, also if that is a stream.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    parent_remote: bool
    trace_flags: int
    kind: str
    protocol: str
    method: str
    path: str
    host: str
    route: str
    status: int
    error: str | None
    peer: str | None
    local: str | None
    start_ns: int
    end_ns: int
    pid: int
    goroutine: int
    header: str
    truncated: bool

    @property
    def name(self) -> str:
        """`{method} {http.route}`, or the method alone; never the raw path. Of grpc: `package.Service/Method`."""
        if self.protocol == "grpc":
            return self.path.removeprefix("/")
        method = self.method if self.method in _METHODS else "HTTP"
        return f"{method} {self.route}" if self.route else method

    @property
    def status_name(self) -> str:
        """The status in words: of grpc the name of the code, such as "DEADLINE_EXCEEDED", else the number."""
        if self.protocol != "grpc":
            return str(self.status)
        return _CODES[self.status] if self.status < len(_CODES) else f"CODE({self.status})"

    @property
    def failed(self) -> bool:
        """Whether it counts as an error in OpenTelemetry's conventions for HTTP and RPC (1.44).

        Some outcomes are an error for the side that called but not for the side that answered.
        """
        if self.error is not None:
            return True
        if self.protocol != "grpc":
            return self.status >= (500 if self.kind == "server" else 400)
        return self.status_name in _SERVER_FAULTS if self.kind == "server" else self.status != 0

    @property
    def rpc_attributes(self) -> dict[str, str]:
        """What OpenTelemetry's conventions for RPC (1.44) say of a grpc call; of others, nothing."""
        if self.protocol != "grpc":
            return {}
        return {
            "rpc.system.name": "grpc",
            "rpc.method": self.name,
            "rpc.response.status_code": self.status_name,
        }

    @property
    def duration_ns(self) -> int:
        """How long the request took, in nanoseconds."""
        return self.end_ns - self.start_ns

    @property
    def trace_context(self) -> TraceContext:
        """The ids that a child of this span would see."""
        return TraceContext(int(self.trace_id, 16), int(self.span_id, 16), self.trace_flags)

    @property
    def context(self) -> SpanContext:
        """The same for OpenTelemetry; made when asked for."""
        return self.trace_context.to_opentelemetry()

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        words = {"status_name": self.status_name} if self.protocol == "grpc" else {}
        return {"name": self.name, **attrs.asdict(self), **words}


def _address(ip: bytes, length: int, port: int) -> str | None:
    if length == 4:
        return f"{socket.inet_ntop(socket.AF_INET, ip[:4])}:{port}"
    if length == 16:
        if ip[:12] == b"\0" * 10 + b"\xff\xff":  # Go keeps IPv4 like this too
            return f"{socket.inet_ntop(socket.AF_INET, ip[12:])}:{port}"
        return f"[{socket.inet_ntop(socket.AF_INET6, ip)}]:{port}"
    return None


def _text(raw: bytes, length: int) -> str:
    return raw[:length].decode("utf-8", "replace")


def decode_records(
    records: bytes | memoryview, clock_offset_ns: int, pid_of: Callable[[int], int]
) -> Iterator[Span]:
    """Spans from the core's records.

    `clock_offset_ns` turns CLOCK_MONOTONIC into time since 1970; `pid_of` maps an incarnation to the
    process id.
    """
    for (
        trace_id,
        span_id,
        parent,
        start,
        end,
        goid,
        incarnation,
        status,
        method_len,
        path_len,
        host_len,
        route_len,
        kind,
        header,
        error,
        flags,
        remote,
        truncated,
        peer_len,
        local_len,
        peer_port,
        local_port,
        peer_ip,
        local_ip,
        method,
        path,
        host,
        route,
        protocol,
    ) in _RECORD.iter_unpack(records):
        pattern = _text(route, route_len)
        yield Span(
            trace_id=trace_id.hex(),
            span_id=span_id.hex(),
            parent_span_id=None if parent == _NO_SPAN else parent.hex(),
            parent_remote=bool(remote),
            trace_flags=flags,
            kind=_KINDS[kind],
            protocol=_PROTOCOLS[protocol],
            # A Go client's empty method means GET; grpc has POST only.
            method=_text(method, method_len) or ("POST" if _PROTOCOLS[protocol] == "grpc" else "GET"),
            path=_text(path, path_len),
            host=_text(host, host_len),
            # "[METHOD ][HOST]/[PATH]" (http.ServeMux)
            route=pattern[pattern.index("/") :] if "/" in pattern else "",
            status=status,
            error=_ERRORS[error],
            peer=_address(peer_ip, peer_len, peer_port),
            local=_address(local_ip, local_len, local_port),
            start_ns=start + clock_offset_ns,
            end_ns=end + clock_offset_ns,
            pid=pid_of(incarnation),
            goroutine=goid,
            header=_HEADERS[header],
            truncated=bool(truncated),
        )
