"""The PDU codec against the specification's examples, and against everything else."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.errors import FrameBroken, FrameShort
from framegate.contract.law import law_text
from framegate_plugins.modbus.codec import (
    EXCEPTIONS,
    READS,
    ExceptionReply,
    Function,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_exception,
    encode_request,
    limit_of,
)

VECTORS: list[dict[str, Any]] = json.loads(law_text("vectors/modbus/pdu.json"))["cases"]


def _request_of(case: dict[str, Any]) -> Request:
    return Request(
        Function(case["function"]),
        case["address"],
        case["count"],
        bytes.fromhex(case.get("write", "")),
        case.get("write_address", 0),
    )


@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_request_of_the_specification_encodes_to_its_bytes(case: dict[str, Any]) -> None:
    wire = bytes.fromhex(case["request"])
    assert encode_request(_request_of(case)) == wire
    assert decode_request(wire) == _request_of(case)


@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_answer_of_the_specification_decodes_to_its_data(case: dict[str, Any]) -> None:
    request, wire = _request_of(case), bytes.fromhex(case["answer"])
    if "exception" in case:
        assert encode_exception(request.function, case["exception"]) == wire
        with pytest.raises(ExceptionReply) as caught:
            decode_answer(request, wire)
        assert caught.value.exception == case["exception"]
    else:
        assert decode_answer(request, wire).hex() == case["data"]
        assert encode_answer(request, bytes.fromhex(case["data"])) == wire


@st.composite
def requests(draw: st.DrawFn) -> Request:
    function = draw(st.sampled_from(Function))
    if function in {Function.WRITE_SINGLE_COIL, Function.WRITE_SINGLE_REGISTER, Function.MASK_WRITE_REGISTER}:
        size = 4 if function is Function.MASK_WRITE_REGISTER else 2
        data = draw(st.binary(min_size=size, max_size=size))
        if function is Function.WRITE_SINGLE_COIL:
            data = draw(st.sampled_from([b"\xff\0", b"\0\0"]))
        return Request(function, draw(st.integers(0, 65535)), 1, data)
    count = draw(st.integers(1, limit_of(function)))
    address = draw(st.integers(0, 65536 - count))
    if function is Function.READ_WRITE_REGISTERS:
        words = draw(st.integers(1, 121))
        data = draw(st.binary(min_size=2 * words, max_size=2 * words))
        return Request(function, address, count, data, draw(st.integers(0, 65536 - words)))
    size = {Function.WRITE_MULTIPLE_COILS: (count + 7) // 8, Function.WRITE_MULTIPLE_REGISTERS: 2 * count}.get(
        function, 0
    )
    return Request(function, address, count, draw(st.binary(min_size=size, max_size=size)))


@given(requests())
def test_request_round_trip_returns_the_request(request: Request) -> None:
    wire = encode_request(request)
    assert decode_request(wire) == request
    assert len(wire) <= 253


@given(requests(), st.data())
def test_answer_round_trip_returns_the_data(request: Request, data: st.DataObject) -> None:
    size = request.answer_bytes if request.function in READS else 0
    content = data.draw(st.binary(min_size=size, max_size=size))
    assert decode_answer(request, encode_answer(request, content)) == content


@given(requests())
def test_request_truncated_anywhere_is_short(request: Request) -> None:
    wire = encode_request(request)
    for size in range(len(wire)):
        with pytest.raises(FrameShort):
            decode_request(wire[:size])


@given(requests())
def test_answer_truncated_anywhere_is_short(request: Request) -> None:
    size = request.answer_bytes if request.function in READS else 0
    wire = encode_answer(request, bytes(size))
    for stop in range(len(wire)):
        with pytest.raises(FrameShort):
            decode_answer(request, wire[:stop])


@given(requests(), st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_frame_errors(request: Request, junk: bytes) -> None:
    with contextlib.suppress(FrameBroken):
        decode_request(junk)
    with contextlib.suppress(FrameBroken, ExceptionReply):
        decode_answer(request, junk)


def test_answer_with_other_byte_count_is_broken() -> None:
    with pytest.raises(FrameBroken, match="carries 4 data bytes, 6 were asked"):
        decode_answer(Request(Function.READ_HOLDING_REGISTERS, 0, 3), bytes.fromhex("03 04 00010002"))


def test_answer_to_a_write_with_other_value_is_broken() -> None:
    with pytest.raises(FrameBroken, match="does not repeat"):
        decode_answer(Request(Function.WRITE_SINGLE_REGISTER, 1, 1, b"\0\3"), bytes.fromhex("06 0001 0004"))


def test_exceptions_that_may_have_been_applied_say_so() -> None:
    uncertain = {code for code, meaning in EXCEPTIONS.items() if not meaning.surely_unapplied}
    assert uncertain == {4, 5, 8, 11}
    assert not ExceptionReply(6, 0x99).surely_unapplied
