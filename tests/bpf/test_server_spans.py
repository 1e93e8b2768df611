"""Spans of the server side tell what happened, also when it was unusual."""

from __future__ import annotations

import contextlib
import http.client
import time

from tests.bpf.conftest import Traced


def test_a_span_tells_what_the_request_was(traced: Traced) -> None:
    before = time.time_ns()
    traced.cases.get("/echo/some/path?and=query")
    (span,) = traced.spans(1)
    assert (span.kind, span.method, span.path, span.route) == ("server", "GET", "/echo/some/path", "/echo/")
    assert span.name == "GET /echo/"
    assert (span.status, span.error, span.pid) == (200, None, traced.cases.pid)
    assert span.host == span.local == f"{traced.cases.host}:{traced.cases.port}"
    assert span.peer is not None and span.peer.startswith("127.0.0.1:")
    assert before < span.start_ns < span.end_ns < time.time_ns()
    assert not span.truncated


def test_a_long_path_is_cut_and_says_so(traced: Traced) -> None:
    traced.cases.get("/echo/" + "x" * 500)
    (span,) = traced.spans(1)
    assert span.path == ("/echo/" + "x" * 500)[:192]
    assert span.truncated


def test_a_handler_that_writes_nothing_has_status_200(traced: Traced) -> None:
    traced.cases.get("/implicit")
    assert [span.status for span in traced.spans(1)] == [200]


def test_the_status_of_an_error_is_reported(traced: Traced) -> None:
    connection = http.client.HTTPConnection(traced.cases.host, traced.cases.port, timeout=60)
    connection.request("DELETE", "/missing")
    assert connection.getresponse().status == 404
    connection.close()
    (span,) = traced.spans(1)
    assert (span.method, span.status, span.error) == ("DELETE", 404, None)


def test_a_handler_that_panics_ends_its_span_with_an_error(traced: Traced) -> None:
    traced.cases.raw(b"GET /panic HTTP/1.1\r\nHost: cases\r\n\r\n")
    (span,) = traced.spans(1)
    assert (span.error, span.path) == ("panic", "/panic")


def test_a_hijacked_connection_ends_its_span_without_status(traced: Traced) -> None:
    assert b"hello" in traced.cases.raw(b"GET /hijack HTTP/1.1\r\nHost: cases\r\n\r\n")
    (span,) = traced.spans(1)
    assert (span.status, span.error) == (0, None)


def test_requests_that_share_a_connection_each_have_a_span(traced: Traced) -> None:
    connection = http.client.HTTPConnection(traced.cases.host, traced.cases.port, timeout=60)
    for i in range(30):
        connection.request("GET", f"/echo/{i}")
        connection.getresponse().read()
    connection.close()
    spans = traced.spans(30)
    assert [span.path for span in spans] == [f"/echo/{i}" for i in range(30)]
    assert len({span.goroutine for span in spans}) == 1


def test_pipelined_requests_each_have_a_span(traced: Traced) -> None:
    one = b"GET /echo/pipelined HTTP/1.1\r\nHost: cases\r\n%s\r\n"
    traced.cases.raw(one % b"" * 9 + one % b"Connection: close\r\n")
    assert {span.status for span in traced.spans(10)} == {200}


def test_hostile_bytes_do_no_harm(traced: Traced) -> None:
    for junk in (b"\0" * 100, b"GET / HTTP/1.1\r\n\xff: \xfe\r\n\r\n", b"GET " + b"/" * 9000):
        with contextlib.suppress(OSError):
            traced.cases.raw(junk + b"\r\n\r\n")
    traced.cases.get("/echo/after")
    spans = traced.spans(1)
    assert spans[-1].path == "/echo/after"
