"""Records of the core become spans, whatever bytes the traced program put into them."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytraceprop.context import TraceContext
from pytraceprop.native import ffi
from pytraceprop.span import RECORD_SIZE, Span, decode_records

TRACE, SPAN, PARENT = bytes(range(1, 17)), bytes(range(21, 29)), bytes(range(31, 39))
V4_IN_V6 = b"\0" * 10 + b"\xff\xff" + bytes([192, 0, 2, 7])


def record(**fields: Any) -> bytes:
    """A record as the BPF programs write it; texts get their lengths."""
    filled = {"trace_id": TRACE, "span_id": SPAN, "parent_span_id": PARENT, "kind": 1, "status": 200}
    filled |= {"start_ns": 1000, "end_ns": 3000, "incarnation": 5, "method": b"GET", "path": b"/order/1"}
    filled |= fields
    for name in ("method", "path", "host", "route"):
        if name in filled:
            filled[f"{name}_len"] = len(filled[name])
    one = ffi.new("struct span_record *")
    for name, value in filled.items():
        field = getattr(one, name)
        if isinstance(value, bytes):
            ffi.memmove(field, value, len(value))
        else:
            setattr(one, name, value)
    return bytes(ffi.buffer(one))


def decode(*records: bytes, offset: int = 0) -> list[Span]:
    return list(decode_records(b"".join(records), offset, {5: 4242, 6: 4343}.__getitem__))


def test_ids_times_and_process_are_taken_over() -> None:
    (span,) = decode(record(trace_flags=1, parent_remote=1, goid=99), offset=10**18)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (TRACE.hex(), SPAN.hex(), PARENT.hex())
    assert (span.start_ns, span.end_ns, span.duration_ns) == (10**18 + 1000, 10**18 + 3000, 2000)
    assert (span.pid, span.goroutine, span.parent_remote, span.kind) == (4242, 99, True, "server")


def test_a_span_without_parent_is_a_root() -> None:
    (span,) = decode(record(parent_span_id=bytes(8)))
    assert span.parent_span_id is None


@pytest.mark.parametrize(
    ("pattern", "route", "name"),
    [
        (b"GET /x/{id}", "/x/{id}", "GET /x/{id}"),
        (b"example.com/x", "/x", "GET /x"),
        (b"POST example.com/{$}", "/{$}", "GET /{$}"),
        (b"/", "/", "GET /"),
        (b"", "", "GET"),
        (b"nonsense", "", "GET"),
    ],
)
def test_the_route_is_the_path_of_the_pattern(pattern: bytes, route: str, name: str) -> None:
    (span,) = decode(record(route=pattern))
    assert (span.route, span.name) == (route, name)


@pytest.mark.parametrize(("method", "name"), [(b"BREW", "HTTP"), (b"get", "HTTP"), (b"QUERY", "QUERY")])
def test_only_known_methods_name_a_span(method: bytes, name: str) -> None:
    (span,) = decode(record(method=method))
    assert (span.method, span.name) == (method.decode(), name)


def test_an_empty_method_of_a_client_means_get() -> None:
    (span,) = decode(record(kind=2, method=b""))
    assert (span.kind, span.method) == ("client", "GET")


@pytest.mark.parametrize(
    ("ip", "length", "expected"),
    [
        (bytes([127, 0, 0, 1]), 4, "127.0.0.1:8080"),
        (V4_IN_V6, 16, "192.0.2.7:8080"),
        (socket.inet_pton(socket.AF_INET6, "2001:db8::1"), 16, "[2001:db8::1]:8080"),
        (b"", 0, None),
    ],
)
def test_addresses_are_written_as_usual(ip: bytes, length: int, expected: str | None) -> None:
    (span,) = decode(record(peer_ip=ip, peer_ip_len=length, peer_port=8080))
    assert (span.peer, span.local) == (expected, None)


@pytest.mark.parametrize(
    ("header", "word"), [(0, "none"), (1, "injected"), (2, "application"), (3, "forwarded")]
)
def test_the_outcome_of_the_header_is_a_word(header: int, word: str) -> None:
    assert [span.header for span in decode(record(header=header))] == [word]


@pytest.mark.parametrize(("error", "word"), [(0, None), (1, "call failed"), (2, "panic")])
def test_an_error_is_a_word(error: int, word: str | None) -> None:
    assert [span.error for span in decode(record(error=error))] == [word]


def test_several_records_keep_their_order_and_processes() -> None:
    spans = decode(record(status=201), record(status=202, incarnation=6))
    assert [(span.status, span.pid) for span in spans] == [(201, 4242), (202, 4343)]


@given(st.binary(max_size=192), st.binary(max_size=128), st.binary(max_size=16))
def test_no_bytes_of_a_program_can_break_a_span(path: bytes, route: bytes, method: bytes) -> None:
    (span,) = decode(record(path=path, route=route, method=method))
    assert json.loads(json.dumps(span.as_dict()))["path"] == span.path
    assert isinstance(span.name, str)


def test_the_opentelemetry_context_has_the_same_ids() -> None:
    (span,) = decode(record(trace_flags=1))
    assert span.trace_context == TraceContext(int(TRACE.hex(), 16), int(SPAN.hex(), 16), 1)
    assert span.context.trace_id == int(TRACE.hex(), 16)
    assert span.context.trace_flags.sampled


def test_a_span_cannot_be_changed() -> None:
    (span,) = decode(record())
    with pytest.raises(AttributeError):
        span.status = 500  # type: ignore[misc]


def test_python_and_c_agree_on_the_size_of_a_record() -> None:
    assert ffi.sizeof("struct span_record") == RECORD_SIZE == len(record())
    with pytest.raises(struct.error):
        decode(record()[:-1])


@pytest.mark.parametrize(("written", "expected"), [(0, False), (1, True)])
def test_a_shortened_text_is_told(written: int, expected: bool) -> None:
    (span,) = decode(record(truncated=written, path=b"/" + b"x" * 191))
    assert span.truncated is expected
    assert len(span.path) == 192


def test_a_text_cut_inside_a_character_is_still_a_text() -> None:
    whole = "/caf\u00e9".encode()
    (span,) = decode(record(path=whole[:-1], truncated=1))
    assert span.path == "/caf\ufffd"


def test_what_lies_behind_a_texts_length_is_not_read() -> None:
    spoilt = bytearray(record(path=b"/short"))
    one = ffi.from_buffer("struct span_record *", spoilt)
    ffi.memmove(one.path, b"/short-and-secret", 17)
    assert decode(bytes(spoilt))[0].path == "/short"


def test_peer_and_local_are_not_confused() -> None:
    ours, theirs = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    (span,) = decode(
        record(peer_ip=theirs, peer_ip_len=4, peer_port=1, local_ip=ours, local_ip_len=4, local_port=65535)
    )
    assert (span.peer, span.local) == ("10.0.0.2:1", "10.0.0.1:65535")


@given(st.binary(max_size=96), st.binary(min_size=16, max_size=16), st.integers(0, 255))
def test_no_host_or_address_can_break_a_span(host: bytes, ip: bytes, length: int) -> None:
    (span,) = decode(record(host=host, peer_ip=ip, peer_ip_len=length, local_ip=ip, local_ip_len=length))
    assert json.loads(json.dumps(span.as_dict()))["host"] == host.decode("utf-8", "replace")
    assert (span.peer is None) == (length not in (4, 16))


def test_a_dict_has_the_name_and_every_field() -> None:
    (span,) = decode(record(route=b"GET /order/{id}", goid=7, trace_flags=3))
    written = span.as_dict()
    assert written["name"] == "GET /order/{id}"
    assert {name: getattr(span, name) for name in written} == written
    assert set(written) == {"name", *(field for field in Span.__slots__ if field != "__weakref__")}


def grpc_record(**fields: Any) -> bytes:
    filled = {"protocol": 2, "method": b"", "path": b"/shop.v1.Orders/Get", "status": 0}
    return record(**{**filled, **fields})


def test_a_grpc_call_is_named_by_its_method_and_its_status_by_its_code() -> None:
    (span,) = decode(grpc_record(status=5, kind=2))
    assert (span.protocol, span.name, span.path) == ("grpc", "shop.v1.Orders/Get", "/shop.v1.Orders/Get")
    assert (span.method, span.status, span.status_name) == ("POST", 5, "NOT_FOUND")
    assert span.rpc_attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "shop.v1.Orders/Get",
        "rpc.response.status_code": "NOT_FOUND",
    }
    assert json.loads(json.dumps(span.as_dict()))["status_name"] == "NOT_FOUND"


def test_codes_that_grpc_does_not_have_are_shown_as_numbers() -> None:
    assert [s.status_name for s in decode(grpc_record(status=17), grpc_record(status=65535))] == [
        "CODE(17)",
        "CODE(65535)",
    ]


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({"status": 404}, False),
        ({"status": 503}, True),
        ({"status": 404, "kind": 2}, True),
        ({"status": 302, "kind": 2}, False),
        ({"status": 0, "kind": 2, "error": 1}, True),
        ({"protocol": 2, "status": 0}, False),
        ({"protocol": 2, "status": 5}, False),
        ({"protocol": 2, "status": 13}, True),
        ({"protocol": 2, "status": 5, "kind": 2}, True),
        ({"protocol": 2, "status": 0, "kind": 2}, False),
        ({"protocol": 2, "status": 14, "error": 1}, True),
    ],
)
def test_what_is_an_error_depends_on_the_side(fields: dict[str, int], failed: bool) -> None:
    (span,) = decode(record(**fields))
    assert span.failed == failed


def test_other_protocols_have_no_attributes_of_rpc() -> None:
    (span,) = decode(record())
    assert (span.rpc_attributes, span.status_name) == ({}, "200")
    assert "status_name" not in span.as_dict()
