"""HTTP/2 in net/http and in golang.org/x/net/http2, plain and over TLS: which functions, which fields.

The BPF side is bpf/http2_server.bpf.c and bpf/http2_client.bpf.c; the functions' signatures stand there.
An executable may hold two copies, each with types of its own: the one that net/http brings along (bundled
up to Go 1.26, the package net/http/internal/http2 from Go 1.27), and golang.org/x/net/http2.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import attrs

from pytraceprop.errors import ExecutableError, MalformedExecutable
from pytraceprop.go import Executable
from pytraceprop.go.sites import Code, SiteMissing
from pytraceprop.go.types import TypeMissing
from pytraceprop.probes import http1
from pytraceprop.probes.plan import ProtocolPlan, Side, Site

_ERROR = 1  # the word of RoundTrip's results that is the error's type
_BLOCK_FRAGMENT = 8  # in HeadersFrameParam, behind StreamID; the programs see whether it holds
_RECOVER = "runtime.gorecover"
_NEWPROC = "runtime.newproc"
_ABSENT = 65535  # FIELD_ABSENT in bpf/records.h
_XNET = 8  # HTTP2_XNET in bpf/records.h
_FARTHEST = 1 << 31  # bytes between two functions
_LARGEST_FIELD = 16  # bytes read of one field: a string, or an interface
_LARGEST_WINDOW = 511  # SCRATCH_MASK in bpf/gomemory.bpf.h

#: struct http2_request_layout's fields: what net/http.Request calls them, and the types of Go 1.27.
_REQUEST_FIELDS = (
    ("method", "Method", "Method"),
    ("url", "URL", "URL"),
    ("header", "Header", "Header"),
    ("host", "Host", "Host"),
    ("context", "ctx", "Context"),
)


#: What only an implementation has: from Go 1.27 on, golang.org/x/net/http2 is a wrapper of net/http.
_SERVER_MARKS = (("serverConn", "processHeaders"), ("serverConn", "runHandler"))
_CLIENT_MARKS = (
    ("clientStream", "encodeAndWriteHeaders"),
    ("ClientConn", "writeHeaders"),
)
#: What tries a request, again if need be: the last one in golang.org/x/net of 2026.
_TRIES = ("RoundTripOpt", "roundTripOpt", "roundTripViaPool")


class SiteKind(IntEnum):
    """enum site in bpf/records.h."""

    COUNT_CLIENT = 8
    COUNT_SERVER = 9
    SERVER_START = 16
    SERVER_END = 17
    SERVER_UNWIND = 18
    CLIENT_START = 19
    CLIENT_WRITE = 20
    CLIENT_END = 21
    CLIENT_FAIL = 22
    CLIENT_CONTINUE = 23


def site_name(kind: int) -> str:
    """What a site is called where those of all protocols are listed."""
    if kind in (SiteKind.COUNT_CLIENT, SiteKind.COUNT_SERVER):
        return f"http2_{'client' if kind == SiteKind.COUNT_CLIENT else 'server'}"
    copy = "xnet_http2" if kind & _XNET else "http2"
    return f"{copy}_{SiteKind(kind & ~_XNET).name.lower()}"


@attrs.frozen
class Copy:
    """One spelling of HTTP/2: where it is in struct target's http2, its package, how its names begin.

    `served` and `sent` are the types of requests, `response` is that of responses to calls.
    """

    index: int
    package: str
    prefix: str
    served: str
    sent: str
    response: str

    def method(self, receiver: str, name: str) -> str:
        """The full name of a method with a pointer receiver."""
        return f"{self.package}.(*{self.prefix}{receiver}).{name}"

    def type(self, name: str) -> str:
        """The full name of a type."""
        return f"{self.package}.{self.prefix}{name}"


_MESSAGES = ("net/http.Request", "net/http.Request", "net/http.Response")
_INTERNAL = "net/http/internal/http2"
COPIES = (
    Copy(0, "net/http", "http2", *_MESSAGES),
    Copy(
        0, _INTERNAL, "", *(f"{_INTERNAL}.{n}" for n in ("ServerRequest", "ClientRequest", "ClientResponse"))
    ),
    Copy(1, "golang.org/x/net/http2", "", *_MESSAGES),
)


@attrs.frozen
class Http2Plan:
    """Both sides; struct target's fields; the sites that count what cannot be traced."""

    protocol: ProtocolPlan
    fields: dict[str, int]
    layouts: tuple[dict[str, Any], dict[str, Any]]
    counted_client: tuple[Site, ...] = ()
    counted_server: tuple[Site, ...] = ()


