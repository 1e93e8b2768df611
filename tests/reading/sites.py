"""Which functions probe sites lie in, by Go's names for them: what the truth is asked about."""

from __future__ import annotations

_SERVE = "net/http.(*conn).serve"
_ROUND_TRIP = "net/http.(*Transport).roundTrip"
_HTTP2 = ("net/http.(*http2", "net/http/internal/http2.(*", "golang.org/x/net/http2.(*")

_RUN_HANDLER = "serverConn).runHandler"
_ROUND_TRIP_OPT = tuple(f"Transport).{name}" for name in ("RoundTripOpt", "roundTripOpt", "roundTripViaPool"))
_HTTP2_SITES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "server_start": ((_RUN_HANDLER,), ()),
    "server_end": ((f"{_RUN_HANDLER}.func1", f"{_RUN_HANDLER}.func2"), ("responseWriter).handlerDone",)),
    "server_unwind": ((f"{_RUN_HANDLER}.func1", f"{_RUN_HANDLER}.func2"), ("runtime.gorecover",)),
    "client_start": (_ROUND_TRIP_OPT, ("ClientConn).RoundTrip", "ClientConn).roundTrip")),
    "client_write": (("ClientConn).writeHeaders",), ("Framer).WriteHeaders",)),
    "client_continue": (("Framer).WriteContinuation",), ("Framer).endWrite",)),
    "client_end": (_ROUND_TRIP_OPT, ()),
    "client_fail": (_ROUND_TRIP_OPT, ()),
}


def _http2_site(
    owners: tuple[str, ...], inside: tuple[str, ...], calls: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    full = [name for name in calls if name.startswith("runtime.")]
    return (
        tuple(owner + name for owner in owners for name in inside),
        (*full, *(owner + name for owner in owners for name in calls if name not in full)),
    )


_GRPC = "google.golang.org/grpc."
_TRANSPORT = "google.golang.org/grpc/internal/transport."
_SERVE_STREAMS = f"{_GRPC}(*Server).serveStreams.func"
_STREAM_SERVERS = (
    *(f"{_GRPC}(*Server).{name}" for name in ("serverWorker", "handleSingleStream")),
    *(f"{_SERVE_STREAMS}{i}{inner}" for i in range(1, 5) for inner in ("", ".1", ".2", ".3")),
)
_CLIENT_HEADERS = tuple(
    f"{_TRANSPORT}(*loopyWriter).{name}" for name in ("clientHeaderHandler", "originateStream")
)
_GRPC_SITES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "grpc_server_start": ((f"{_GRPC}(*Server).handleStream",), ()),
    "grpc_server_status": (
        tuple(
            f"{_TRANSPORT}(*{owner}).{name}"
            for owner in ("http2Server", "serverHandlerTransport")
            for name in ("writeStatus", "WriteStatus")
        ),
        (),
    ),
    "grpc_server_end": (
        tuple(name + part for name in _STREAM_SERVERS for part in ("", ".deferwrap1", ".1")),
        (),
    ),
    "grpc_client_start": ((f"{_GRPC}newClientStreamWithParams",), (f"{_GRPC}(*clientStream).withRetry",)),
    "grpc_client_fail": ((f"{_GRPC}newClientStreamWithParams",), ()),
    "grpc_client_headers": (_CLIENT_HEADERS, (f"{_TRANSPORT}(*loopyWriter).writeHeader",)),
    "grpc_client_written": (_CLIENT_HEADERS, ()),
    "grpc_client_end": ((f"{_GRPC}(*clientStream).finish",), ()),
}


#: In which functions a site may be, and which ones its instruction calls; none: it is no call.
SITES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "server_start": ((_SERVE,), ("net/http.serverHandler.ServeHTTP",)),
    "server_end": ((_SERVE,), ("net/http.(*conn).hijacked",)),
    "server_unwind": ((f"{_SERVE}.func1",), ("runtime.gorecover",)),
    "client_start": ((_ROUND_TRIP,), ("net/http.(*Transport).getConn",)),
    "client_write": (("net/http.(*Request).write",), ("net/http.Header.writeSubset",)),
    "client_end": ((_ROUND_TRIP,), ()),
    "client_fail": ((_ROUND_TRIP,), ()),
    "http2_client": (
        tuple(f"{owner}ClientConn).{name}" for owner in _HTTP2 for name in ("roundTrip", "RoundTrip")),
        ("runtime.newproc",),
    ),
    "http2_server": (
        tuple(f"{owner}serverConn).processHeaders" for owner in _HTTP2),
        tuple(f"{owner}serverConn).newWriterAndRequest" for owner in _HTTP2),
    ),
    **{f"http2_{name}": _http2_site(_HTTP2[:2], *where) for name, where in _HTTP2_SITES.items()},
    **{f"xnet_http2_{name}": _http2_site(_HTTP2[2:], *where) for name, where in _HTTP2_SITES.items()},
    **_GRPC_SITES,
}

#: All of these functions.
FUNCTIONS = tuple(sorted({name for inside, calls in SITES.values() for name in (*inside, *calls)}))
