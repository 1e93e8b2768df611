"""HTTP/2 of net/http and of golang.org/x/net/http2, as the callee of tests/go/http2cases saw it.

Where the kernel lets headers be written (tests/vm runs these there too), the callee is the witness of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pytraceprop
from tests.bpf.conftest import Cases, Traced
from tests.skips import require
from tools import golang

SOURCES = Path(__file__).resolve().parent.parent / "go" / "http2cases"
OWN = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
INCOMING = "00-aaaabbbbccccddddeeeeffff00001111-1234567812345678-01"

#: Go releases (before and after ClientConn.roundTrip came, with net/http's bundle, and without), each with
#: another golang.org/x/net: old ones, and one that is a wrapper of net/http from Go 1.27 on.
PROGRAMS = (
    ("1.19", "versions/xnet-0.17.0.mod"),
    ("1.21", "go.mod"),
    ("1.24", "go.mod"),
    ("1.26", "versions/xnet-0.60.0.mod"),
    ("1.27", "go.mod"),
    ("1.27", "versions/xnet-0.60.0.mod"),
)
SPELLINGS = ("call", "xnet")


class Http2(Traced):
    """The program, attached to; its calls are made with one of its two implementations."""

    def __init__(self, go: str, traced: Traced, spelling: str) -> None:
        super().__init__(traced.cases, traced.tracer, traced.attachment)
        self.go = tuple(int(part) for part in go.split("."))
        self.spelling = spelling

    @property
    def injects(self) -> bool:
        return self.attachment.propagation["http/2"].method is not None

    def call(self, kind: str, n: int = 0, headers: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """What the callers saw."""
        answer: list[dict[str, Any]] = self.cases.get(f"/{self.spelling}/{kind}?n={n}", headers)
        return answer

    def sides(self, count: int) -> tuple[pytraceprop.Span, list[pytraceprop.Span], list[pytraceprop.Span]]:
        """The request that was driven; the calls it made; those as they were served. All are checked."""
        outer, *others = self.spans(count)
        clients = [span for span in others if span.kind == "client"]
        servers = [span for span in others if span.kind == "server"]
        assert outer.protocol == "http/1.1"
        assert {span.protocol for span in others} == {"http/2"}
        assert {span.trace_id for span in clients if span.header != "application"} <= {outer.trace_id}
        assert len({span.span_id for span in others}) == len(others)
        return outer, clients, servers

    def check_headers(
        self,
        seen: list[dict[str, Any]],
        clients: list[pytraceprop.Span],
        servers: list[pytraceprop.Span],
        missing: int = 0,
    ) -> None:
        """Each callee got the header of its own call, or (so many of them) none."""
        assert {one["proto"] for one in seen} == {"HTTP/2.0"}
        got = [one["traceparent"] for one in seen if one["traceparent"]]
        if not self.injects:
            assert got == []
            assert {span.header for span in clients} == {"none"}
            return
        assert len(got) == len(seen) - missing
        injected = {span.trace_context.traceparent: span for span in clients if span.header == "injected"}
        assert sorted(map(str, got)) == sorted(str([value]) for value in injected)
        assert len(clients) - len(injected) == missing
        parents = {span.span_id: span for span in injected.values()}
        served = [span for span in servers if span.parent_span_id is not None]
        assert sorted(parents) == sorted(str(span.parent_span_id) for span in served)
        for span in served:
            client = parents[str(span.parent_span_id)]
            assert (span.trace_id, span.path, span.parent_remote) == (client.trace_id, client.path, True)
            if span.local is not None:  # h2c of golang.org/x/net wraps the connection
                assert (client.peer, client.local) == (span.local, span.peer)


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda program: f"{program[0]}-{program[1][9:-4]}")
def program(request: pytest.FixtureRequest) -> Iterator[tuple[str, Traced]]:
    require("needs root")
    go, modfile = request.param
    cases = Cases(program=golang.build(SOURCES, go, modfile=modfile))
    try:
        with pytraceprop.Tracer() as tracer:
            yield go, Traced(cases, tracer, tracer.attach(cases.pid))
    finally:
        cases.stop()


@pytest.fixture(params=SPELLINGS)
def http2(request: pytest.FixtureRequest, program: tuple[str, Traced]) -> Http2:
    go, traced = program
    list(traced.tracer.spans(timeout=0.05))
    return Http2(go, traced, request.param)


def test_both_sides_are_traced(http2: Http2) -> None:
    protocol = http2.attachment.protocols["http/2"]
    assert (protocol.client, protocol.server, protocol.reason) == (True, True, "")


@pytest.mark.parametrize("kind", ["plain", "nocontext", "post", "trailer"])
def test_a_call_is_the_child_of_the_request_that_makes_it(http2: Http2, kind: str) -> None:
    for _ in range(3):  # the first may have to connect
        seen = http2.call(kind, headers={"traceparent": INCOMING})
        outer, clients, servers = http2.sides(3)
        assert outer.trace_context.traceparent.split("-")[1] == INCOMING.split("-")[1]
        http2.check_headers(seen, clients, servers)
        (client,), (server,) = clients, servers
        assert client.parent_span_id == outer.span_id
        assert (client.path, client.status, client.error) == (f"/echo/{kind}", 200, None)
        assert (server.path, server.status, server.error) == (f"/echo/{kind}", 200, None)
        assert client.host == server.host == client.peer == server.local
        assert client.method == server.method == ("POST" if kind in ("post", "trailer") else "GET")
        assert client.start_ns < server.start_ns < server.end_ns
        assert server.route in ("", "/echo/")
        if http2.go in ((1, 24), (1, 26)):  # before, no Request.Pattern; after, not in the request of http2
            assert server.route == "/echo/"
    assert "http2_client_untraced" not in http2.counted()


def test_a_call_without_a_trace_begins_one(http2: Http2) -> None:
    seen = http2.call("detached")
    outer, client, server = http2.spans(3)
    assert client.parent_span_id is None
    assert client.trace_id != outer.trace_id
    http2.check_headers(seen, [client], [server])


def test_every_request_of_a_new_connection_has_the_header_from_the_first_on(http2: Http2) -> None:
    seen = http2.call("fresh", 12)
    _, clients, servers = http2.sides(25)
    http2.check_headers(seen, clients, servers)
    assert [one["id"] for one in seen] == [str(i) for i in range(12)]


@pytest.mark.parametrize("size", [20, 60, 100, 200, 400, 800, 1600, 3000])
def test_headers_of_any_usual_size_leave_room(http2: Http2, size: int) -> None:
    seen = http2.call("sized", size)
    _, clients, servers = http2.sides(5)
    http2.check_headers(seen, clients, servers)


@pytest.mark.parametrize("kind", ["many", "connections"])
def test_calls_at_once_have_their_own_headers(http2: Http2, kind: str) -> None:
    seen = http2.call(kind, 40)
    outer, clients, servers = http2.sides(81)
    http2.check_headers(seen, clients, servers)
    assert [one["id"] for one in seen] == [str(i) for i in range(40)]
    assert {span.parent_span_id for span in clients} == {outer.span_id}
    if http2.injects:
        paths = {span.trace_context.traceparent: span.path for span in clients}
        assert [paths[one["traceparent"][0]] for one in seen] == [f"/echo/{i}" for i in range(40)]


def test_a_header_of_the_application_is_used_wherever_it_is(http2: Http2) -> None:
    for number in (0, 5, 40):
        seen = http2.call("own", number)
        assert seen[0]["traceparent"] == [OWN]
        _, (client,), (server,) = http2.sides(3)
        assert (client.trace_context.traceparent, client.header) == (OWN, "application")
        assert (server.trace_id, server.parent_span_id) == (client.trace_id, client.span_id)


def test_an_invalid_header_of_the_application_is_left_alone(http2: Http2) -> None:
    seen = http2.call("invalidown")
    assert seen[0]["traceparent"] == ["nonsense"]
    _, (client,), (server,) = http2.sides(3)
    assert client.header == "application"
    assert server.parent_span_id is None
    counted = http2.counted()
    assert (counted["application_header_invalid"], counted["incoming_invalid"]) == (1, 1)


def test_a_header_that_is_passed_on_is_no_header_of_the_application(http2: Http2) -> None:
    seen = http2.call("forward", headers={"traceparent": INCOMING})
    assert seen[0]["traceparent"] == [INCOMING]
    outer, (client,), (server,) = http2.sides(3)
    assert (client.header, client.parent_span_id) == ("forwarded", outer.span_id)
    assert client.span_id != INCOMING.split("-")[2] == server.parent_span_id


def test_statuses_are_those_of_the_answers(http2: Http2) -> None:
    for kind, status in (("implicit", 200), ("missing", 404)):
        seen = http2.call(kind)
        _, (client,), (server,) = http2.sides(3)
        assert (seen[0]["status"], client.status, server.status) == (status, status, status)


def test_a_handler_that_panics_is_seen_on_both_sides(http2: Http2) -> None:
    assert "stream error" in http2.call("panic")[0]["error"]
    outer, (client,), (server,) = http2.sides(3)
    assert (client.error, client.status, client.parent_span_id) == ("call failed", 0, outer.span_id)
    assert (server.error, server.path) == ("panic", "/panic")


def test_a_call_given_up_is_a_failed_call(http2: Http2) -> None:
    assert "deadline" in http2.call("cancel")[0]["error"]
    outer, (client,), (server,) = http2.sides(3)
    assert (client.error, client.path, client.parent_span_id) == ("call failed", "/slow", outer.span_id)
    assert client.duration_ns >= 20_000_000  # of the 50 ms, some pass before the call
    assert server.path == "/slow"
    assert "abandoned" not in http2.counted()


def test_one_request_in_several_calls_at_once_never_has_a_wrong_header(http2: Http2) -> None:
    seen = http2.call("sharedrequest", 8)
    outer, clients, _ = http2.sides(17)
    values = [one["traceparent"] for one in seen if one["traceparent"]]
    spans = {span.trace_context.traceparent for span in clients if span.header == "injected"}
    assert all(len(value) == 1 for value in values)
    assert {value[0] for value in values} == spans
    assert len(values) == len(spans)
    assert {span.parent_span_id for span in clients} == {outer.span_id}
    counted = http2.counted()
    settled = ("injected", "not_injected_ambiguous", "not_injected_off", "not_injected_request_unknown")
    assert sum(counted.get(name, 0) for name in settled) == 8


def test_http2_without_tls_is_traced_alike(http2: Http2) -> None:
    if http2.spelling == "call" and http2.go < (1, 24):
        return  # net/http has none yet
    for _ in range(2):
        seen = http2.call("plaintext")
        outer, clients, servers = http2.sides(3)
        http2.check_headers(seen, clients, servers)
        assert clients[0].parent_span_id == outer.span_id


def test_a_request_tried_again_is_one_call(http2: Http2) -> None:
    if http2.spelling == "call":
        return  # only golang.org/x/net has the parts that such a server is made of
    for refusals in (1, 2):
        seen = http2.call("refused", refusals)
        outer, client = http2.spans(2)
        assert (seen[0]["status"], client.status, client.error) == (200, 200, None)
        assert (client.path, client.parent_span_id) == ("/echo/frames", outer.span_id)
        assert seen[0]["traceparent"] == ([client.trace_context.traceparent] if http2.injects else [])
    assert http2.counted()["call_retried"] == 3


@pytest.mark.parametrize("kind", ["goaway", "goawayconfigured"])
def test_a_request_tried_again_because_its_connection_was_closed_is_one_call(http2: Http2, kind: str) -> None:
    # "goawayconfigured": net/http's Transport, for /xnet with golang.org/x/net/http2 put into it
    seen = http2.call(kind, 6)
    outer, *clients = http2.spans(7)
    assert {one["status"] for one in seen} == {200}
    assert [(span.kind, span.status, span.error) for span in clients] == [("client", 200, None)] * 6
    assert [span.path for span in clients] == [f"/echo/{i}" for i in range(6)]
    assert {span.parent_span_id for span in clients} == {outer.span_id}
    assert {span.protocol for span in clients} == {"http/2"}
    headers = [[span.trace_context.traceparent] if http2.injects else [] for span in clients]
    assert [one["traceparent"] for one in seen] == headers
    counted = http2.counted()
    assert 6 <= counted["call_retried"] <= 11  # net/http may find the closed connection once more
    assert "abandoned" not in counted


@pytest.mark.parametrize(("kind", "reason"), [("goawayproxy", "no proxy"), ("goawaybody", "no body")])
def test_a_request_tried_again_in_vain_is_one_failed_call(http2: Http2, kind: str, reason: str) -> None:
    seen = http2.call(kind)
    outer, first, second = http2.spans(3)
    assert (seen[0]["status"], first.status, first.error) == (200, 200, None)
    assert reason in seen[1]["error"]
    assert (second.path, second.status, second.error) == ("/echo/1", 0, "call failed")
    assert second.parent_span_id == outer.span_id
    assert "abandoned" not in http2.counted()


def test_calls_at_once_over_a_connection_that_is_closed_are_one_span_each(http2: Http2) -> None:
    seen = http2.call("goawaymany", 30)
    outer, *clients = http2.spans(31)
    by_path = {span.path: span for span in clients}
    assert sorted(by_path) == sorted(f"/echo/{i}" for i in range(30))
    assert {span.parent_span_id for span in clients} == {outer.span_id}
    for i, one in enumerate(seen):
        span = by_path[f"/echo/{i}"]
        assert (span.status, span.error) == (one["status"], "call failed" if one["error"] else None)
        if http2.injects and not one["error"]:
            assert one["traceparent"] == [span.trace_context.traceparent]
    assert "abandoned" not in http2.counted()


def test_frames_are_as_large_as_the_peer_allows_and_no_larger(http2: Http2) -> None:
    if http2.spelling == "call":
        return
    one_frame, two, three = range(16_120, 16_440, 20), range(32_500, 32_820, 20), (33_000, 48_000, 49_000)
    seen = {size: http2.call("frames", size)[0] for size in (*one_frame, *two, *three)}
    clients = [span for span in http2.spans(2 * len(seen)) if span.kind == "client"]
    assert {one["status"] for one in seen.values()} == {200}
    assert {span.status for span in clients} == {200}
    if not http2.injects:
        return
    assert all(len(one["traceparent"]) <= 1 for one in seen.values())
    without = [size for size, one in seen.items() if not one["traceparent"]]
    # Where a frame would be full with less than our 69 bytes more: of the first range once, and of the second.
    for sizes in (one_frame, two):
        full = [size for size in without if size in sizes]
        assert len(full) in (3, 4)
        assert full == list(range(full[0], full[-1] + 1, 20))
    counted = http2.counted()
    assert counted["not_injected_frame_limit"] == len(without) in (6, 7, 8)
    assert counted["injected"] == len(seen) - len(without)
    reasons = {name for name in counted if name.startswith("not_injected_")}
    assert reasons == {"not_injected_frame_limit"}


@pytest.mark.parametrize("size", [40_000, 100_000, 300_000])
def test_a_header_block_of_several_frames_has_our_header_in_the_last(http2: Http2, size: int) -> None:
    seen = http2.call("sized", size)
    _, clients, servers = http2.sides(5)
    http2.check_headers(seen, clients, servers)
    assert {span.status for span in clients} == {200}


def test_a_list_of_fields_is_as_large_as_the_peer_allows_and_no_larger(http2: Http2) -> None:
    http2.call("small")  # before, the client may not know the limit: 4416 bytes, of which names take some
    http2.sides(3)
    before = http2.counted()
    sizes = range(3000, 4400, 100)
    seen = [http2.call("small", size)[0] for size in sizes]
    failed = [one for one in seen if one["error"]]  # by the client, which adds up what it knows of
    assert {one["status"] for one in seen if not one["error"]} == {200}  # and not 431
    list(http2.tracer.spans(timeout=0.3))
    assert 0 < len(failed) < len(seen)
    counted = http2.counted()
    reason = "not_injected_list_limit" if http2.injects else "not_injected_off"
    # Fields that the connection's table holds may be as large as that table: then nothing is added.
    injected = counted.get("injected", 0) - before.get("injected", 0)
    assert counted[reason] - before.get(reason, 0) + injected == len(seen) - len(failed)
    assert [one for one in seen if one["traceparent"]] == seen[:injected]


def test_thousands_of_calls_at_once_are_each_told_apart(http2: Http2) -> None:
    for _ in range(10):
        seen = http2.call("many", 200)
        outer, clients, servers = http2.sides(401)
        http2.check_headers(seen, clients, servers)
        assert {span.parent_span_id for span in clients} == {outer.span_id}
        assert {one["status"] for one in seen} == {200}
