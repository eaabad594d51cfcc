"""Framings: golden frames, any chunking, resynchronisation, limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.errors import FrameBroken
from framegate.contract.law import law_text
from framegate_plugins.modbus.framing import FRAMINGS, GARBAGE_BYTES_MAX, Frame

CASES: list[dict[str, Any]] = json.loads(law_text("vectors/modbus/frames.json"))["cases"]
ANSWERS = [
    bytes.fromhex(text)
    for text in (
        "03 04 00010002",
        "01 01 05",
        "83 02",
        "10 0001 0002",
        "16 0004 00f2 0025",
        "17 02 abcd",
        "05 0001 ff00",
    )
]
REQUESTS = [
    bytes.fromhex(text)
    for text in (
        "03 0000 007d",
        "0f 0013 000a 02 cd01",
        "10 0001 0001 02 0003",
        "17 0003 0001 000e 0001 02 00ff",
        "16 0004 00f2 0025",
    )
]


def _wire(case: dict[str, Any]) -> bytes:
    return case["text"].encode() if "text" in case else bytes.fromhex(case["frame"])


@pytest.mark.parametrize("case", CASES, ids=[f"{c['framing']} {c['side']} {i}" for i, c in enumerate(CASES)])
def test_golden_frame_wraps_and_decodes(case: dict[str, Any]) -> None:
    framing = FRAMINGS[case["framing"]]
    pdu = bytes.fromhex(case["pdu"])
    assert framing.wrap(case["transaction"], case["unit"], pdu) == _wire(case)
    decoder = framing.answers() if case["side"] == "answer" else framing.requests()
    assert decoder.feed(_wire(case)) == [Frame(case["transaction"], case["unit"], pdu)]
    assert decoder.skipped == 0


@given(
    st.sampled_from(["tcp", "rtu", "ascii"]),
    st.lists(st.tuples(st.integers(1, 247), st.sampled_from(ANSWERS)), max_size=6),
    st.data(),
)
def test_answers_in_any_chunking_come_out_once_in_order(
    name: str, frames: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    framing = FRAMINGS[name]
    stream = b"".join(framing.wrap(7, unit, pdu) for unit, pdu in frames)
    decoder, seen = framing.answers(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        seen += decoder.feed(stream[:size])
        stream = stream[size:]
    assert [(frame.unit, frame.pdu) for frame in seen] == frames
    assert decoder.rest == b""


@pytest.mark.parametrize("name", ["tcp", "rtu", "ascii"])
@pytest.mark.parametrize("pdu", REQUESTS, ids=lambda pdu: pdu[:1].hex())
def test_request_byte_by_byte_comes_out_at_its_last_byte(name: str, pdu: bytes) -> None:
    decoder = FRAMINGS[name].requests()
    stream = FRAMINGS[name].wrap(1, 9, pdu)
    seen = [decoder.feed(stream[i : i + 1]) for i in range(len(stream))]
    assert [len(frames) for frames in seen] == [0] * (len(stream) - 1) + [1]
    assert seen[-1][0].pdu == pdu


@pytest.mark.parametrize("name", ["tcp", "rtu", "ascii"])
@pytest.mark.parametrize("junk", [b"\xff", b"\x01\x03\xfa", b"\x13\x37\xff\xff\xff\xff", b"\r\n\x7f"], ids=repr)
def test_garbage_before_an_answer_is_skipped(name: str, junk: bytes) -> None:
    framing = FRAMINGS[name]
    decoder = framing.answers()
    assert decoder.feed(junk + framing.wrap(3, 5, ANSWERS[0]))[-1:] == [Frame(3 if name == "tcp" else 0, 5, ANSWERS[0])]
    assert decoder.skipped > 0


@pytest.mark.parametrize("name", ["tcp", "rtu", "ascii"])
def test_flipped_bit_never_yields_the_frame(name: str) -> None:
    framing = FRAMINGS[name]
    good = framing.wrap(3, 5, ANSWERS[0])
    for position in range(len(good) if name != "tcp" else 0):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            if name == "ascii" and bytes(bad).upper() == good:
                continue  # only the case of a digit changed
            assert Frame(0, 5, ANSWERS[0]) not in framing.answers().feed(bytes(bad))


@pytest.mark.parametrize("name", ["tcp", "rtu", "ascii"])
def test_endless_garbage_is_given_up_within_bounds(name: str) -> None:
    decoder = FRAMINGS[name].answers()

    def flood() -> None:
        for _ in range(GARBAGE_BYTES_MAX):
            decoder.feed(b"\xfe\xfd\xfc\xfb")

    with pytest.raises(FrameBroken):
        flood()
    assert decoder.skipped <= 2 * GARBAGE_BYTES_MAX


@given(st.sampled_from(["tcp", "rtu", "ascii"]), st.binary(max_size=2000))
def test_arbitrary_bytes_hold_little_and_raise_only_frame_errors(name: str, junk: bytes) -> None:
    for decoder in (FRAMINGS[name].answers(), FRAMINGS[name].requests()):
        try:
            decoder.feed(junk)
        except FrameBroken:
            continue
        assert len(decoder.rest) <= 520


def test_oversized_length_is_no_header() -> None:
    decoder = FRAMINGS["tcp"].answers()
    good = FRAMINGS["tcp"].wrap(3, 5, ANSWERS[0])
    assert decoder.feed(bytes.fromhex("0002 0000 ffff 05 03") + good) == [Frame(3, 5, ANSWERS[0])]
