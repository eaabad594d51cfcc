"""Requests from bytes to records. Pure; what is not in REQUESTS is refused without a look at its body.

The least size of an element, that every array is held to, stands beside it. Source: OPC UA Part 4, 5 and 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from framegate.contract.errors import FrameBroken
from framegate_plugins.opcua.server import requests as r
from framegate_plugins.opcua.server.binary import Reader


def read_header(reader: Reader) -> r.RequestHeader:
    """Part 4, 7.28; the audit text and the additional header are passed over."""
    token = reader.node_id()
    reader.i64()
    handle = reader.u32()
    reader.u32()
    reader.octets()
    timeout = reader.u32()
    reader.extension()
    return r.RequestHeader(token, handle, timeout)


def read_open_secure_channel(reader: Reader) -> r.OpenSecureChannel:
    reader.u32()  # protocol version: that of Hello counts
    is_renewal = reader.u32() == 1
    mode = reader.u32()
    return r.OpenSecureChannel(is_renewal, mode, reader.octets() or b"", reader.u32())


def _get_endpoints(reader: Reader) -> r.GetEndpoints:
    url = reader.words()
    reader.many(reader.text, 4)
    reader.many(reader.text, 4)
    return r.GetEndpoints(url)


def _find_servers(reader: Reader) -> r.FindServers:
    url = reader.words()
    reader.many(reader.text, 4)
    return r.FindServers(url, reader.many(reader.words, 4))


def _create_session(reader: Reader) -> r.CreateSession:
    application_uri = reader.words()
    reader.octets()  # product
    reader.localized_text()
    reader.u32()
    reader.octets()
    reader.octets()
    reader.many(reader.text, 4)
    reader.octets()  # server URI
    return r.CreateSession(
        application_uri,
        reader.words(),
        reader.words(),
        reader.octets() or b"",
        reader.octets() or b"",
        reader.f64(),
        reader.u32(),
    )


def _activate_session(reader: Reader) -> r.ActivateSession:
    reader.octets()  # algorithm: that of the channel's policy
    signature = reader.octets() or b""
    reader.many(lambda: (reader.octets(), reader.octets()), 8)
    reader.many(reader.text, 4)
    token = reader.extension()
    reader.octets()
    reader.octets()
    return r.ActivateSession(signature, token)


def _close_session(reader: Reader) -> r.CloseSession:
    return r.CloseSession(reader.flag())


def _browse(reader: Reader) -> r.Browse:
    reader.node_id()  # views: there are none, so that the null view is the only one
    reader.i64()
    reader.u32()
    references_max = reader.u32()
    return r.Browse(references_max, reader.many(lambda: _browse_description(reader), 17))


def _browse_description(reader: Reader) -> r.BrowseDescription:
    return r.BrowseDescription(
        reader.node_id(), reader.u32(), reader.node_id(), reader.flag(), reader.u32(), reader.u32()
    )


def _browse_next(reader: Reader) -> r.BrowseNext:
    return r.BrowseNext(reader.flag(), reader.many(reader.octets, 4))


def _translate(reader: Reader) -> r.Translate:
    return r.Translate(reader.many(lambda: (reader.node_id(), reader.many(lambda: _path_element(reader), 10)), 6))


def _path_element(reader: Reader) -> r.PathElement:
    return r.PathElement(reader.node_id(), reader.flag(), reader.flag(), reader.qualified_name())


def _nodes(reader: Reader) -> r.Nodes:
    return r.Nodes(reader.many(reader.node_id, 2))


def _read_value_id(reader: Reader) -> r.ReadValueId:
    return r.ReadValueId(reader.node_id(), reader.u32(), reader.words(), reader.qualified_name())


def _read(reader: Reader) -> r.Read:
    reader.f64()  # MaxAge: what is shown is the newest there is
    return r.Read(reader.u32(), reader.many(lambda: _read_value_id(reader), 16))


def _write(reader: Reader) -> r.Write:
    return r.Write(
        reader.many(
            lambda: r.WriteValue(reader.node_id(), reader.u32(), reader.words(), reader.data_value()),
            11,
        )
    )


def _parameters(reader: Reader) -> r.MonitoringParameters:
    return r.MonitoringParameters(reader.u32(), reader.f64(), reader.extension(), reader.u32(), reader.flag())


def _create_items(reader: Reader) -> r.CreateMonitoredItems:
    return r.CreateMonitoredItems(
        reader.u32(),
        reader.u32(),
        reader.many(lambda: r.ItemToCreate(_read_value_id(reader), reader.u32(), _parameters(reader)), 40),
    )


def _modify_items(reader: Reader) -> r.ModifyMonitoredItems:
    return r.ModifyMonitoredItems(
        reader.u32(), reader.u32(), reader.many(lambda: (reader.u32(), _parameters(reader)), 24)
    )


def _set_monitoring_mode(reader: Reader) -> r.SetMonitoringMode:
    return r.SetMonitoringMode(reader.u32(), reader.u32(), reader.many(reader.u32, 4))


def _delete_items(reader: Reader) -> r.DeleteMonitoredItems:
    return r.DeleteMonitoredItems(reader.u32(), reader.many(reader.u32, 4))


def _create_subscription(reader: Reader) -> r.CreateSubscription:
    return r.CreateSubscription(0, reader.f64(), reader.u32(), reader.u32(), reader.u32(), reader.flag(), reader.u8())


def _modify_subscription(reader: Reader) -> r.CreateSubscription:
    subscription, publishing_ms = reader.u32(), reader.f64()
    return r.CreateSubscription(
        subscription, publishing_ms, reader.u32(), reader.u32(), reader.u32(), True, reader.u8()
    )


def _set_publishing_mode(reader: Reader) -> r.SetPublishingMode:
    return r.SetPublishingMode(reader.flag(), reader.many(reader.u32, 4))


def _publish(reader: Reader) -> r.Publish:
    return r.Publish(reader.many(lambda: (reader.u32(), reader.u32()), 8))


def _republish(reader: Reader) -> r.Republish:
    return r.Republish(reader.u32(), reader.u32())


def _transfer(reader: Reader) -> r.TransferSubscriptions:
    return r.TransferSubscriptions(reader.many(reader.u32, 4), reader.flag())


def _delete_subscriptions(reader: Reader) -> r.DeleteSubscriptions:
    return r.DeleteSubscriptions(reader.many(reader.u32, 4))


def _cancel(reader: Reader) -> r.Cancel:
    return r.Cancel(reader.u32())


REQUESTS: Final[dict[int, Callable[[Reader], tuple[object, ...]]]] = {
    r.FIND_SERVERS: _find_servers,
    r.GET_ENDPOINTS: _get_endpoints,
    r.CREATE_SESSION: _create_session,
    r.ACTIVATE_SESSION: _activate_session,
    r.CLOSE_SESSION: _close_session,
    r.CANCEL: _cancel,
    r.BROWSE: _browse,
    r.BROWSE_NEXT: _browse_next,
    r.TRANSLATE: _translate,
    r.REGISTER_NODES: _nodes,
    r.UNREGISTER_NODES: _nodes,
    r.READ: _read,
    r.WRITE: _write,
    r.CREATE_ITEMS: _create_items,
    r.MODIFY_ITEMS: _modify_items,
    r.SET_MONITORING_MODE: _set_monitoring_mode,
    r.DELETE_ITEMS: _delete_items,
    r.CREATE_SUBSCRIPTION: _create_subscription,
    r.MODIFY_SUBSCRIPTION: _modify_subscription,
    r.SET_PUBLISHING_MODE: _set_publishing_mode,
    r.PUBLISH: _publish,
    r.REPUBLISH: _republish,
    r.TRANSFER_SUBSCRIPTIONS: _transfer,
    r.DELETE_SUBSCRIPTIONS: _delete_subscriptions,
}
"""Encoding -> decoder of the body behind the header."""


def read_request(encoding: int, reader: Reader) -> tuple[object, ...]:
    """The body of a request.

    raises  FrameBroken E2770 - it is cut, or claims more than it holds; KeyError - it is not served
    """
    found = REQUESTS[encoding](reader)
    if reader.left:
        raise FrameBroken(f"OPC UA message: {reader.left} bytes follow a request that has ended", code="E2770")
    return found
