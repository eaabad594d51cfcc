"""The bridge as asyncua's client sees it: what it shows, what it tells of, what becomes of writes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from asyncua.ua.ua_binary import struct_from_binary

from framegate.contract.bridge import BridgeContext, ServerTls
from framegate.contract.command import Outcome
from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.contract.frame import ValueType
from framegate.endpoint.clock import SystemClock
from framegate.testing.fakes import CollectingLog
from framegate_plugins.opcua.bridge import OpcUaBridge
from framegate_plugins.opcua.server.limits import ANSWER_BYTES_MAX
from framegate_plugins.opcua.tests.bridge_stage import NOW_NS, OPEN, batch, stage, tag, until
from framegate_plugins.opcua.tests.bridge_trial import TYPES, Client, batches_of, differences, make_wanted, ua

WANTED = 1_000


async def test_thousand_tags_of_every_type_differ_in_nothing(tmp_path: Path) -> None:
    wanted = make_wanted(WANTED)
    async with stage(tmp_path, [each.tag for each in wanted]) as place:
        place.bridge.update(batches_of(wanted))
        found = await differences(place.url, wanted, lambda: {each.tag: each.value for each in place.desk.sent})
    assert found == []
    assert {record.origin for record in place.desk.records.values()} == {"bridge:scada/"}


async def test_tag_never_read_waits_for_initial_data(tmp_path: Path) -> None:
    async with stage(tmp_path, [tag(1, "pump.flow")]) as place, Client(place.url) as client:
        value = await client.get_node("ns=2;s=pump.flow").read_data_value(raise_on_bad_status=False)
    assert (value.StatusCode.name, value.Value.Value, value.SourceTimestamp) == ("BadWaitingForInitialData", None, None)


async def test_write_only_tag_is_not_readable(tmp_path: Path) -> None:
    async with stage(tmp_path, [tag(1, "pump.start", access="W")]) as place, Client(place.url) as client:
        node = client.get_node("ns=2;s=pump.start")
        value = await node.read_data_value(raise_on_bad_status=False)
        await node.write_value(ua.Variant(1.0, ua.VariantType.Double))
    assert value.StatusCode.name == "BadNotReadable"
    assert [command.tag for command in place.desk.sent] == ["pump.start"]


async def test_paths_become_folders(tmp_path: Path) -> None:
    tags = [
        tag(1, "hall/pump7.speed"),
        tag(2, "level", device="plc1"),
        tag(3, "x.y", options={"path": "Area 1/Tank/Temperature"}),
    ]
    async with stage(tmp_path, tags) as place, Client(place.url) as client:
        paths = ["3:plant/3:hall/3:pump7/2:speed", "3:plant/3:plc1/2:level", "3:plant/3:Area 1/3:Tank/2:Temperature"]
        nodes = [await client.nodes.objects.get_child(path.split("/")) for path in paths]
        namespaces = await client.get_namespace_array()
    assert [node.nodeid.Identifier for node in nodes] == ["hall/pump7.speed", "level", "x.y"]
    assert namespaces[2] == "urn:framegate:plant"


async def test_properties_say_unit_span_and_texts(tmp_path: Path) -> None:
    tags = [
        tag(1, "a.pressure", unit="bar", span=(0.0, 16.0)),
        tag(2, "a.odd", unit="smoot"),
        tag(3, "a.mode", ValueType.STRING, texts=("off", "on")),
        tag(4, "a.state", ValueType.STRING, texts=("off", "on"), options={"enumeration": "number"}),
        tag(5, "a.name", ValueType.STRING, unit="bar"),
    ]
    async with stage(tmp_path, tags) as place, Client(place.url) as client:
        place.bridge.update([batch({3: "on", 4: "on"}, object)])
        found: dict[str, Any] = {}
        for each in tags:
            node = client.get_node(ua.NodeId(each.name, 2))
            values = {(await p.read_browse_name()).Name: await p.read_value() for p in await node.get_properties()}
            found[each.name] = ((await node.read_type_definition()).Identifier, values)
        state = await client.get_node("ns=2;s=a.state").read_data_value()
        await client.get_node("ns=2;s=a.state").write_value(ua.Variant(0, ua.VariantType.UInt32))
        refused = await client.uaclient.write(_write("a.state", ua.Variant(2, ua.VariantType.UInt32)))
    unit = found["a.pressure"][1]["EngineeringUnits"]
    assert (unit.UnitId, unit.DisplayName.Text) == (4_342_098, "bar")  # "BAR", as UNECE codes are counted
    assert found["a.pressure"][1]["EURange"] == ua.Range(Low=0.0, High=16.0)
    assert found["a.odd"][1]["EngineeringUnits"].UnitId == -1
    assert [text.Text for text in found["a.mode"][1]["EnumStrings"]] == ["off", "on"]
    assert [found[each.name][0] for each in tags] == [2368, 17497, 63, 2376, 63]
    assert state.Value == ua.Variant(1, ua.VariantType.UInt32)
    assert [command.value for command in place.desk.sent] == ["off"]
    assert refused[0].name == "BadOutOfRange"


async def test_outcomes_become_statuses(tmp_path: Path) -> None:
    cases = {
        (Outcome.CONFIRMED, ""): "Good",
        (Outcome.REJECTED, "E1195"): "BadOutOfRange",
        (Outcome.REJECTED, "E4205"): "BadUserAccessDenied",
        (Outcome.REJECTED, "E4206"): "BadInvalidState",
        (Outcome.REJECTED, "E4209"): "BadTooManyOperations",
        (Outcome.REJECTED, "E4211"): "BadDeviceFailure",
        (Outcome.NOT_SENT, "E4213"): "BadNotConnected",
        (Outcome.NOT_SENT, "E2600"): "BadTimeout",
        (Outcome.UNKNOWN, "E4212"): "Uncertain",
    }
    tags = [tag(number, f"t.v{number}") for number in range(len(cases))]
    async with stage(tmp_path, tags) as place, Client(place.url) as client:
        for each, (outcome, code) in zip(tags, cases, strict=True):
            place.desk.outcomes[each.name] = (outcome, code, "")
        params = ua.WriteParameters()
        for each in tags:
            params.NodesToWrite += _write(each.name, ua.Variant(1.0, ua.VariantType.Double)).NodesToWrite
        results = await client.uaclient.write(params)
    assert [result.name for result in results] == list(cases.values())


async def test_write_that_fits_nothing_is_refused_without_a_command(tmp_path: Path) -> None:
    double = ua.VariantType.Double
    cases = [
        (_write("t.v", ua.Variant(1, ua.VariantType.Int32)), "BadTypeMismatch"),
        (_write("t.v", ua.Variant([1.0], double)), "BadTypeMismatch"),
        (_write("t.none", ua.Variant(1.0, double)), "BadNodeIdUnknown"),
        (_write("t.read", ua.Variant(1.0, double)), "BadNotWritable"),
        (_write("t.v", ua.Variant("x", ua.VariantType.String), ua.AttributeIds.DisplayName), "BadNotWritable"),
        (_write("t.v", ua.Variant(1.0, double), index_range="0"), "BadIndexRangeInvalid"),
    ]
    async with stage(tmp_path, [tag(1, "t.v"), tag(2, "t.read", access="R")]) as place, Client(place.url) as client:
        found = [(await client.uaclient.write(params))[0].name for params, _ in cases]
    assert found == [name for _, name in cases]
    assert place.desk.records == {}


async def test_waiting_write_blocks_neither_its_own_session_nor_others(tmp_path: Path) -> None:
    async with stage(tmp_path, [tag(1, "t.slow"), tag(2, "t.quick")]) as place:
        place.desk.held.add("t.slow")
        place.bridge.update([batch({1: 5.0, 2: 6.0})])
        async with Client(place.url) as client, Client(place.url) as other:
            slow = asyncio.create_task(client.uaclient.write(_write("t.slow", ua.Variant(9.0, ua.VariantType.Double))))
            await place.desk.waiting(1)
            assert await client.get_node("ns=2;s=t.quick").read_value() == 6.0
            assert await other.get_node("ns=2;s=t.slow").read_value() == 5.0  # not yet what is being written
            await client.get_node("ns=2;s=t.quick").write_value(7.0)
            assert not slow.done()
            await place.desk.release("t.slow")
            assert (await slow)[0].is_good()


async def test_write_without_outcome_in_time_is_uncertain(tmp_path: Path) -> None:
    async with stage(tmp_path, [tag(1, "t.slow")], {**OPEN, "write_timeout": "100ms"}) as place:
        place.desk.held.add("t.slow")
        async with Client(place.url) as client:
            results = await client.uaclient.write(_write("t.slow", ua.Variant(9.0, ua.VariantType.Double)))
    assert results[0].name == "Uncertain"


async def test_subscription_tells_each_change_once_in_order(tmp_path: Path) -> None:
    got: list[tuple[float, str]] = []

    class Taker:
        def datachange_notification(self, _node: Any, value: float, data: Any) -> None:
            got.append((value, data.monitored_item.Value.StatusCode.name))

    async with stage(tmp_path, [tag(1, "t.v")]) as place, Client(place.url) as client:
        place.bridge.update([batch({1: 0.0})])
        subscription = await client.create_subscription(50, Taker())
        await subscription.subscribe_data_change(client.get_node("ns=2;s=t.v"), queuesize=100, sampling_interval=0)
        await until(lambda: len(got) == 1)
        for value in (1.0, 1.0, 2.0, 3.0):
            place.bridge.update([batch({1: value})])
        place.bridge.update([batch({1: 3.0}, status=0x4090_0000)])
        await until(lambda: len(got) == 5)
        place.bridge.update([batch({1: 4.0}, source_ns=NOW_NS + 100)])
        await until(lambda: len(got) == 6)
    assert [value for value, _ in got] == [0.0, 1.0, 2.0, 3.0, 3.0, 4.0]
    assert [status for _, status in got] == ["Good"] * 4 + ["UncertainLastUsableValue", "Good"]


async def test_every_change_of_tags_of_every_type_is_told_in_order(tmp_path: Path) -> None:
    wanted = make_wanted(20 * len(TYPES))
    rounds = [[each._replace(value=(each.value, each.written)[turn % 2]) for each in wanted] for turn in range(6)]
    got: dict[str, list[Any]] = {}

    class Taker:
        def datachange_notification(self, node: Any, value: Any, _data: Any) -> None:
            got.setdefault(node.nodeid.Identifier, []).append(value)

    async with stage(tmp_path, [each.tag for each in wanted]) as place, Client(place.url) as client:
        place.bridge.update(batches_of(rounds[0]))
        subscription = await client.create_subscription(50, Taker(), queue_maxsize=100_000)
        nodes = [client.get_node(ua.NodeId(each.tag.name, 2)) for each in wanted]
        await subscription.subscribe_data_change(nodes, queuesize=10, sampling_interval=0)
        for rows in rounds[1:]:
            place.bridge.update(batches_of(rows))
        good = {each.tag.name for each in wanted if not each.status & 0x8000_0000 and each.value != each.written}
        await until(lambda: all(len(got.get(name, ())) == len(rounds) for name in good))
    values = {each.tag.name: [each.value, each.written] * 3 for each in wanted}
    assert {name: got[name] for name in good} == {name: values[name] for name in good}
    assert len(good) > len(wanted) // 2


async def test_bridge_names_every_tag_that_has_no_place() -> None:
    tags = [tag(1, "a.b"), tag(2, "a/b"), tag(3, "c.d", options={"path": "/"}), tag(4, "e.f")]
    with pytest.raises(Misconfigured) as caught:
        OpcUaBridge(OPEN).check(tags)
    assert [(problem.tag, problem.key, problem.code) for problem in caught.value.tag_problems] == [
        ("a/b", "path", "E2761"),
        ("c.d", "path", "E2761"),
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "users"),
        ({"anonymous": "admin"}, "anonymous"),
        ({"anonymous": "viewer", "security": []}, "security"),
        ({"anonymous": "viewer", "security": ["basic128"]}, "security"),
        ({"users": [{"name": "a"}]}, "users"),
        ({"users": [{"name": "a", "password": "x"}] * 2}, "users"),
        ({"users": [{"name": "a", "password": "x", "tags": "*"}]}, "users"),
        ({"anonymous": "viewer", "clients_max": 0}, "clients_max"),
        ({"anonymous": "viewer", "sekurity": []}, "sekurity"),
    ],
)
def test_wrong_option_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        OpcUaBridge(options)
    assert [problem.path for problem in caught.value.problems] == [("options", named)]
    assert caught.value.stable_code == "E2760"


async def test_address_that_is_taken_is_named(tmp_path: Path) -> None:
    async with stage(tmp_path, []) as place:
        url, home = f"tcp://127.0.0.1:{place.bridge.port}", tmp_path / "two"
        context = BridgeContext("two", "plant", url, None, tmp_path, home, [], SystemClock(), CollectingLog())
        with pytest.raises(Misconfigured, match="E2762"):
            await OpcUaBridge(OPEN).open(context)


def _write(name: str, value: Any, attribute: int = ua.AttributeIds.Value, index_range: str | None = None) -> Any:
    return ua.WriteParameters(
        NodesToWrite=[ua.WriteValue(ua.NodeId(name, 2), attribute, index_range, ua.DataValue(value))]
    )


async def test_large_folder_comes_in_pages(tmp_path: Path) -> None:
    tags = [tag(number, f"hall.t{number}") for number in range(2_500)]
    async with stage(tmp_path, tags) as place, Client(place.url) as client:
        wanted = ua.BrowseDescription(NodeId=ua.NodeId("/hall", 3), ReferenceTypeId=ua.NodeId(35), ResultMask=63)
        params = ua.BrowseParameters(RequestedMaxReferencesPerNode=400, NodesToBrowse=[wanted])
        [result] = await client.uaclient.browse(params)
        sizes, names = [len(result.References)], [each.BrowseName.Name for each in result.References]
        while result.ContinuationPoint:
            following = ua.BrowseNextParameters(False, [result.ContinuationPoint])
            [result] = await client.uaclient.browse_next(following)
            sizes.append(len(result.References))
            names += [each.BrowseName.Name for each in result.References]
        again = await client.uaclient.browse_next(following)
    assert sizes == [400] * 6 + [100]
    assert names == [f"t{number}" for number in range(2_500)]
    assert again[0].StatusCode.name == "BadContinuationPointInvalid"


async def test_items_sample_no_faster_than_they_ask(tmp_path: Path) -> None:
    got: list[float] = []

    class Taker:
        def datachange_notification(self, _node: Any, value: float, _data: Any) -> None:
            got.append(value)

    async with stage(tmp_path, [tag(1, "t.v")]) as place, Client(place.url) as client:
        place.bridge.update([batch({1: 0.0})])
        subscription = await client.create_subscription(50, Taker())
        await subscription.subscribe_data_change(client.get_node("ns=2;s=t.v"), queuesize=100, sampling_interval=300)
        for value in (1.0, 2.0, 3.0):
            place.bridge.update([batch({1: value})])
        await until(lambda: len(got) == 2)
    assert got == [0.0, 3.0]


async def test_queue_that_overflows_says_so(tmp_path: Path) -> None:
    got: list[tuple[float, int]] = []

    class Taker:
        def datachange_notification(self, _node: Any, value: float, data: Any) -> None:
            got.append((value, data.monitored_item.Value.StatusCode.value))

    async with stage(tmp_path, [tag(1, "t.v")]) as place, Client(place.url) as client:
        subscription = await client.create_subscription(50, Taker())
        await subscription.subscribe_data_change(client.get_node("ns=2;s=t.v"), queuesize=2, sampling_interval=0)
        await until(lambda: len(got) == 1)
        for value in (1.0, 2.0, 3.0, 4.0):
            place.bridge.update([batch({1: value})])
        await until(lambda: len(got) == 3)
    assert got[1:] == [(3.0, 0x480), (4.0, 0)]


async def test_session_and_its_subscription_outlive_the_connection(tmp_path: Path) -> None:
    async with stage(tmp_path, [tag(1, "t.v")]) as place:
        place.bridge.update([batch({1: 1.0})])
        client = await _connected(place.url)
        await client.create_session()
        await client.activate_session()
        subscription = await client.uaclient.create_subscription(
            ua.CreateSubscriptionParameters(50.0, 1_000, 10, 0, True, 0), print
        )
        item = ua.ReadValueId(NodeId=ua.NodeId("t.v", 2), AttributeId=ua.AttributeIds.Value)
        parameters = ua.MonitoringParameters(7, 0.0, None, 10, True)
        request = ua.MonitoredItemCreateRequest(item, ua.MonitoringMode.Reporting, parameters)
        await client.uaclient.create_monitored_items(
            ua.CreateMonitoredItemsParameters(subscription.SubscriptionId, ua.TimestampsToReturn.Both, [request])
        )
        token = client.uaclient.protocol.authentication_token
        client.uaclient.protocol.transport.abort()
        await until(lambda: place.bridge.health().clients == 0)
        place.bridge.update([batch({1: 2.0})])
        other = await _connected(place.url)
        other.uaclient.protocol.authentication_token = token
        await other.activate_session()
        values: list[float] = []
        while 2.0 not in values:
            data = await other.uaclient.protocol.send_request(ua.PublishRequest(), timeout=3)
            told = struct_from_binary(ua.PublishResponse, data).Parameters.NotificationMessage.NotificationData
            values += [each.Value.Value.Value for change in told for each in change.MonitoredItems]
        other.disconnect_socket()
    assert values[-1] == 2.0


async def _connected(url: str) -> Any:
    """A client with a channel and no session."""
    client = Client(url)
    await client.connect_socket()
    await client.send_hello()
    await client.open_secure_channel()
    return client


async def test_answer_that_a_client_does_not_take_is_a_fault(tmp_path: Path) -> None:
    got: list[str] = []

    class Taker:
        def datachange_notification(self, _node: Any, _value: Any, data: Any) -> None:
            got.append(data.monitored_item.Value.StatusCode.name)

    async with stage(tmp_path, [tag(1, "t.long", ValueType.STRING)]) as place, Client(place.url) as client:
        place.bridge.update([batch({1: "x" * (ANSWER_BYTES_MAX + 1)}, object)])
        with pytest.raises(ua.UaStatusCodeError) as caught:
            await client.get_node("ns=2;s=t.long").read_value()
        subscription = await client.create_subscription(50, Taker())
        await subscription.subscribe_data_change(client.get_node("ns=2;s=t.long"))
        await until(lambda: bool(got))
        place.bridge.update([batch({1: "x" * (ANSWER_BYTES_MAX // 2)}, object)])
        await until(lambda: len(got) == 2)
        read = ua.ReadValueId(NodeId=ua.NodeId("t.long", 2), AttributeId=ua.AttributeIds.Value)
        with pytest.raises(ua.UaStatusCodeError) as many:
            await client.uaclient.read(ua.ReadParameters(NodesToRead=[read] * 10_000))
    assert caught.value.code == many.value.code == ua.StatusCodes.BadResponseTooLarge
    assert got == ["BadEncodingLimitsExceeded", "Good"]


@pytest.mark.parametrize(
    ("url", "tls"), [("tcp://:4840", None), ("tcp://h:port", None), ("tcp://h:1", ServerTls("", ""))]
)
async def test_address_that_cannot_be_is_named(tmp_path: Path, url: str, tls: ServerTls | None) -> None:
    context = BridgeContext("two", "plant", url, tls, tmp_path, tmp_path, [], SystemClock(), CollectingLog())
    with pytest.raises(Misconfigured, match="E2762"):
        await OpcUaBridge(OPEN).open(context)


async def test_log_full_is_told_to_who_writes(tmp_path: Path) -> None:
    async with stage(tmp_path, [tag(1, "t.v")]) as place, Client(place.url) as client:
        place.desk.failure = StoreFailed("the log is full", code="E3011")
        results = await client.uaclient.write(_write("t.v", ua.Variant(1.0, ua.VariantType.Double)))
    assert results[0].name == "BadResourceUnavailable"