def read(executable: Executable, common_reason: str = "", *, net_http_client: bool = True) -> Http2Plan:
    """The sites and layouts of every copy that the executable holds.

    `common_reason` says why net/http's own types cannot be read, if they cannot; `net_http_client` whether
    the calls of its Transport are traced over HTTP/1.1. What a copy lacks becomes a reason of the side that
    needs it.
    """
    if common_reason:
        neither = Side(reason=common_reason)
        return Http2Plan(ProtocolPlan(neither, neither), {}, ({}, {}))
    executable.load_functions([_RECOVER, _NEWPROC, *(name for copy in COPIES for name in _functions(copy))])
    layouts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    fields: dict[str, int] = {}
    server = _Reader(executable, "server", layouts)
    client = _Reader(executable, "client", layouts)
    for copy in COPIES:
        if _has_any(executable, copy, _SERVER_MARKS):
            server.read(copy, _read_server, _count_server)
        if _has_any(executable, copy, _CLIENT_MARKS):
            client.read(copy, _read_client, _count_client)
            if net_http_client and "sent" in layouts[copy.index]:
                layouts[copy.index]["type_no_cached_conn"] = _no_cached_conn(executable, copy)
    if client.sites:
        fields = http1.read_writer(executable)
    return Http2Plan(
        ProtocolPlan(client=client.side(), server=server.side()),
        fields,
        layouts,
        tuple(client.counted),
        tuple(server.counted),
    )


def _has_any(executable: Executable, copy: Copy, marks: tuple[tuple[str, str], ...]) -> bool:
    return any(executable.has_function(copy.method(*mark)) for mark in marks)


def _functions(copy: Copy) -> list[str]:
    deferred = [copy.method("serverConn", f"runHandler.{name}") for name in ("func1", "func2")]
    methods = (
        ("serverConn", "processHeaders"),
        ("serverConn", "newWriterAndRequest"),
        ("serverConn", "runHandler"),
        ("responseWriter", "handlerDone"),
        *(("Transport", name) for name in _TRIES),
        ("ClientConn", "RoundTrip"),
        ("ClientConn", "roundTrip"),
        ("ClientConn", "writeHeaders"),
        ("clientStream", "encodeAndWriteHeaders"),
        *(("Framer", name) for name in ("WriteHeaders", "WriteContinuation", "endWrite")),
    )
    return [*deferred, *(copy.method(*method) for method in methods)]


class _Reader:
    """One side of all copies, put together."""

    def __init__(self, executable: Executable, name: str, layouts: tuple[dict[str, Any], ...]) -> None:
        self._executable = executable
        self._name = name
        self._layouts = layouts
        self._reasons: list[str] = []
        self.sites: list[Site] = []
        self.counted: list[Site] = []

    def read(
        self,
        copy: Copy,
        read_sites: Callable[[Executable, Copy, dict[str, Any]], list[tuple[SiteKind, int]]],
        count_sites: Callable[[Executable, Copy], list[int]],
    ) -> None:
        image = self._executable.image
        layout: dict[str, Any] = {}
        try:
            found = read_sites(self._executable, copy, layout)
            self._check(layout)
            program = "http2_serving" if self._name == "server" else "http2_calling"
            self.sites += [
                Site(program, kind + _XNET * copy.index, image.file_offset(address))
                for kind, address in found
            ]
            self._layouts[copy.index].update(layout)
            return
        except ExecutableError as error:
            self._reasons.append(error.reason)
        try:  # then they are at least counted
            kind = SiteKind.COUNT_SERVER if self._name == "server" else SiteKind.COUNT_CLIENT
            self.counted += [
                Site(f"http1_{self._name}", int(kind), image.file_offset(address))
                for address in count_sites(self._executable, copy)
            ]
        except ExecutableError as error:
            self._reasons.append(f"not even counted: {error.reason}")

    def _check(self, layout: dict[str, Any]) -> None:
        """Whether every number fits struct http2_layout. Raises MalformedExecutable."""
        for name, value in layout.items():
            if isinstance(value, dict):
                self._check(value)
            elif not (-_FARTHEST <= value < _FARTHEST if name.endswith("_return") else 0 <= value <= _ABSENT):
                raise MalformedExecutable(self._executable.image.path, f"its {name} is absurdly large")

    def side(self) -> Side:
        """The sites, and why not more."""
        if not self.sites and not self._reasons:
            self._reasons.append(f"it holds no {self._name} of HTTP/2")
        return Side(tuple(self.sites), "; ".join(self._reasons))


def _count_server(executable: Executable, copy: Copy) -> list[int]:
    code = executable.code(copy.method("serverConn", "processHeaders"))
    return [code.only_call(executable.function(copy.method("serverConn", "newWriterAndRequest")))]


def _count_client(executable: Executable, copy: Copy) -> list[int]:
    """One goroutine is started for each request."""
    names = [copy.method("ClientConn", name) for name in ("roundTrip", "RoundTrip")]
    codes = [executable.code(name) for name in names if executable.has_function(name)]
    return [call for code in codes for call in code.calls(executable.function(_NEWPROC))]


def _read_request(executable: Executable, name: str) -> dict[str, int]:
    types = executable.types
    fields = types.at(types.find(name)).fields
    column = 1 if name == "net/http.Request" else 2
    found = {row[0]: types.field(name, row[column]).offset for row in _REQUEST_FIELDS}
    size = min(max(found.values()) + _LARGEST_FIELD, types.size(types.find(name)))
    if size > _LARGEST_WINDOW:
        raise TypeMissing(executable.image.path, f"its type {name} is larger than expected")
    return {**found, "window": size, "pattern": fields["Pattern"].offset if "Pattern" in fields else _ABSENT}


