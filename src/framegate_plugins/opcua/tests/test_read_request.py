"""Requests to read put together from items, against asyncua's encoder."""

from __future__ import annotations

from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import struct_to_binary

from framegate_plugins.opcua.read_request import ReadRequest, item
from framegate_plugins.opcua.tests.bridge_trial import ua


def test_request_is_what_asyncua_makes_of_the_same() -> None:
    asked = [
        (ua.NodeId(5, 1), AttributeIds.Value, None),
        (ua.NodeId("pump.speed", 3), AttributeIds.Value, "0:9"),
        (ua.NodeId(2259, 0), AttributeIds.BrowseName, None),
    ]
    ours = ReadRequest([item(*each) for each in asked])
    theirs = ua.ReadRequest(
        RequestHeader=ours.RequestHeader,
        Parameters=ua.ReadParameters(
            TimestampsToReturn=ua.TimestampsToReturn.Both,
            NodesToRead=[
                ua.ReadValueId(NodeId=node, AttributeId=attribute, IndexRange=part) for node, attribute, part in asked
            ],
        ),
    )
    ours.RequestHeader.RequestHandle = ua.UInt32(77)
    ours.RequestHeader.AuthenticationToken = ua.NodeId(b"token", 1, ua.NodeIdType.ByteString)
    assert ours.encode() == struct_to_binary(theirs)
