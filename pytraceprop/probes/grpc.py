"""google.golang.org/grpc, client and server: which functions, which fields.

The BPF side is bpf/grpc_server.bpf.c and bpf/grpc_client.bpf.c; the functions' signatures stand there.
Written against grpc 1.50 to 1.85. Where releases differ in names, all of them are known here, and what
the executable has is taken; where they differ in how types are nested, that is read from the types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

from pytraceprop.errors import UnsupportedExecutable
from pytraceprop.go import Executable
from pytraceprop.go.maps import read_map_layout
from pytraceprop.go.types import INTERFACE, MAP, POINTER, STRUCT, Field, TypeMissing
from pytraceprop.probes.plan import ProtocolPlan, Side, Site, side

_GRPC = "google.golang.org/grpc."
_TRANSPORT = "google.golang.org/grpc/internal/transport."
_STATUS = "google.golang.org/grpc/internal/status."
_PEER = "google.golang.org/grpc/peer.Peer"

_HANDLE_STREAM = f"{_GRPC}(*Server).handleStream"
_NEW_STREAM = f"{_GRPC}newClientStreamWithParams"
_WITH_RETRY = f"{_GRPC}(*clientStream).withRetry"
_FINISH = f"{_GRPC}(*clientStream).finish"
_WRITE_HEADER = f"{_TRANSPORT}(*loopyWriter).writeHeader"
_WAIT_GROUP = "sync.(*WaitGroup).Add"

#: Where a client's headers are written: named clientHeaderHandler since grpc 1.82.
_CLIENT_HEADERS = tuple(
    f"{_TRANSPORT}(*loopyWriter).{name}" for name in ("clientHeaderHandler", "originateStream")
)
#: What is written: named clientHeaders since grpc 1.82.
_HEADERS = (f"{_TRANSPORT}clientHeaders", f"{_TRANSPORT}headerFrame")

#: Both ways in which a server's stream gets its status: a method without export since grpc 1.69.
_STATUSES = tuple(
    (f"{_TRANSPORT}(*{owner}).writeStatus", f"{_TRANSPORT}(*{owner}).WriteStatus")
    for owner in ("http2Server", "serverHandlerTransport")
)

#: Functions that may call handleStream: workers, and closures that are numbered differently in each release.
_SERVE = f"{_GRPC}(*Server).serveStreams"
_CALLERS = (
    f"{_GRPC}(*Server).serverWorker",
    f"{_GRPC}(*Server).handleSingleStream",
    *(f"{_SERVE}.func{i}" for i in range(1, 5)),
    *(f"{_SERVE}.func{i}.{j}" for i in range(1, 5) for j in range(1, 4)),
)
#: A function that its caller defers: deferwrapN since Go 1.22, before that a closure like any other.
_DEFERRED = (".deferwrap1", ".1")

_ABSENT = 65535  # FIELD_ABSENT in bpf/records.h
_MOST_FIELDS_AT_ONCE = 511 // 12  # bytes of a hpack.HeaderField: SCRATCH_MASK, FIELDS_AT_ONCE


class SiteKind(IntEnum):
    """enum site in bpf/records.h."""

    SERVER_START = 40
    SERVER_STATUS = 41
    SERVER_END = 42
    CLIENT_START = 43
    CLIENT_FAIL = 44
    CLIENT_HEADERS = 45
    CLIENT_WRITTEN = 46
    CLIENT_END = 47


def site_name(kind: int) -> str:
    """What a site is called."""
    return f"grpc_{SiteKind(kind).name.lower()}"


def read(executable: Executable, without: str) -> tuple[dict[str, int], ProtocolPlan]:
    """The fields of struct grpc_layout, the sites of both sides.

    `without` is the reason why net/http's types could not be read, on which grpc's build; else empty.
    """
    names = (_HANDLE_STREAM, _NEW_STREAM, _WITH_RETRY, _FINISH, _WRITE_HEADER, _WAIT_GROUP)
    executable.load_functions(
        (
            *names,
            *_CLIENT_HEADERS,
            *(name for pair in _STATUSES for name in pair),
            *(caller + deferred for caller in _CALLERS for deferred in ("", *_DEFERRED)),
        )
    )
    layout: dict[str, int] = {}
    server = _with_layout(executable, layout, without, _HANDLE_STREAM, _read_server)
    client = _with_layout(executable, layout, without, _NEW_STREAM, _read_client)
    return layout, ProtocolPlan(client=client, server=server)


def _with_layout(
    executable: Executable,
    layout: dict[str, int],
    without: str,
    essential: str,
    read_sites: Callable[[Executable, dict[str, int]], list[tuple[SiteKind, int]]],
) -> Side:
    """One side; of one that cannot be traced nothing is in the layout."""

    def read_side() -> list[Site]:
        executable.function(essential)  # before anything else, for the reason of a program without grpc
        if without:
            raise UnsupportedExecutable(executable.image.path, without)
        found: dict[str, int] = {}
        _read_common(executable, found)
        sites = read_sites(executable, found)
        for name, value in found.items():
            if value > _ABSENT and not name.startswith("type_"):
                raise TypeMissing(executable.image.path, f"its grpc's {name} is absurdly large")
        layout.update(found)
        return [
            Site("grpc_server" if kind < SiteKind.CLIENT_START else "grpc_client", int(kind), offset)
            for kind, offset in ((kind, executable.image.file_offset(at)) for kind, at in sites)
        ]

    return side(read_side)


def _read_common(executable: Executable, layout: dict[str, int]) -> None:
    types = executable.types
    layout["type_tcp_addr"] = types.pointer_to("net.TCPAddr")
    status = types.field(f"{_STATUS}Status", "s")
    layout["status_proto"] = status.offset
    proto = types.at(types.element(status.type))
    layout["status_code"] = proto.field(executable.image.path, "Code").offset


def _first_field(executable: Executable, *places: tuple[str, str]) -> tuple[str, Field]:
    """The first of several fields that the executable has, and the struct that has it."""
    for struct, name in places:
        try:
            return struct, executable.types.field(struct, name)
        except TypeMissing as error:
            missing = error
    raise missing


def _stream_field(executable: Executable, own: str, name: str) -> tuple[int, int]:
    """Where the pointer to the common part of a stream is, or FIELD_ABSENT, and a field's offset.

    A server's and a client's stream were one type, Stream, up to grpc 1.66; then Stream was embedded in
    each, by pointer and since 1.77 by value.
    """
    types = executable.types
    field = types.field(f"{_TRANSPORT}Stream", name)
    try:
        embedded = types.field(f"{_TRANSPORT}{own}", "Stream")
    except TypeMissing:
        return _ABSENT, field.offset
    if types.kind(embedded.type) == POINTER:
        return embedded.offset, field.offset
    return _ABSENT, embedded.offset + field.offset


def _read_server(executable: Executable, layout: dict[str, int]) -> list[tuple[SiteKind, int]]:
    types = executable.types
    _read_metadata(executable, layout)
    layout["server_common"], layout["server_context"] = _stream_field(executable, "ServerStream", "ctx")
    layout["server_method"] = _stream_field(executable, "ServerStream", "method")[1]
    layout["type_http2_server"] = types.pointer_to(f"{_TRANSPORT}http2Server")
    try:  # left out by the linker where nothing calls Server.ServeHTTP
        layout["type_handler_transport"] = types.pointer_to(f"{_TRANSPORT}serverHandlerTransport")
    except TypeMissing:
        layout["type_handler_transport"] = 0
    _read_server_addresses(executable, layout)

    start = executable.code(_HANDLE_STREAM).entry()
    found = [(SiteKind.SERVER_START, start)]
    for names in _STATUSES:
        own = [name for name in names if executable.has_function(name)]
        if own:
            found.append((SiteKind.SERVER_STATUS, executable.code(own[0]).entry()))
    if len(found) == 1:
        raise executable.code(_HANDLE_STREAM).missing("has no function for a stream's status")
    found += [(SiteKind.SERVER_END, address) for address in _stream_ends(executable)]
    return found


def _read_metadata(executable: Executable, layout: dict[str, int]) -> None:
    types = executable.types
    layout["value_ctx_val"] = types.field("context.valueCtx", "val").offset
    layout["type_value_ctx"] = types.pointer_to("context.valueCtx")
    _, metadata = _first_field(
        executable, (f"{_TRANSPORT}Stream", "trailer"), (f"{_TRANSPORT}ServerStream", "header")
    )
    header = types.field("net/http.Request", "Header").type
    if types.kind(metadata.type) != MAP or (
        read_map_layout(executable.image, types, metadata.type)
        != read_map_layout(executable.image, types, header)
    ):
        raise TypeMissing(executable.image.path, "its grpc's metadata are no map like http.Header")
    layout["type_metadata"] = metadata.type


def _read_server_addresses(executable: Executable, layout: dict[str, int]) -> None:
    """A peer.Peer since grpc 1.60, two addresses before."""
    types = executable.types
    owner = f"{_TRANSPORT}http2Server"
    try:
        peer = types.field(owner, "peer")
        if types.kind(peer.type) != STRUCT:
            raise TypeMissing(executable.image.path, f"its type {owner} keeps its peer otherwise")
        layout["server_peer"] = peer.offset + types.field(_PEER, "Addr").offset
        layout["server_local"] = peer.offset + types.field(_PEER, "LocalAddr").offset
    except TypeMissing:
        try:
            layout["server_peer"] = types.field(owner, "remoteAddr").offset
            layout["server_local"] = types.field(owner, "localAddr").offset
        except TypeMissing:  # spans without addresses
            layout["server_peer"] = layout["server_local"] = _ABSENT


def _stream_ends(executable: Executable) -> list[int]:
    """What runs once whenever handleStream has returned: a call that follows, or a deferred function.

    A call through a register would be single-stepped, a function's beginning is not.
    """
    handle = executable.function(_HANDLE_STREAM)
    found = []
    for name in _CALLERS:
        if not executable.has_function(name):
            continue
        code = executable.code(name)
        for call in code.calls(handle):
            deferred = [name + part for part in _DEFERRED if executable.has_function(name + part)]
            following = code.next_call(call)
            if following.target is None and deferred:
                found.append(executable.code(deferred[0]).entry())
            else:
                found.append(following.address)
    if not found:
        raise executable.code(_HANDLE_STREAM).missing("is called by no function that is known to")
    return sorted(set(found))


def _read_client(executable: Executable, layout: dict[str, int]) -> list[tuple[SiteKind, int]]:
    types = executable.types
    layout["type_status_error"] = types.pointer_to(f"{_STATUS}Error")
    layout["status_error_status"] = types.field(f"{_STATUS}Error", "s").offset
    layout["type_error_string"] = types.pointer_to("errors.errorString")
    layout["call_context"] = types.field(f"{_GRPC}clientStream", "ctx").offset
    layout["call_header"] = types.field(f"{_GRPC}clientStream", "callHdr").offset
    layout["call_host"] = types.field(f"{_TRANSPORT}CallHdr", "Host").offset
    layout["call_method"] = types.field(f"{_TRANSPORT}CallHdr", "Method").offset
    _read_client_stream(executable, layout)
    _read_writer(executable, layout)

    create = executable.code(_NEW_STREAM)
    start = create.only_call(executable.function(_WITH_RETRY))
    jump, success = create.test_after(start, 0)
    layout["call_slot"] = create.stack_slot(start, 0)
    headers = executable.code(next(filter(executable.has_function, _CLIENT_HEADERS), _CLIENT_HEADERS[0]))
    write = headers.only_call(executable.function(_WRITE_HEADER))
    layout["headers_slot"] = headers.stack_slot(write, 3, layout["headers_fields"])
    return [
        (SiteKind.CLIENT_START, start),
        (SiteKind.CLIENT_FAIL, create.other_branch(jump, success)),  # rare: may be single-stepped
        (SiteKind.CLIENT_HEADERS, write),
        (SiteKind.CLIENT_WRITTEN, headers.test_after(write, 0)[0]),
        (SiteKind.CLIENT_END, executable.code(_FINISH).entry()),
    ]


def _read_client_stream(executable: Executable, layout: dict[str, int]) -> None:
    types = executable.types
    layout["client_common"], layout["client_context"] = _stream_field(executable, "ClientStream", "ctx")
    _, layout["stream_quota"] = _stream_field(executable, "ClientStream", "wq")
    quota = types.field(f"{_TRANSPORT}Stream", "wq")
    layout["stream_quota_embedded"] = int(types.kind(quota.type) == STRUCT)
    _, transport = _first_field(
        executable, (f"{_TRANSPORT}ClientStream", "ct"), (f"{_TRANSPORT}Stream", "ct")
    )
    is_interface = types.kind(transport.type) == INTERFACE
    layout["client_transport"] = transport.offset + (8 if is_interface else 0)
    for name, field in (
        ("client_local", "localAddr"),
        ("client_peer", "remoteAddr"),
        ("client_max_list", "maxSendHeaderListSize"),
    ):
        layout[name] = types.field(f"{_TRANSPORT}http2Client", field).offset


def _read_writer(executable: Executable, layout: dict[str, int]) -> None:
    types = executable.types
    path = executable.image.path
    headers, fields = _first_field(executable, *((name, "hf") for name in _HEADERS))
    layout["headers_fields"] = fields.offset
    layout["headers_quota"] = types.field(headers, "wq").offset
    layout["headers_orphaned"] = types.field(headers, "onOrphaned").offset
    field = types.at(types.element(fields.type))
    layout["field_name"] = field.field(path, "Name").offset
    layout["field_value"] = field.field(path, "Value").offset
    layout["field_size"] = field.size
    if field.size > _MOST_FIELDS_AT_ONCE:
        raise TypeMissing(path, f"its type {field.name} is larger than expected")
    layout["loopy_framer"] = types.field(f"{_TRANSPORT}loopyWriter", "framer").offset
    layout["loopy_block"] = types.field(f"{_TRANSPORT}loopyWriter", "hBuf").offset
    layout["buffer_bytes"] = types.field("bytes.Buffer", "buf").offset
    layout["framer_writer"] = types.field(f"{_TRANSPORT}framer", "writer").offset
    writer = f"{_TRANSPORT}bufWriter"
    _, buffer = _first_field(executable, (writer, "buf"), (writer, "bufHandle"))  # a pointer since 1.84
    layout["writer_buffer"] = buffer.offset
    layout["writer_buffer_pointer"] = int(types.kind(buffer.type) == POINTER)
    names: Sequence[tuple[str, str]] = (("offset", "offset"), ("batch", "batchSize"), ("error", "err"))
    for name, own in names:
        layout[f"writer_{name}"] = types.field(writer, own).offset
