"""Chunks and manifests: what goes in comes out, and what was touched on the way is refused."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.config.etcd.generation import (
    CHUNK_BYTES_MAX,
    GENERATION_MAX,
    Entry,
    Manifest,
    digest_of,
    manifest_text,
    number_from,
    pack,
    read_manifest,
    time_ns,
    time_text,
    unpack,
)
from framegate.config.schema import TABLES, Table
from framegate.contract.errors import Misconfigured

TEXTS: dict[Table, bytes] = {"endpoints": b"a", "drivers": b"", "variables": b"c" * 5_000}
NOISE = random.Random(1).randbytes(3 * CHUNK_BYTES_MAX)


def a_manifest() -> Manifest:
    entries = {table: pack(TEXTS[table]).entry for table in TABLES}
    return Manifest(7, "ann@box", "new pump", 1_700_000_000_123_000_000, entries)


@given(st.binary(max_size=4_096))
def test_pack_then_unpack_gives_the_text(text: bytes) -> None:
    packed = pack(text)
    assert packed.entry.chunks == len(packed.chunks) >= 1
    assert unpack(packed.entry, packed.chunks, "x") == text


def test_noise_is_cut_into_chunks_that_etcd_takes() -> None:
    packed = pack(NOISE)
    assert len(packed.chunks) == 4
    assert max(map(len, packed.chunks)) == CHUNK_BYTES_MAX
    assert unpack(packed.entry, packed.chunks, "x") == NOISE


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=300), st.data())
def test_any_changed_byte_is_refused_or_harmless(text: bytes, data: st.DataObject) -> None:
    packed = pack(text)
    at = data.draw(st.integers(0, len(packed.chunks[0]) - 1))
    other = data.draw(st.integers(1, 255))
    chunk = bytearray(packed.chunks[0])
    chunk[at] ^= other
    with contextlib.suppress(Misconfigured):
        assert unpack(packed.entry, [bytes(chunk)], "x") == text


@pytest.mark.parametrize(
    "chunks", [[], [b""], [b"junk"], pack(b"other").chunks, [pack(TEXTS["variables"]).chunks[0][:-3]]]
)
def test_missing_cut_or_foreign_chunks_are_refused(chunks: list[bytes]) -> None:
    with pytest.raises(Misconfigured, match=r"variables\.yml of generation 7 is damaged"):
        unpack(pack(TEXTS["variables"]).entry, chunks, "variables.yml of generation 7")


def test_bomb_is_not_unpacked_beyond_the_promised_size() -> None:
    bomb = zstandard.ZstdCompressor().compress(b"\0" * (256 << 20))
    assert len(bomb) < CHUNK_BYTES_MAX
    with pytest.raises(Misconfigured, match="has not the 10 bytes"):
        unpack(Entry("0" * 64, 10, 1), [bomb], "x")


def test_manifest_survives_its_text() -> None:
    manifest = a_manifest()
    assert read_manifest(manifest_text(manifest), 7, "x") == manifest
    assert manifest.sha256 == digest_of(TEXTS)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"generation": 8}, {"generation": "7"}, {"author": 1}, {"reason": None}, {"time": "yesterday"},
        {"time": 5}, {"tables": {}}, {"tables": []}, {"time": "2026-01-01T00:00:00"},
    ],
)  # fmt: skip
def test_manifest_with_wrong_content_is_refused(change: dict[str, Any]) -> None:
    raw = orjson.loads(manifest_text(a_manifest())) | change
    with pytest.raises(Misconfigured) as caught:
        read_manifest(orjson.dumps(raw), 7, "generation 7")
    assert caught.value.stable_code == "E1178"


@pytest.mark.parametrize(
    "entry",
    [
        {"bytes": -1}, {"bytes": 1 << 60}, {"bytes": True}, {"bytes": 1.5}, {"chunks": 0}, {"chunks": 10_000},
        {"sha256": "short"},
    ],
)  # fmt: skip
def test_manifest_with_wrong_entry_is_refused(entry: dict[str, Any]) -> None:
    raw = orjson.loads(manifest_text(a_manifest()))
    raw["tables"]["drivers"] |= entry
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_manifest(orjson.dumps(raw), 7, "generation 7")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_manifest(data: bytes) -> None:
    with pytest.raises(Misconfigured):
        read_manifest(data, 7, "x")


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b"7", 7), (b" 12\n", 12), (b"", None), (b"0", None), (b"-1", None), (b"7.0", None), (b"\xb2", None),
        (b"9" * 400, None), (str(GENERATION_MAX + 1).encode(), None), ("٣".encode(), None),
    ],
)  # fmt: skip
def test_head_is_a_decimal_number(data: bytes, number: int | None) -> None:
    assert number_from(data) == number


def test_time_goes_there_and_back() -> None:
    assert time_text(1_700_000_000_123_000_000) == "2023-11-14T22:13:20.123Z"
    assert time_ns("2023-11-14T22:13:20.123Z") == 1_700_000_000_123_000_000
