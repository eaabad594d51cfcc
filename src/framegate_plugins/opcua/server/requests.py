"""Requests of OPC UA that this server answers, as records; decoding.py makes them.

Source: OPC UA Part 4, 5 and 7; the numbers are those of the Default Binary encodings in Part 6, annex A.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from framegate_plugins.opcua.server.binary import DataValue, Extension, NodeId


class RequestHeader(NamedTuple):
    """token: AuthenticationToken; timeout_ms 0: the client waits for ever."""

    token: NodeId
    handle: int
    timeout_ms: int


class OpenSecureChannel(NamedTuple):
    is_renewal: bool
    mode: int
    nonce: bytes
    lifetime_ms: int


class GetEndpoints(NamedTuple):
    endpoint_url: str


class FindServers(NamedTuple):
    endpoint_url: str
    server_uris: tuple[str, ...]


class CreateSession(NamedTuple):
    application_uri: str
    endpoint_url: str
    session_name: str
    nonce: bytes
    certificate: bytes
    timeout_ms: float
    response_bytes_max: int


class ActivateSession(NamedTuple):
    signature: bytes
    token: Extension


class CloseSession(NamedTuple):
    is_deleting: bool


class BrowseDescription(NamedTuple):
    """direction: 0 forward, 1 inverse, 2 both; class_mask 0: every class."""

    node: NodeId
    direction: int
    reference_type: NodeId
    with_subtypes: bool
    class_mask: int
    result_mask: int


class Browse(NamedTuple):
    references_max: int
    nodes: tuple[BrowseDescription, ...]


class BrowseNext(NamedTuple):
    is_release: bool
    points: tuple[bytes | None, ...]


class PathElement(NamedTuple):
    reference_type: NodeId
    is_inverse: bool
    with_subtypes: bool
    target: tuple[int, str]


class Translate(NamedTuple):
    paths: tuple[tuple[NodeId, tuple[PathElement, ...]], ...]


class Nodes(NamedTuple):
    """RegisterNodes and UnregisterNodes."""

    nodes: tuple[NodeId, ...]


class ReadValueId(NamedTuple):
    node: NodeId
    attribute: int
    index_range: str
    encoding: tuple[int, str]


class Read(NamedTuple):
    """timestamps: 0 source, 1 server, 2 both, 3 neither."""

    timestamps: int
    nodes: tuple[ReadValueId, ...]


class WriteValue(NamedTuple):
    node: NodeId
    attribute: int
    index_range: str
    value: DataValue


class Write(NamedTuple):
    nodes: tuple[WriteValue, ...]


class MonitoringParameters(NamedTuple):
    client_handle: int
    sampling_ms: float
    filter: Extension
    queue_size: int
    discards_oldest: bool


class ItemToCreate(NamedTuple):
    """mode: 0 disabled, 1 sampling, 2 reporting."""

    item: ReadValueId
    mode: int
    parameters: MonitoringParameters


class CreateMonitoredItems(NamedTuple):
    subscription: int
    timestamps: int
    items: tuple[ItemToCreate, ...]


class ModifyMonitoredItems(NamedTuple):
    subscription: int
    timestamps: int
    items: tuple[tuple[int, MonitoringParameters], ...]


class SetMonitoringMode(NamedTuple):
    subscription: int
    mode: int
    items: tuple[int, ...]


class DeleteMonitoredItems(NamedTuple):
    subscription: int
    items: tuple[int, ...]


class CreateSubscription(NamedTuple):
    """Modify names the subscription, too; then `is_publishing` means nothing."""

    subscription: int
    publishing_ms: float
    lifetime_count: int
    keep_alive_count: int
    notifications_max: int
    is_publishing: bool
    priority: int


class SetPublishingMode(NamedTuple):
    is_publishing: bool
    subscriptions: tuple[int, ...]


class Publish(NamedTuple):
    acknowledged: tuple[tuple[int, int], ...]


class Republish(NamedTuple):
    subscription: int
    sequence: int


class TransferSubscriptions(NamedTuple):
    subscriptions: tuple[int, ...]
    sends_initial: bool


class DeleteSubscriptions(NamedTuple):
    subscriptions: tuple[int, ...]


class Cancel(NamedTuple):
    handle: int


OPEN_SECURE_CHANNEL: Final = 446
FIND_SERVERS, GET_ENDPOINTS = 422, 428
CREATE_SESSION, ACTIVATE_SESSION, CLOSE_SESSION, CANCEL = 461, 467, 473, 479
BROWSE, BROWSE_NEXT, TRANSLATE, REGISTER_NODES, UNREGISTER_NODES = 527, 533, 554, 560, 566
READ, WRITE = 631, 673
CREATE_ITEMS, MODIFY_ITEMS, SET_MONITORING_MODE, DELETE_ITEMS = 751, 763, 769, 781
CREATE_SUBSCRIPTION, MODIFY_SUBSCRIPTION, SET_PUBLISHING_MODE, PUBLISH = 787, 793, 799, 826
REPUBLISH, TRANSFER_SUBSCRIPTIONS, DELETE_SUBSCRIPTIONS = 832, 841, 847
