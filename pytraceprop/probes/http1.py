"""HTTP/1.1, plain and over TLS, in net/http: which functions, which fields.

The BPF side is bpf/http1_server.bpf.c and bpf/http1_client.bpf.c; the functions' signatures stand
there. Sites were chosen by disassembling Go 1.19 to 1.27 (docs/architecture.md): before 1.21, functions
do not begin with `push rbp`, so each is a call or a conditional jump.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import attrs

from pytraceprop.errors import MalformedExecutable, UnsupportedExecutable
from pytraceprop.go import Executable
from pytraceprop.go.maps import map_head, read_map_layout
from pytraceprop.go.types import TypeMissing, Types
from pytraceprop.probes.plan import ProtocolPlan, Side, Site, side

_SERVE = "net/http.(*conn).serve"
_SERVE_DEFER = "net/http.(*conn).serve.func1"
_HANDLER = "net/http.serverHandler.ServeHTTP"
_HIJACKED = "net/http.(*conn).hijacked"
_RECOVER = "runtime.gorecover"
_ROUND_TRIP = "net/http.(*Transport).roundTrip"
_GET_CONN = "net/http.(*Transport).getConn"
_PERSIST_ROUND_TRIP = "net/http.(*persistConn).roundTrip"
_REWIND = "net/http.rewindBody"
_WRITE = "net/http.(*Request).write"
_WRITE_SUBSET = "net/http.Header.writeSubset"

#: struct target's field, the Go type, the field's name in it.
_FIELDS = (
    ("g_goid", "runtime.g", "goid"),
    ("request_method", "net/http.Request", "Method"),
    ("request_url", "net/http.Request", "URL"),
    ("request_header", "net/http.Request", "Header"),
    ("request_host", "net/http.Request", "Host"),
    ("request_ctx", "net/http.Request", "ctx"),
    ("url_path", "net/url.URL", "Path"),
    ("url_host", "net/url.URL", "Host"),
    ("tcp_conn_fd", "net.TCPConn", "conn"),
    ("netfd_family", "net.netFD", "family"),
    ("netfd_laddr", "net.netFD", "laddr"),
    ("netfd_raddr", "net.netFD", "raddr"),
    ("tcp_addr_ip", "net.TCPAddr", "IP"),
    ("tcp_addr_port", "net.TCPAddr", "Port"),
)
_SERVER_FIELDS = (
    ("response_conn", "net/http.response", "conn"),
    ("response_status", "net/http.response", "status"),
    ("conn_rwc", "net/http.conn", "rwc"),
    ("conn_hijacked", "net/http.conn", "hijackedv"),
)
_CLIENT_FIELDS = (
    ("transport_request_request", "net/http.transportRequest", "Request"),
    ("persist_conn_conn", "net/http.persistConn", "conn"),
    ("client_response_status", "net/http.Response", "StatusCode"),
    ("client_response_proto_major", "net/http.Response", "ProtoMajor"),
)
#: Of the writer that a connection's requests go through, in HTTP/2 too.
_WRITER_FIELDS = (
    ("bufio_err", "bufio.Writer", "err"),
    ("bufio_buf", "bufio.Writer", "buf"),
    ("bufio_n", "bufio.Writer", "n"),
    ("bufio_wr", "bufio.Writer", "wr"),
)
#: Words of arguments and results, in the order of Go's signatures.
_ERROR = 1  # func (pc *persistConn) roundTrip(req *transportRequest) (resp *Response, err error)
_HEADER = 0  # func (h Header) writeSubset(w io.Writer, exclude map[string]bool, ...) error
_ABSENT = 65535  # FIELD_ABSENT in bpf/records.h
_MOST_CONTEXT_TYPES = 4096  # large programs have some ten; all processes share a map of 65 536
_LARGEST_ADDRESS = (1 << 64) - 1

#: What is read at once: struct target's field, the Go type, the fields of struct target that it holds.
_WINDOWS = (
    (
        "request_window",
        "net/http.Request",
        ("request_method", "request_url", "request_header", "request_host", "request_ctx"),
    ),
    ("netfd_window", "net.netFD", ("netfd_family", "netfd_laddr", "netfd_raddr")),
    ("tcp_addr_window", "net.TCPAddr", ("tcp_addr_ip", "tcp_addr_port")),
)
_CLIENT_WINDOWS = (
    (
        "client_response_window",
        "net/http.Response",
        ("client_response_status", "client_response_proto_major"),
    ),
)
_WRITER_WINDOWS = (("bufio_window", "bufio.Writer", ("bufio_err", "bufio_buf", "bufio_n", "bufio_wr")),)
_MAP_HEAD = ("map_used", "map_dir_ptr", "map_dir_len", "map_writing", "hmap_b")
_LARGEST_FIELD = 16  # bytes read of one field: a string, or an interface
_LARGEST_WINDOW = 511  # SCRATCH_MASK in bpf/gomemory.bpf.h


class SiteKind(IntEnum):
    """enum site in bpf/records.h."""

    SERVER_START = 1
    SERVER_END = 2
    SERVER_UNWIND = 3
    CLIENT_START = 4
    CLIENT_WRITE = 5
    CLIENT_END = 6
    CLIENT_FAIL = 7


def site_name(kind: int) -> str:
    """What a site is called where those of all protocols are listed."""
    return SiteKind(kind).name.lower()


def read(executable: Executable) -> tuple[dict[str, int], ProtocolPlan, dict[int, int]]:
    """The fields of struct target, the sites of both sides, the context types.

    What the executable lacks turns a side off, or both. Raises UnsupportedExecutable where it cannot be
    read at all, and MalformedExecutable.
    """
    executable.load_functions(
        (
            *(_SERVE, _SERVE_DEFER, _HANDLER, _HIJACKED, _RECOVER),
            *(_ROUND_TRIP, _GET_CONN, _PERSIST_ROUND_TRIP, _REWIND, _WRITE, _WRITE_SUBSET),
        )
    )
    types = executable.types
    try:
        fields, context_types = _read_common(executable, types)
    except UnsupportedExecutable as error:  # above all a program without net/http
        neither = Side(reason=error.reason)
        return {}, ProtocolPlan(client=neither, server=neither), {}
    server = _with_fields(executable, fields, _SERVER_FIELDS, _read_server)
    client = _with_fields(executable, fields, _CLIENT_FIELDS, _read_client)
    for name, value in fields.items():
        if value > (_LARGEST_ADDRESS if name.startswith("type_") else _ABSENT):
            raise MalformedExecutable(executable.image.path, f"its {name} is absurdly large")
    context_types = {t: place for t, place in context_types.items() if t <= _LARGEST_ADDRESS}
    if len(context_types) > _MOST_CONTEXT_TYPES:
        raise MalformedExecutable(executable.image.path, "it has absurdly many types that wrap a context")
    return fields, ProtocolPlan(client=client, server=server), context_types


def _read_common(executable: Executable, types: Types) -> tuple[dict[str, int], dict[int, int]]:
    fields = {name: types.field(struct, field).offset for name, struct, field in _FIELDS}
    header = types.field("net/http.Request", "Header").type
    fields |= attrs.asdict(read_map_layout(executable.image, types, header))
    head = map_head(executable.image, types, header)
    _add_windows(executable, fields, (*_WINDOWS, ("map_window", head, _MAP_HEAD)))
    fields["type_tcp_conn"] = types.pointer_to("net.TCPConn")
    try:
        fields["type_tls_conn"] = types.pointer_to("crypto/tls.Conn")
        fields["tls_conn_conn"] = types.field("crypto/tls.Conn", "conn").offset
    except TypeMissing:  # linked without crypto/tls
        fields["type_tls_conn"] = 0
    try:
        fields["request_pattern"] = types.field("net/http.Request", "Pattern").offset
    except TypeMissing:  # before Go 1.23
        fields["request_pattern"] = _ABSENT
    return fields, types.wrappers(types.field("net/http.Request", "ctx").type, by_field_in="context")


def _with_fields(
    executable: Executable,
    fields: dict[str, int],
    wanted: Sequence[tuple[str, str, str]],
    read_sites: Callable[[Executable, dict[str, int]], list[Site]],
) -> Side:
    def read_side() -> list[Site]:
        for name, struct, field in wanted:
            fields[name] = executable.types.field(struct, field).offset
        return read_sites(executable, fields)

    return side(read_side)


def _add_windows(
    executable: Executable, fields: dict[str, int], windows: Sequence[tuple[str, str, tuple[str, ...]]]
) -> None:
    for name, struct, parts in windows:
        types = executable.types
        size = min(max(fields[part] for part in parts) + _LARGEST_FIELD, types.size(types.find(struct)))
        if size > _LARGEST_WINDOW:
            raise TypeMissing(executable.image.path, f"its type {struct} is larger than expected")
        fields[name] = size


def read_writer(executable: Executable) -> dict[str, int]:
    """The fields of struct target that say how a bufio.Writer is laid out. Raises UnsupportedExecutable."""
    fields = {name: executable.types.field(struct, field).offset for name, struct, field in _WRITER_FIELDS}
    _add_windows(executable, fields, _WRITER_WINDOWS)
    return fields


def _site(executable: Executable, program: str, kind: SiteKind, address: int) -> Site:
    return Site(program, int(kind), executable.image.file_offset(address))


def _read_server(executable: Executable, fields: dict[str, int]) -> list[Site]:
    fields["type_response"] = executable.types.pointer_to("net/http.response")
    serve = executable.code(_SERVE)
    start = serve.only_call(executable.function(_HANDLER))
    hijacked = executable.function(_HIJACKED)
    after = [call for call in serve.calls(hijacked) if call > start]
    if not after:
        raise serve.missing("does not ask for hijacked() after the handler")
    deferred = executable.code(_SERVE_DEFER)
    if not deferred.calls(hijacked):
        raise deferred.missing("is not the function that closes the connection")
    found = [
        (SiteKind.SERVER_START, start),
        (SiteKind.SERVER_END, after[0]),
        (SiteKind.SERVER_UNWIND, deferred.only_call(executable.function(_RECOVER))),
    ]
    return [_site(executable, "http1_server", kind, address) for kind, address in found]


def _read_client(executable: Executable, fields: dict[str, int]) -> list[Site]:
    types = executable.types
    _add_windows(executable, fields, _CLIENT_WINDOWS)
    fields |= read_writer(executable)
    try:  # its own context, made for each call since Go 1.23: the second word of an interface
        fields["transport_request_call"] = types.field("net/http.transportRequest", "ctx").offset + 8
    except TypeMissing:  # the caller's *Request, which stays the same when a call is tried again
        fields["transport_request_call"] = types.field("net/http.transportRequest", "cancelKey").offset
    fields["type_bufio_writer"] = types.pointer_to("bufio.Writer")
    fields["type_persist_conn_writer"] = types.find("net/http.persistConnWriter")
    round_trip = executable.code(_ROUND_TRIP)
    start = round_trip.only_call(executable.function(_GET_CONN))
    inner = round_trip.only_call(executable.function(_PERSIST_ROUND_TRIP))
    end, success = round_trip.test_after(inner, _ERROR)
    write = executable.code(_WRITE)
    header_call = write.calls(executable.function(_WRITE_SUBSET))
    if not header_call:
        raise write.missing("does not call Header.writeSubset")
    fields["write_receiver"] = write.receiver_slot(header_call[0], _HEADER, fields["request_header"])
    found = [
        (SiteKind.CLIENT_START, start),
        (SiteKind.CLIENT_WRITE, header_call[0]),
        (SiteKind.CLIENT_END, end),
    ]
    # Rare, so single-stepping these does not matter.
    # A call goes on at rewindBody, too, when HTTP/2 had no connection for it (ErrSkipAltProtocol).
    begins = [start]
    if executable.has_function(_REWIND):
        begins += round_trip.calls(executable.function(_REWIND))
    failures = set().union(*(round_trip.returns_from(begin, without=success) for begin in begins))
    found += [(SiteKind.CLIENT_FAIL, ret) for ret in sorted(failures)]
    return [_site(executable, "http1_client", kind, address) for kind, address in found]
