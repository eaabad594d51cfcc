"""The witness's account counts what it is meant to count: a check of the checker."""

from __future__ import annotations

import json

import zstandard

from framegate.contract._generated import frame_pb2
from framegate.contract.quality import Quality
from framegate.testing.account import Account, Frame, Notice


def batch(first: int, *values: int | None, tag: str = "t") -> bytes:
    frames = [{"tag": tag, "value": value, "ts": 1, "qos": 0 if value is not None else Quality.BAD} for value in values]
    return json.dumps({"gateway": "gw", "pos": first, "frames": frames}).encode()


def test_account_missing_position_is_lost() -> None:
    account = Account()
    account.take("x", batch(1, 10, 11))
    account.take("x", batch(5, 14))
    assert account.lost(5) == 2
    assert account.lost(7) == 4
    assert (account.messages, account.newest, account.topics) == (2, 5, {"x"})


def test_account_announced_position_is_not_lost() -> None:
    account = Account()
    account.take("x", batch(1, 10))
    account.take("x", b'{"gateway":"gw","gap":{"first":2,"last":4,"reason":"damage","detail":""},"ts":1}')
    account.take("x", batch(5, 14))
    assert account.lost(5) == 0
    assert account.notices == [Notice(2, 4, "damage")]


def test_account_same_frame_again_is_a_repeat() -> None:
    account = Account()
    account.take("x", batch(1, 10, 11))
    account.take("x", batch(2, 11, 12))
    assert (account.repeats, account.conflicts, account.out_of_order) == (1, 0, 0)
    assert [frame.value for frame in account.of("t")] == [10, 11, 12]


def test_account_other_frame_at_a_known_position_is_a_conflict() -> None:
    account = Account()
    account.take("x", batch(1, 10))
    account.take("x", batch(1, 99))
    assert account.conflicts == 1


def test_account_older_frame_seen_first_later_is_out_of_order() -> None:
    account = Account()
    account.take("x", batch(3, 10))
    account.take("x", batch(1, 8, tag="other"))
    account.take("x", batch(2, 9))
    assert account.out_of_order == 1
    assert account.last["t"].value == 10


def test_account_single_frames_carry_their_own_position() -> None:
    account = Account("json")
    account.take("x", b'{"tag":"t","value":true,"ts":5,"qos":0,"pos":7}')
    assert account.frames == {7: Frame(7, "t", value=True, time=5, quality=0)}


def test_account_protobuf_rows_follow_their_runs() -> None:
    message = frame_pb2.FrameBatch(gateway="gw", name=["a", "b", "a"], int_value=[1, 2, 3], ts=[9], qos=[0, 0, 1])
    message.run.add(pos=4, rows=1)
    message.run.add(pos=8, rows=2)
    account = Account("protobuf", "zstd")
    account.take("x", zstandard.ZstdCompressor().compress(message.SerializeToString()))
    assert list(account.frames.values()) == [Frame(4, "a", 1, 9, 0), Frame(8, "b", 2, 9, 0), Frame(9, "a", 3, 9, 1)]


def test_account_protobuf_text_and_bytes_are_read() -> None:
    message = frame_pb2.FrameBatch(gateway="gw", name=["a", "b"], ts=[9], qos=[0])
    message.run.add(pos=1, rows=2)
    message.other_value.add(text_value="Süd")
    message.other_value.add(bytes_value=b"\x00\xff")
    account = Account("protobuf")
    account.take("x", message.SerializeToString())
    assert [frame.value for frame in account.frames.values()] == ["Süd", "AP8="]
