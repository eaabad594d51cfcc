"""The bridge contract: a server of a field protocol that the gateway runs, for masters and SCADA systems.

A bridge shows tags of the gateway and takes writes. It runs in a process of its own with a limit of memory, so that
a hostile client hurts nobody else; the gateway starts that process again when it dies. It keeps no data: it is told
the newest rows, all of them after `open` and then those that are new. What waits for a slow bridge is merged by tag.

    bridge = Plugin.Bridge(options)      checks options, no I/O; raises Misconfigured
    bridge.check(tags)                   pure; raises Misconfigured with tag_problems; `edge check` calls it too
    await bridge.open(context)           binds; on return clients can connect; raises Misconfigured
    bridge.update(batches)               newest rows; on the loop, must not wait
    await bridge.close()                 always called after open; never raises

A client's write is a command: `context.commands.submit`, then `wait`; the outcome is the protocol's answer to the
client. Nothing is written past the desk, and a tag that the bridge's row does not allow is refused there as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from framegate.contract.connector import CommandDoor
from framegate.contract.frame import Access, Batch, TagId, ValueType
from framegate.contract.ports import Clock, Log

CLIENTS_MAX = 64
"""Of one bridge, where its options say nothing else."""


class BridgeTag(NamedTuple):
    """One tag as a bridge shows it: under its outgoing name, in engineering units.

    type         of the values that come in batches; STRING where the tag has an enumeration
    access       "R" as well where the bridge's row does not allow writes of it
    device       row of drivers.yml that reads it
    span         lowest and highest value that may be written, or that a value is clamped to; None: not said
    texts        texts of the enumeration, in the order of their numbers
    numbers      those numbers, as the device has them; (): they count from 0
    options      keys that the plugin's schema adds, from `bridges: {NAME: {...}}` in the tag's row
    """

    id: TagId
    name: str
    type: ValueType
    access: Access
    device: str = ""
    unit: str = ""
    description: str = ""
    span: tuple[float, float] | None = None
    texts: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}
    numbers: tuple[int, ...] = ()

    @property
    def enumeration(self) -> Mapping[int, str]:
        """Texts by number; {} where the tag has no enumeration."""
        return dict(zip(self.numbers or range(len(self.texts)), self.texts, strict=True))


class ServerTls(NamedTuple):
    """Section `tls` of the endpoint, seen from the server: what it shows, and whose clients it lets in ("": anyone's).

    All are paths. key_password is a reference, see endpoint/secret.py.
    """

    cert: str
    key: str
    ca: str = ""
    key_password: str = ""
    minimum: str = "1.2"


@dataclass(frozen=True, slots=True)
class BridgeContext:
    """Everything a bridge may reach for while it is open.

    name      row of drivers.yml
    url       where to listen: the url of the endpoint that the row names
    tls       None where the endpoint says nothing of it
    base      folder that relative paths and secret references in options start from
    home      folder of this bridge's own, private and kept: certificates, trust lists, exported maps
    commands  where writes are handed in; None where the row allows none
    """

    name: str
    gateway: str
    url: str
    tls: ServerTls | None
    base: Path
    home: Path
    tags: Sequence[BridgeTag]
    clock: Clock
    log: Log
    commands: CommandDoor | None = None


@dataclass(frozen=True, slots=True)
class BridgeHealth:
    """Counts since `open`.

    refused_total  connections, logins and requests that were turned away
    """

    clients: int = 0
    requests_total: int = 0
    writes_total: int = 0
    refused_total: int = 0


class Bridge(Protocol):
    """A protocol's server."""

    def check(self, tags: Sequence[BridgeTag]) -> None:
        """What would keep these tags from being shown this way. Pure.

        raises Misconfigured - with one TagProblem for each tag at fault
        """

    async def open(self, context: BridgeContext) -> None:
        """Bind and serve. Called once.

        raises Misconfigured - it cannot listen there, or cannot show these tags
        """

    def update(self, batches: Sequence[Batch]) -> None:
        """Newest rows, in order. Tags that are not shown may be among them."""

    def health(self) -> BridgeHealth:
        """Asked once a second."""

    async def close(self) -> None:
        """Hang up on every client. Never raises; must finish within 1 s."""
