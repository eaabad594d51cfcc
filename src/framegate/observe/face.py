"""The face of a running gateway: what may be asked of it from outside, as plain frozen records.

`gateway/health.py` fills these in; `ops/` carries them over the control socket and to probes; `cli/` draws them.
Records only: no I/O, no formatting, no history. Rates are made by whoever compares two records.

Sending a letter again is the one thing here that waits and the one that acts.

Times are int64 ns UTC, 0 = never. Texts of errors follow the house rule: what, where, why, next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from framegate.contract.access import AuditEntry
from framegate.contract.command import Desk
from framegate.contract.frame import Access, Position, Value
from framegate.contract.letter import DeadLetter, letter_id
from framegate.observe.command_health import DoorHealth
from framegate.observe.metrics import Metrics
from framegate.observe.plugin_face import PluginFace
from framegate.observe.rule_face import RuleFace


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """One row of drivers.yml and its slot.

    state          as the lifecycle table names it: "active", "backoff", ...
    last_good_ns   last scan that was answered
    scan_ms        moving mean duration of a scan
    scans_skipped  periods that passed unread: back-off, quarantine, or a full bus
    error, hint    why it does not deliver and what to do next; "" while all is well
    version        of the plugin
    shape          what its driver was written in: python, native, wasm
    isolation      where it runs: none (inside the gateway), process (a child), "" (confined, as WASM is)
    """

    name: str
    plugin: str
    endpoint: str
    state: str
    since_ns: int
    last_good_ns: int
    scan_ms: float
    scans_ok: int
    scans_failed: int
    scans_skipped: int
    rows: int
    tags: int
    reconnects: int
    error: str
    hint: str
    version: str = ""
    shape: str = "python"
    isolation: str = "none"


@dataclass(frozen=True, slots=True)
class ConnectorHealth:
    """One row of the connectors and its outbox.

    rows                  rows acknowledged by the remote since start
    lag_rows              durable rows that the remote has not acknowledged
    owed_rows             those among them that live rows have overtaken (backlog: live_first)
    latency_p50_ms, _p99  from the moment the gateway took a row to its acknowledgement; 0.0 before the first
    refused               messages set aside since start because the remote will never take them
    letters               such messages kept now, of this run or an earlier one
    """

    name: str
    plugin: str
    endpoint: str
    encoding: str
    state: str
    since_ns: int
    last_ack_ns: int
    rows: int
    lag_rows: int
    owed_rows: int
    latency_p50_ms: float
    latency_p99_ms: float
    reconnects: int
    refused: int
    letters: int
    error: str
    hint: str


@dataclass(frozen=True, slots=True)
class BridgeRecord:
    """One row of the bridges and its process.

    state     starting, serving, backoff, stopped
    pid       0 = it does not run now
    clients   connected now; the counts are of its present process
    restarts  of the process since the gateway started
    """

    name: str
    plugin: str
    endpoint: str
    state: str
    since_ns: int
    pid: int
    tags: int
    clients: int
    requests: int
    writes: int
    refused: int
    restarts: int
    error: str


@dataclass(frozen=True, slots=True)
class BusHealth:
    """rows accepted since start; ring: rows accepted and not yet durable, and how many fit."""

    rows: int
    ring_rows: int
    ring_rows_max: int
    is_paused: bool


@dataclass(frozen=True, slots=True)
class WalHealth:
    """The durable log.

    head, durable  last position accepted, last position that survives a power cut
    bytes_max      retention limit; bytes / bytes_max is the fill that `edge top` draws
    gaps           gaps that were ever written; rows_dropped: rows that they stand for
    error          why the log does not accept rows; "" while it does
    """

    state: str
    head: int
    durable: int
    bytes: int
    bytes_max: int
    bytes_free: int
    gaps: int
    rows_dropped: int
    error: str


@dataclass(frozen=True, slots=True)
class ConfigHealth:
    """The configuration in force.

    generation  its number; since_ns: when it came into force
    problem     why the tables in HOME/config are not in force; "" while they are, or wait for their turn
    is_pending  they have changed and wait for `edge cfg apply`
    centre      what keeps the gateway from what the config centre wants; "" while nothing does, or there is none
    """

    generation: int = 0
    since_ns: int = 0
    problem: str = ""
    is_pending: bool = False
    centre: str = ""


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """One configuration that was in force; source: file, api, etcd or rollback."""

    number: int
    author: str
    reason: str
    source: str
    time_ns: int
    is_current: bool


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """What a change did, or would do.

    generation  the one in force afterwards; 0 for a change that was only tried
    steps       one line for each thing that restarts, is planned anew, comes or goes
    """

    generation: int
    steps: tuple[str, ...]
    duration_ms: float


@dataclass(frozen=True, slots=True)
class GatewayHealth:
    """Everything `edge top` shows, taken at one moment.

    now_ns    wall time of the record
    cpu_s     CPU time of the process since its start, user and system
    alarms_*  alarms that are shown as active, and that wait for an acknowledgement
    commands_waiting  commands that have no outcome yet;  doors: those through which any came
    packages_waiting  packages of plugins that wait until somebody accepts what they ask
    problem   why the gateway cannot take and keep rows now ("" = ready); a silent device is no such problem
    """

    name: str
    tenant: str
    version: str
    pid: int
    started_ns: int
    now_ns: int
    cpu_s: float
    rss_bytes: int
    problem: str
    devices: tuple[DeviceHealth, ...]
    connectors: tuple[ConnectorHealth, ...]
    bus: BusHealth
    wal: WalHealth
    alarms_active: int = 0
    alarms_unacknowledged: int = 0
    config: ConfigHealth = ConfigHealth()
    bridges: tuple[BridgeRecord, ...] = ()
    commands_waiting: int = 0
    doors: tuple[DoorHealth, ...] = ()
    packages_waiting: int = 0


@dataclass(frozen=True, slots=True)
class TagRow:
    """One tag and its latest value.

    value                      None when its quality is Bad, or when it was never read
    quality                    StatusCode; BadWaitingForInitialData when it was never read
    source_time, gateway_time  0 when it was never read
    """

    id: int
    name: str
    device: str
    type: str
    unit: str
    access: Access
    value: Value
    quality: int
    source_time: int
    gateway_time: int


@dataclass(frozen=True, slots=True)
class RewindRecord:
    """A cursor that was set back: the rows after `after` up to `before` are delivered again.

    by  who asked, in words
    """

    connector: str
    before: int
    after: int
    rows: int
    by: str
    time_ns: int


@dataclass(frozen=True, slots=True)
class LetterRow:
    """A dead letter without its payload.

    position, rows      first position it holds, and how many rows
    key                 route it was sent to, as text
    size                bytes of its payload
    since_ns, tried_ns  when it was set aside, when it was last sent
    """

    connector: str
    position: int
    rows: int
    key: str
    encoding: str
    size: int
    reason: str
    since_ns: int
    tried_ns: int
    tries: int

    @property
    def id(self) -> str:
        return letter_id(self.connector, self.position)


class LetterFace(Protocol):
    """The dead letters of a gateway: `edge dlq`."""

    def rows(self, connector: str, after: str, limit: int) -> Sequence[LetterRow]:
        """A page of letters, by connector and position.

        connector  "" = of every connector
        after      id of the last letter of the page before; "" = from the start
        """

    def letter(self, id_: str) -> DeadLetter:
        """A letter with its payload; raises DeviceRefused E4019 - no such letter; StoreFailed - not readable now."""

    async def retry(self, id_: str) -> LetterRow | None:
        """Send a letter again through its connector; None when the remote took it, else the letter that stays.

        raises NotConnected, NoReply - not now; Busy - another letter of this connector is under way
        """

    def drop(self, id_: str) -> None:
        """Throw a letter away, for good."""


class ConfigFace(Protocol):
    """The configuration of a running gateway: `edge cfg`."""

    async def apply(self, author: str, reason: str, *, is_trial: bool = False) -> ChangeRecord:
        """Bring the tables in HOME/config into force; is_trial: only say what that would do.

        raises Misconfigured - with every problem; StoreFailed E4034 - it cannot be made to last
        """

    async def rollback(self, number: int, author: str, reason: str) -> ChangeRecord:
        """Bring an old generation into force again, as a new one; raises as apply, and Misconfigured E4032."""

    def history(self, limit: int) -> Sequence[GenerationRecord]:
        """Generations on disk, newest first."""


class GatewayFace(Protocol):
    """What `ops` may ask of a gateway. Called on the loop; every answer is bounded.

    Answers are made at once, but for note, rewind, letters.retry, commands and changes of the configuration.
    """

    @property
    def config(self) -> ConfigFace: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def letters(self) -> LetterFace: ...

    @property
    def rules(self) -> RuleFace: ...

    @property
    def plugins(self) -> PluginFace: ...

    @property
    def commands(self) -> Desk: ...

    async def note(self, entry: AuditEntry) -> None:
        """Have the audit log tell of what is about to be done; raises StoreFailed E4306: it must not be done then."""

    def health(self) -> GatewayHealth: ...

    def find_tags(self, pattern: str, after: int, limit: int) -> Sequence[TagRow]:
        """A page of tags in order of their ids.

        pattern  shell pattern on the whole name ("pump3.*"); without *, ? and [ it is a prefix; "" is every tag
        after    id of the last tag of the page before; 0 = from the start
        limit    rows at most; fewer mean that the list has ended
        """

    def value(self, name: str) -> TagRow | None:
        """One tag by its name; None if there is no such tag."""

    def values(self, ids: Sequence[int]) -> Sequence[TagRow]:
        """Tags by their ids, in that order; ids that do not exist are left out."""

    async def rewind(self, connector: str, first: Position | None, since_ns: int, by: str) -> RewindRecord:
        """Deliver again from a position on, or, without one, the rows since a wall time; within some seconds.

        raises Misconfigured E4030 - it cannot be done as asked; StoreFailed - the disk does not take it
        """
