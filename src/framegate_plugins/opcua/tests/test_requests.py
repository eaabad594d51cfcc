"""Requests from bytes: what asyncua encodes is read alike; what is cut, random or claims too much is only refused."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import pytest
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.errors import FrameBroken
from framegate_plugins.opcua.server import requests as r
from framegate_plugins.opcua.server.binary import ELEMENTS_MAX, DataValue, NodeId, Reader, Variant
from framegate_plugins.opcua.server.decoding import REQUESTS, read_header, read_request
from framegate_plugins.opcua.tests.bridge_trial import ua

NODE = ua.NodeId("pump.speed", 2)
ALLOCATED_MAX = 16_000_000
"""Bytes that the decoding of 60 kB may take at its worst: some 200 for each element that is there."""


def _requests() -> dict[int, Any]:
    """One of each, as asyncua's client would send it."""
    both, reporting = ua.TimestampsToReturn.Both, ua.MonitoringMode.Reporting
    read = ua.ReadValueId(NodeId=NODE, AttributeId=ua.AttributeIds.Value)
    monitoring = ua.MonitoringParameters(ClientHandle=7, SamplingInterval=50.0, QueueSize=2, DiscardOldest=True)
    value = ua.DataValue(ua.Variant([1, 2], ua.VariantType.Int16), ua.StatusCode(0))
    element = ua.RelativePathElement(ua.NodeId(35), False, True, ua.QualifiedName("plant", 3))
    session = ua.CreateSessionParameters(SessionName="s", ClientNonce=b"n" * 32, RequestedSessionTimeout=1e4)
    path = ua.BrowsePath(ua.NodeId(85), ua.RelativePath([element]))
    return {
        r.FIND_SERVERS: ua.FindServersParameters("opc.tcp://a", ["en"], ["urn:a"]),
        r.GET_ENDPOINTS: ua.GetEndpointsParameters("opc.tcp://a", ["en"], ["x"]),
        r.CREATE_SESSION: session,
        r.ACTIVATE_SESSION: ua.ActivateSessionParameters(UserIdentityToken=ua.AnonymousIdentityToken("anonymous")),
        r.BROWSE: ua.BrowseParameters(NodesToBrowse=[ua.BrowseDescription(NodeId=NODE)]),
        r.BROWSE_NEXT: ua.BrowseNextParameters(False, [b"point"]),
        r.REGISTER_NODES: ua.RegisterNodesParameters([NODE, ua.NodeId(2258)]),
        r.READ: ua.ReadParameters(TimestampsToReturn=ua.TimestampsToReturn.Both, NodesToRead=[read, read]),
        r.WRITE: ua.WriteParameters([ua.WriteValue(NODE, ua.AttributeIds.Value, None, value)]),
        r.CREATE_ITEMS: ua.CreateMonitoredItemsParameters(
            1, both, [ua.MonitoredItemCreateRequest(read, reporting, monitoring)]
        ),
        r.CREATE_SUBSCRIPTION: ua.CreateSubscriptionParameters(100.0, 30, 10, 0, True, 1),
        r.PUBLISH: ua.PublishParameters([ua.SubscriptionAcknowledgement(1, 2)]),
        r.DELETE_ITEMS: ua.DeleteMonitoredItemsParameters(1, [2, 3]),
        r.TRANSLATE: ua.TranslateBrowsePathsToNodeIdsParameters([path]),
    }


ENCODED = {number: struct_to_binary(request) for number, request in _requests().items()}


def test_requests_of_asyncua_are_read_alike() -> None:
    found = {number: read_request(number, Reader(data)) for number, data in ENCODED.items()}
    node = NodeId(2, "pump.speed")
    wanted = r.ReadValueId(node, 13, "", (0, ""))
    assert found[r.READ] == r.Read(2, (wanted, wanted))
    assert found[r.WRITE] == r.Write((r.WriteValue(node, 13, "", DataValue(Variant(4, (1, 2), True))),))
    assert found[r.CREATE_SUBSCRIPTION] == r.CreateSubscription(0, 100.0, 30, 10, 0, True, 1)
    assert found[r.PUBLISH] == r.Publish(((1, 2),))
    assert found[r.TRANSLATE] == r.Translate(
        ((NodeId(0, 85), (r.PathElement(NodeId(0, 35), False, True, (3, "plant")),)),)
    )
    created = found[r.CREATE_SESSION]
    assert isinstance(created, r.CreateSession)
    assert (created.session_name, created.nonce, created.timeout_ms) == ("s", b"n" * 32, 1e4)


@pytest.mark.parametrize("number", ENCODED)
def test_request_cut_anywhere_is_refused(number: int) -> None:
    for size in range(len(ENCODED[number])):
        with pytest.raises(FrameBroken):
            read_request(number, Reader(ENCODED[number][:size]))


@given(st.sampled_from(sorted(REQUESTS)), st.binary(max_size=400))
@settings(max_examples=600, deadline=None)
def test_any_bytes_are_read_or_refused_and_nothing_else(number: int, data: bytes) -> None:
    for read in (lambda reader: read_request(number, reader), read_header):
        with contextlib.suppress(FrameBroken):
            read(Reader(data))


@given(st.sampled_from(sorted(ENCODED)), st.data())
@settings(max_examples=600, deadline=None)
def test_a_request_with_changed_bytes_is_read_or_refused(number: int, data: st.DataObject) -> None:
    changed = bytearray(ENCODED[number])
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FrameBroken):
        read_request(number, Reader(bytes(changed)))


@pytest.mark.parametrize(
    "value",
    [
        b"\x01\x80" + (285_000_000).to_bytes(4, "little"),  # an array of nothing, 285 million times
        b"\x01\x97" + (0x7FFF_FFFF).to_bytes(4, "little"),
        b"\x01\x98" + (60_000).to_bytes(4, "little") + b"\x00" * 60_000,
        b"\x01\x97" + (60_000).to_bytes(4, "little") + b"\x00" * 60_000,
        b"\x01\x96" + (20_000).to_bytes(4, "little") + b"\x00" * 60_000,
        b"\x01\x18" * 20_000 + b"\x00",  # a Variant in a Variant in a Variant
        b"\x01\x19" + b"\x40" * 60_000,  # the same with diagnostics
    ],
    ids=["nulls", "count", "variants", "data values", "extensions", "nested", "diagnostics"],
)
def test_what_a_value_claims_costs_no_more_than_what_it_is(value: bytes) -> None:
    node = b"\x03\x02\x00\x01\x00\x00\x00x" + (13).to_bytes(4, "little") + b"\xff\xff\xff\xff"
    tracemalloc.start()
    try:
        with pytest.raises(FrameBroken):
            read_request(r.WRITE, Reader((2).to_bytes(4, "little") + node + value))
        allocated = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert allocated < ALLOCATED_MAX


def test_elements_of_one_message_have_one_budget() -> None:
    half = ELEMENTS_MAX // 2 + 1
    one = b"\x01\x98" + half.to_bytes(4, "little") + b"\x00" * half
    node = b"\x00\x05" + (13).to_bytes(4, "little") + b"\xff\xff\xff\xff"
    read_request(r.WRITE, Reader((1).to_bytes(4, "little") + node + one))
    with pytest.raises(FrameBroken, match="elements"):
        read_request(r.WRITE, Reader((2).to_bytes(4, "little") + (node + one) * 2))
