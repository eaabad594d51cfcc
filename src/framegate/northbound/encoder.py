"""Encoders: durable rows in, windows of finished messages out. The table of encodings lives here.

An encoder is used by one outbox, from the loop. It keeps caches per tag array and nothing of what it has sent, so
the same rows give the same messages again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias

from framegate.contract.connector import Window
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Gap, Placed
from framegate.contract.ports import Catalogue
from framegate.northbound.compress import compression
from framegate.northbound.encode_json import JsonBatchEncoder, JsonEncoder
from framegate.northbound.encode_protobuf import ProtobufEncoder
from framegate.northbound.json_text import TimeTexts
from framegate.northbound.route import FIELDS, Route

Encoding: TypeAlias = Literal["json", "json-batch", "protobuf"]
FRAMES_PER_MESSAGE = 32
FRAMES_PER_MESSAGE_MAX = 1024
# json-batch and protobuf fill messages across devices unless the template names the device.
DEFAULT_TEMPLATE: Final[dict[str, str]] = {
    "json": "{tenant}/{device}/{tag}",
    "json-batch": "{tenant}/{gateway}",
    "protobuf": "{tenant}/{gateway}",
}


class Encoder(Protocol):
    """What an outbox asks of an encoding."""

    encoding: str

    def encode(self, placed: Sequence[Placed]) -> Window:
        """One window over placed batches, in order; at least one row."""

    def encode_gap(self, gap: Gap) -> Window | None:
        """A notice about lost rows, or None where the encoding has no room for one."""

    def forget(self) -> None:
        """Drop what was learnt from the catalogue; to be called when a tag's type or device has changed."""


def backfill_template(encoding: str, template: str) -> str:
    """Where back-fill goes unless the tables say otherwise: beside the live values, out of their receivers' way."""
    return f"{template or DEFAULT_TEMPLATE[encoding]}/backfill"


def make_encoder(
    encoding: str,
    *,
    tenant: str,
    gateway: str,
    connector: str,
    template: str | None,
    batch: int = FRAMES_PER_MESSAGE,
    compress: str = "none",
    time: str = "ms",
    catalogue: Catalogue,
    is_backfill: bool = False,
) -> Encoder:
    """The encoder that a row of `connectors` asks for.

    template  route of a message; None or "" takes the encoding's default
    batch     frames per message, json-batch only
    is_backfill  every message says that it is
    compress  "none" | "zstd";  time  "ms" | "us" | "ns" | "iso", JSON only
    raises    Misconfigured - naming the option and what would be right
    """
    if encoding not in DEFAULT_TEMPLATE:
        raise Misconfigured(f"encoding: {encoding!r} is not known; use json, json-batch or protobuf", code="E2402")
    if not 1 <= batch <= FRAMES_PER_MESSAGE_MAX:
        raise Misconfigured(f"batch: {batch} is out of range; use 1 to {FRAMES_PER_MESSAGE_MAX}", code="E2402")
    squeeze, suffix = compression(compress)
    times = TimeTexts(time)
    fields = FIELDS if encoding == "json" else FIELDS[:-1]
    text = template or DEFAULT_TEMPLATE[encoding]
    route = Route(text, tenant=tenant, gateway=gateway, connector=connector, fields=fields)
    if encoding == "json":
        return JsonEncoder(route, gateway, catalogue, times, squeeze, suffix, is_backfill=is_backfill)
    if encoding == "json-batch":
        return JsonBatchEncoder(route, gateway, catalogue, times, squeeze, suffix, batch, is_backfill=is_backfill)
    return ProtobufEncoder(route, gateway, catalogue, squeeze, suffix, is_backfill=is_backfill)
