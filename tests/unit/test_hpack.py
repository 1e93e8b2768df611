"""The header field of HTTP/2 that the programs add, and how large they take a list of fields to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytraceprop.native import ffi, lib

TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
SPAN = bytes.fromhex("00f067aa0ba902b7")
TABLE = 4096  # bytes of the encoder's table
OVERHEAD = 32  # RFC 9113, section 6.5.2
STATIC = 60  # bytes of the largest field of RFC 7541, appendix A

#: RFC 7541, appendix C.3 and C.4: the blocks of three requests, and the sizes of their lists.
EXAMPLES = [
    ("828684410f7777772e6578616d706c652e636f6d", 180),
    ("828684418cf1e3c2e5f23a6ba0ab90f4ff", 180),
    ("828684be58086e6f2d6361636865", 233),
    ("828684be5886a8eb10649cbf", 233),
    ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", 246),
    ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", 246),
]


def fits(block: bytes, limit: int, table: int = TABLE) -> bool:
    return bool(lib.core_list_fits(block, len(block), table, limit))


def integer(value: int, prefix: int, first: int) -> bytes:
    """RFC 7541, section 5.1."""
    mask = (1 << prefix) - 1
    if value < mask:
        return bytes([first | value])
    found, value = bytearray([first | mask]), value - mask
    while value >= 0x80:
        found.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*found, value])


def string(text: bytes, huffman: bool) -> bytes:
    """The text, or a code of so many bytes, which stands for up to eight fifths of that."""
    return integer(len(text), 7, 0x80 if huffman else 0) + text


def size_of(text: bytes, huffman: bool) -> int:
    return len(text) * 8 // 5 if huffman else len(text)


@st.composite
def fields(draw: st.DrawFn) -> tuple[bytes, int]:
    """One field as HPACK has it, and the most that it can count."""
    value, huffman = draw(st.binary(max_size=300)), draw(st.booleans())
    kind = draw(st.sampled_from(["static", "dynamic", "literal", "named"]))
    if kind == "static":
        return integer(draw(st.integers(1, 61)), 7, 0x80), STATIC
    if kind == "dynamic":
        return integer(draw(st.integers(62, 1000)), 7, 0x80), TABLE
    first, prefix = draw(st.sampled_from([(0x40, 6), (0x00, 4), (0x10, 4)]))
    if kind == "named":
        index = draw(st.integers(1, 300))
        name = 27 if index <= 61 else TABLE
        return integer(index, prefix, first) + string(value, huffman), name + size_of(
            value, huffman
        ) + OVERHEAD
    name_text = draw(st.binary(min_size=1, max_size=200))
    size = size_of(name_text, huffman) + size_of(value, huffman) + OVERHEAD
    return bytes([first]) + string(name_text, huffman) + string(value, huffman), size


def test_the_field_is_a_literal_that_no_table_keeps() -> None:
    field = ffi.new("uint8_t[72]")
    lib.core_format_hpack(TRACE, SPAN, 3, field)
    value = f"00-{TRACE.hex()}-{SPAN.hex()}-03".encode()
    assert bytes(field[0:69]) == b"\x00" + string(b"traceparent", False) + string(value, False)
    assert bytes(field[69:72]) == bytes(3)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 255))
def test_every_id_is_written_in_lower_case_hexadecimal(trace: bytes, span: bytes, flags: int) -> None:
    field = ffi.new("uint8_t[72]")
    lib.core_format_hpack(trace, span, flags, field)
    assert bytes(field[14:69]) == f"00-{trace.hex()}-{span.hex()}-{flags:02x}".encode()


@pytest.mark.parametrize(("block", "size"), EXAMPLES)
def test_the_examples_of_the_rfc_fit_where_they_do(block: str, size: int) -> None:
    raw = bytes.fromhex(block)
    assert not fits(raw, size - 1)
    assert fits(raw, size + 3 * STATIC + 2 * TABLE)


@given(st.lists(fields(), min_size=1, max_size=120))
def test_a_list_is_never_said_to_fit_where_it_might_not(found: list[tuple[bytes, int]]) -> None:
    block = b"".join(raw for raw, _ in found)
    most = sum(size for _, size in found)
    assert not fits(block, most - 1) or len(block) <= (most - 1) // TABLE
    assert fits(block, most + 2 * len(found))  # the programs round up, for each string


@given(st.lists(fields(), min_size=1, max_size=20), st.data())
def test_a_block_that_is_cut_short_does_not_fit(found: list[tuple[bytes, int]], data: st.DataObject) -> None:
    block = b"".join(raw for raw, _ in found)
    ends = {len(b"".join(raw for raw, _ in found[:i])) for i in range(len(found) + 1)}
    cut = data.draw(st.integers(1, len(block)))
    if cut not in ends:
        limit = TABLE * cut - 1  # below what any block of this length can count
        assert not fits(block[:cut], limit)


@given(st.binary(max_size=400), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1))
def test_no_bytes_are_too_strange(block: bytes, limit: int, table: int) -> None:
    assert fits(block, limit, table) in (True, False)


def test_more_fields_than_are_looked_at_do_not_fit() -> None:
    assert fits(b"\x82" * 128, 128 * STATIC)
    assert not fits(b"\x82" * 129, 129 * STATIC)
    assert fits(b"\x82" * 129, 129 * TABLE)
