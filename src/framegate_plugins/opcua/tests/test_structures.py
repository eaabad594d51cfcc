"""Structures: learnt from a server, read as mappings, written back; bytes that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.structures104 import new_struct, new_struct_field
from asyncua.server.server import Server
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.command import Outcome, Write
from framegate.contract.errors import FrameBroken
from framegate.contract.frame import TagId, Value
from framegate.testing.ports import free_port
from framegate_plugins.opcua.structures import Definition, Member
from framegate_plugins.opcua.tests.stage import Stage, tags, values_in
from framegate_plugins.opcua.wire import Reader

V = ua.VariantType
INNER = Definition(
    "Point", "ns=2;i=1", 0, [Member("X", V.Double.value, None, 0, False), Member("Y", 11, None, 0, False)]
)
OUTER = Definition(
    "Axis",
    "ns=2;i=2",
    1,
    [
        Member("Name", V.String.value, None, 0, False),
        Member("Limit", V.Int32.value, None, 0, True),
        Member("Points", 22, INNER, 1, False),
        Member("Counts", V.UInt16.value, None, 1, True),
    ],
)
UNION = Definition(
    "Either", "ns=2;i=3", 2, [Member("A", V.Int32.value, None, 0, False), Member("B", 12, None, 0, False)]
)
points = st.fixed_dictionaries({"X": st.floats(allow_nan=False), "Y": st.floats(allow_nan=False)})
axes = st.fixed_dictionaries(
    {"Name": st.text(st.characters(codec="utf-8"), max_size=4), "Points": st.lists(points, max_size=3)},
    optional={"Limit": st.integers(-5, 5), "Counts": st.lists(st.integers(0, 9), max_size=3)},
)


@given(axes)
def test_structure_comes_back(value: dict[str, Any]) -> None:
    body = OUTER.packed(value)
    reader = Reader(body)
    assert OUTER.unpack(reader, 0) == value
    assert reader.at == len(body)


@pytest.mark.parametrize("value", [{"A": 5}, {"B": "text"}])
def test_union_comes_back(value: dict[str, Value]) -> None:
    assert UNION.unpack(Reader(UNION.packed(value)), 0) == value
    assert UNION.unpack(Reader(bytes(4)), 0) == {}


@pytest.mark.parametrize(
    ("definition", "value", "words"),
    [
        (OUTER, {"Name": "a"}, "lacks Points"),
        (OUTER, {"Name": "a", "Points": [], "Other": 1}, "has no Other"),
        (OUTER, {"Name": 1, "Points": []}, "String wanted"),
        (OUTER, {"Name": "a", "Points": [1]}, "mapping is wanted"),
        (OUTER, {"Name": "a", "Points": {}}, "list of one dimension"),
        (UNION, {}, "exactly one"),
        (UNION, {"A": 1, "B": "x"}, "exactly one"),
    ],
)
def test_structure_that_does_not_fit_is_refused(definition: Definition, value: dict[str, Value], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        definition.packed(value)


@given(st.binary(max_size=64))
def test_arbitrary_bytes_raise_only_frame_errors(data: bytes) -> None:
    for definition in (INNER, OUTER, UNION):
        with contextlib.suppress(FrameBroken):
            definition.unpack(Reader(data), 0)


def test_structure_that_holds_itself_ends() -> None:
    loop = Definition("Loop", "i=1", 0)
    loop.members.append(Member("Loop", 22, loop, 0, False))
    with pytest.raises(FrameBroken, match="deeper"):
        loop.unpack(Reader(b""), 0)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = Server()
    await server.init()
    port = free_port()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace("http://structures")
    inner, _ = await new_struct(
        server, space, "JudgePoint", [new_struct_field("X", V.Double), new_struct_field("Y", V.Double)]
    )
    await new_struct(
        server,
        space,
        "JudgeAxis",
        [
            new_struct_field("Name", V.String),
            new_struct_field("Position", inner),
            new_struct_field("Counts", V.UInt16, array=True),
            new_struct_field("Limit", V.Float, optional=True),
        ],
    )
    made: Any = await server.load_data_type_definitions()
    value = made["JudgeAxis"](Name="a", Position=made["JudgePoint"](X=1.5, Y=2.5), Counts=[1, 2], Limit=None)
    node = await server.nodes.objects.add_variable(ua.NodeId(ua.String("axis"), ua.Int16(space)), "axis", value)
    await node.set_writable()
    async with server:
        yield f"tcp://127.0.0.1:{port}"
    await asyncio.sleep(0)


async def test_structure_of_a_server_is_read_watched_and_written(stage: Stage, url: str) -> None:
    driver = await stage.open(url)
    rows = tags("nsu=http://structures;s=axis json", "nsu=http://structures;s=axis float64 member=Position.Y")
    plan = await stage.follow(driver, rows)
    first = {"Name": "a", "Position": {"X": 1.5, "Y": 2.5}, "Counts": [1, 2]}
    assert values_in(await driver.read(plan)) == {0: first, 1: 2.5}
    second: dict[str, Value] = {"Name": "b", "Position": {"X": 3.0, "Y": 4.0}, "Counts": [], "Limit": 0.5}
    wrong: dict[str, Value] = {"Name": "b"}
    results = await driver.write([Write(TagId(0), second), Write(TagId(0), wrong), Write(TagId(1), 1.0)])
    assert [result.outcome for result in results] == [Outcome.CONFIRMED, Outcome.REJECTED, Outcome.REJECTED]
    assert "lacks Counts, Position" in results[1].reason or "lacks Position, Counts" in results[1].reason
    assert await stage.until(driver, plan, lambda found: found.get(1) == 4.0) == {0: second, 1: 4.0}