def _read_server(executable: Executable, copy: Copy, layout: dict[str, Any]) -> list[tuple[SiteKind, int]]:
    types = executable.types
    layout["served"] = _read_request(executable, copy.served)
    layout["server_conn_conn"] = types.field(copy.type("serverConn"), "conn").offset
    layout["response_writer_state"] = types.field(copy.type("responseWriter"), "rws").offset
    layout["response_state_status"] = types.field(copy.type("responseWriterState"), "status").offset
    run = copy.method("serverConn", "runHandler")
    done = executable.function(copy.method("responseWriter", "handlerDone"))
    for name in (f"{run}.func1", f"{run}.func2"):  # Go 1.19 counts the other deferred call too
        if executable.has_function(name) and executable.code(name).calls(done):
            deferred = executable.code(name)
            break
    else:
        raise SiteMissing(executable.image.path, f"no deferred function of {run} calls {done.name}")
    return [
        (SiteKind.SERVER_START, executable.code(run).entry()),
        (SiteKind.SERVER_END, deferred.only_call(done)),
        (SiteKind.SERVER_UNWIND, deferred.only_call(executable.function(_RECOVER))),
    ]


def _round_trip(executable: Executable, copy: Copy) -> tuple[Code, int]:
    """The function that tries a request, again if need be, and where it hands it to a connection."""
    callees = [copy.method("ClientConn", name) for name in ("roundTrip", "RoundTrip")]
    called = [executable.function(name) for name in callees if executable.has_function(name)]
    names = [copy.method("Transport", name) for name in _TRIES]
    codes = [executable.code(name) for name in names if executable.has_function(name)]
    found = [(code, call) for code in codes for function in called for call in code.calls(function)]
    if len(found) != 1:
        what = f"{names[0]} calls {callees[1]} {len(found)} times where once was expected"
        raise SiteMissing(executable.image.path, what)
    return found[0]


def _no_cached_conn(executable: Executable, copy: Copy) -> int:
    """The type of the error by which net/http learns that HTTP/2 has no connection for a call."""
    try:
        return executable.types.find(copy.type("noCachedConnError"))
    except TypeMissing:  # then no value of it is ever made an error
        return 0


def _read_client(executable: Executable, copy: Copy, layout: dict[str, Any]) -> list[tuple[SiteKind, int]]:
    types = executable.types
    stream, conn = copy.type("clientStream"), copy.type("ClientConn")
    layout["sent"] = _read_request(executable, copy.sent)
    layout["response_status"] = types.field(copy.response, "StatusCode").offset
    layout["stream_conn"] = types.field(stream, "cc").offset
    layout["conn_conn"] = types.field(conn, "tconn").offset
    block = types.field(conn, "hbuf").offset
    layout["conn_block"] = block + types.field("bytes.Buffer", "buf").offset
    layout["conn_block_start"] = block + types.field("bytes.Buffer", "off").offset
    layout["conn_writer"] = types.field(conn, "bw").offset
    layout["conn_max_frame"] = types.field(conn, "maxFrameSize").offset
    layout["conn_max_list"] = types.field(conn, "peerMaxHeaderListSize").offset

    encoder = types.field(conn, "henc")
    table = types.at(types.element(encoder.type)).field(executable.image.path, "dynTab")
    maximum = types.at(table.type).field(executable.image.path, "maxSize")
    layout["conn_encoder"] = encoder.offset
    layout["encoder_table"] = table.offset + maximum.offset

    round_trip, start = _round_trip(executable, copy)
    end, _ = round_trip.test_after(start, _ERROR)

    write = executable.code(copy.method("ClientConn", "writeHeaders"))
    site = write.only_call(executable.function(copy.method("Framer", "WriteHeaders")))
    encode = executable.code(copy.method("clientStream", "encodeAndWriteHeaders"))
    returns = encode.instruction(encode.only_call(write.function)).end
    frame = write.frame()
    layout["write_block"] = frame.arguments + _BLOCK_FRAGMENT
    layout["write_frame"] = frame.return_address
    layout["write_return"] = returns - site
    layout["write_stream"] = frame.caller + encode.argument_slot(0)
    layout["write_request"] = frame.caller + encode.argument_slot(1)

    again = executable.code(copy.method("Framer", "WriteContinuation"))
    last = again.only_call(executable.function(copy.method("Framer", "endWrite")))
    frame = again.frame()
    layout["conn_framer"] = types.field(conn, "fr").offset
    layout["framer_buffer"] = types.field(copy.type("Framer"), "wbuf").offset
    layout["continue_frame"] = frame.return_address
    layout["continue_caller"] = frame.caller
    layout["continue_return"] = write.instruction(write.only_call(again.function)).end - last
    layout["continue_write_return"] = returns - last
    return [
        (SiteKind.CLIENT_START, start),
        (SiteKind.CLIENT_WRITE, site),
        (SiteKind.CLIENT_CONTINUE, last),
        (SiteKind.CLIENT_END, end),
        *((SiteKind.CLIENT_FAIL, ret) for ret in round_trip.nil_returns()),  # rare: stepping is no matter
    ]
