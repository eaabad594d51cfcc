"""Rows of `command.ack` in protobuf, read back by the class that protoc made."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from framegate.command.ledger import acknowledgement as row_of
from framegate.contract._generated import frame_pb2
from framegate.contract.command import ACK_TAG, Command, CommandRecord, Outcome, Stage
from framegate.contract.frame import Batch, Placed, Position, Tag, TagId, ValueType, uniform_quality, uniform_time
from framegate.northbound.acknowledgement import acknowledgement
from framegate.northbound.encoder import make_encoder
from framegate.testing.fakes import AnyTag

ACK_ID = 2
TIME = 1_732_000_000_123_456_789


class WithAck(AnyTag):
    """A catalogue that has the tag of acknowledgements."""

    def find(self, name: str) -> Tag | None:
        return Tag(TagId(ACK_ID), name, "gateway", ValueType.STRING, "", "R") if name == ACK_TAG else None


def text_of(outcome: Outcome, code: str, reason: str) -> str:
    command = Command("c\u00e91", "pump7.speed", 42.5)
    return row_of(CommandRecord(command, "rest:anna", Stage.DISPATCHED, outcome, code, reason, 1, TIME))


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize(("code", "reason"), [("", ""), ("E4212", "tag pump7.speed: \u00fcber \U0001f525")])
def test_row_is_what_the_generated_class_writes(outcome: Outcome, code: str, reason: str) -> None:
    number = frame_pb2.Outcome.ValueType(outcome.value)
    expected = frame_pb2.CmdAckFrame(id="c\u00e91", tag="pump7.speed", outcome=number, ts=TIME, origin="rest:anna")
    expected.reason, expected.code = reason, code
    written = acknowledgement(text_of(outcome, code, reason))
    assert written == expected.SerializeToString(deterministic=True)


NOT_OURS: tuple[dict[str, object], ...] = (
    {"outcome": "perhaps"}, {"outcome": []}, {"id": None}, {"code": 7}, {"ts": "now"}, {"ts": 1.5},
)  # fmt: skip


@pytest.mark.parametrize("change", NOT_OURS)
def test_row_with_a_wrong_field_is_no_acknowledgement(change: dict[str, object]) -> None:
    row = orjson.loads(text_of(Outcome.CONFIRMED, "", ""))
    assert acknowledgement(orjson.dumps({**row, **change}).decode()) is None


@pytest.mark.parametrize("text", ["", "open", "[]", "7", "{}", None, 7, '{"id":1,"tag":"t"}', "\ud800"])
def test_text_of_something_else_is_no_acknowledgement(text: object) -> None:
    assert acknowledgement(text) is None


def test_encoder_writes_rows_of_the_tag_and_leaves_other_texts_alone() -> None:
    value = np.empty(3, np.object_)
    value[:] = ["open", text_of(Outcome.UNKNOWN, "E4212", "no answer"), "no row of ours"]
    batch = Batch(np.array([1, ACK_ID, ACK_ID], np.int32), value, uniform_quality(0), uniform_time(TIME), TIME)
    encoder = make_encoder("protobuf", tenant="t", gateway="gw", connector="c", template="x", catalogue=WithAck())
    (payload,) = encoder.encode([Placed(Position(5), batch)]).payload
    note, ack, other = frame_pb2.FrameBatch.FromString(payload).other_value
    assert (note.text_value, other.text_value) == ("open", "no row of ours")
    assert (ack.ack_value.id, ack.ack_value.outcome, ack.ack_value.code) == ("c\u00e91", 4, "E4212")
