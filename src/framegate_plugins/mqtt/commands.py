"""Commands over MQTT: messages in, to the desk; outcomes out, to who asked.

    broker ─PUBLISH─▶ Inbound.queue ─▶ desk (durable) ─PUBACK, PUBREC─▶ broker ... outcome ─▶ Replies ─▶ broker

One task hands messages in, in the order they came; the broker is told only once a command is durable (C6). While the
log does not take it, nothing is acknowledged and it is tried again; when patience ends, the answer is NOT_SENT.
What is known outlives connections and a close() that is followed by an open().

Identifiers and acknowledgements are in inbound.py, answers in replies.py, texts in command_message.py.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from framegate.contract.command import Command, CommandRecord, Outcome
from framegate.contract.connector import CommandDoor, ConnectorContext
from framegate.contract.errors import Busy, Denied, GatewayError, NotConnected, StoreFailed
from framegate_plugins.mqtt.codec import encode
from framegate_plugins.mqtt.command_message import (
    PAYLOAD_BYTES_MAX,
    CommandTopics,
    MessageRefused,
    ReturnAddress,
    answer,
    answer_from,
    command_from,
    id_from,
    trimmed,
    ulid,
)
from framegate_plugins.mqtt.command_options import CommandOptions
from framegate_plugins.mqtt.fields import broken
from framegate_plugins.mqtt.identifiers import SUBSCRIBE_ID
from framegate_plugins.mqtt.inbound import Arrival, Inbound
from framegate_plugins.mqtt.packets import Publish, Suback, Subscribe, TopicFilter, Version
from framegate_plugins.mqtt.properties import Property
from framegate_plugins.mqtt.reason import FIRST_REFUSAL, describe
from framegate_plugins.mqtt.replies import Replies

SUBACK_S: Final = 10.0
"""How long a broker may take to answer SUBSCRIBE."""
BATCH_MAX: Final = 64
"""Commands handed in at once."""
SUBMIT_S: Final = 10.0
RETRY_S: Final = 1.0
PATIENCE_S: Final = 30.0
"""How long a command waits, from its arrival, for a log that does not take it."""
OUTCOME_S: Final = 15.0
"""How long after a command's deadline its outcome is waited for."""
ANSWERS_MAX: Final = 1_024
"""Commands whose answer is awaited or under way; nothing more is taken, or acknowledged, beyond."""
LOG_S: Final = 10.0
"""A kind of refusal is logged at most so often."""
_QUOTA_EXCEEDED = 0x97
_RETAINED_ONLY_IF_NEW = 1  # 3.8.3.1: a retained command is refused once, not at each connection


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """A message as it is understood: a command, or why it is none."""

    arrival: Arrival
    address: ReturnAddress
    id: str
    tag: str
    command: Command | None
    refusal: MessageRefused | None


@dataclass(frozen=True, slots=True, eq=False)
class _Awaited:
    """A command that has no outcome yet, and who wants to know it."""

    record: CommandRecord
    address: ReturnAddress


class Commands:
    """The commands of one connector. `attach` to `subscribed` are called for a connection, the others by the connector.

    topics  what is subscribed to
    """

    def __init__(
        self, options: CommandOptions, receive_maximum: int, context: ConnectorContext, door: CommandDoor
    ) -> None:
        self.topics = CommandTopics(options.topic, options.reply, tenant=context.tenant, gateway=context.gateway)
        self.replies = Replies()
        self._qos = options.qos
        self._door, self._clock, self._log = door, context.clock, context.log
        self._name = context.name
        self._inbound = Inbound(receive_maximum, self._renew)
        self._batch: list[_Item] = []  # being handed in
        self._awaited: set[_Awaited] = set()
        self._answers = 0  # awaited or under way
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Task[None]] = set()
        self._give_up: Callable[[NotConnected], None] | None = None
        self._write: Callable[[bytes], None] | None = None
        self._version = Version.V5
        self._suback: asyncio.TimerHandle | None = None
        self._noted: dict[str, tuple[float, int]] = {}  # what -> when it was told last, times since then

    @property
    def receive_maximum(self) -> int:
        """Messages that the broker may send before they are acknowledged."""
        return self._inbound.open_max

    # -- tasks ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Work, until stop(); what was interrupted goes on."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name=f"{self._name} commands")
            self._worker.add_done_callback(self._on_worker_end)
            for awaited in self._awaited:
                self._wait_for(awaited)
            self._wake.set()

    def stop(self) -> None:
        """Rest. Nothing is acknowledged that is not durable."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
        for waiter in self._waiters:
            waiter.cancel()
        self._waiters.clear()

    def _on_worker_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._worker is not task:
            return
        self._worker = None
        text = f"connector {self._name}: taking commands failed: {task.exception()!r}; report it, it is a bug"
        if self._give_up is not None:
            self._give_up(NotConnected(text, code="E5104"))

    # -- a connection ---------------------------------------------------------------------------------------------

    def attach(
        self,
        write: Callable[[bytes], None],
        give_up: Callable[[NotConnected], None],
        version: Version,
        *,
        is_resumed: bool,
    ) -> None:
        """The broker has accepted a connection; give_up ends it."""
        self._write, self._give_up, self._version = write, give_up, version
        self._inbound.attach(write, version, is_resumed=is_resumed)

    def subscribe(self, share: int, packet_bytes_max: int, *, is_resumed: bool) -> None:
        """The connection may be used: subscribe, whatever the broker remembers, and send the answers that wait.

        share  answers that may be under way at once; 0: with QoS 0
        """
        assert self._write is not None
        wanted = TopicFilter(self.topics.filter, self._qos)
        if self._version is Version.V5:
            wanted = replace(wanted, no_local=True, retain_as_published=True, retain_handling=_RETAINED_ONLY_IF_NEW)
        self._write(encode(Subscribe(SUBSCRIBE_ID, (wanted,)), self._version))
        self._suback = asyncio.get_running_loop().call_later(SUBACK_S, self._on_no_suback)
        self.replies.attach(self._write, self._version, share, packet_bytes_max, is_resumed=is_resumed)

    def detach(self) -> None:
        """The connection is gone."""
        self._write = self._give_up = None
        if self._suback is not None:
            self._suback.cancel()
            self._suback = None
        self._inbound.detach()
        self.replies.detach()

    def forget(self) -> None:
        """The next connection leads to another broker."""
        self._inbound.forget()

    def take(self, publish: Publish, oversize: int = 0) -> None:
        """A message has come; oversize: bytes of a payload that was passed over. Raises FrameBroken."""
        if len(publish.payload) > PAYLOAD_BYTES_MAX:
            publish, oversize = replace(publish, payload=b""), len(publish.payload)
        dropped = self._inbound.dropped
        self._inbound.take(Arrival(trimmed(publish), self._clock.now_ns(), oversize))
        if self._inbound.dropped > dropped:
            self._log_refusal("E5117", "messages of QoS 0 come faster than they are taken; they are not answered")
        self._wake.set()

    def release(self, packet_id: int) -> None:
        """PUBREL. Raises FrameBroken."""
        self._inbound.release(packet_id)

    def subscribed(self, packet: Suback) -> None:
        """SUBACK. Raises FrameBroken."""
        if self._suback is None or packet.packet_id != SUBSCRIBE_ID or len(packet.reasons) != 1:
            raise broken("a SUBACK that nobody asked for")
        self._suback.cancel()
        self._suback = None
        reason = packet.reasons[0]
        if reason < FIRST_REFUSAL:
            self._log.info("mqtt_subscribed", connector=self._name, filter=self.topics.filter, qos=reason)
            return
        text = f"the broker answered {describe(reason)}; let it allow this client to subscribe"
        error = str(Denied(text, code="E5119"))
        self._log.error("mqtt_subscription_refused", connector=self._name, filter=self.topics.filter, reason=error)

    def _on_no_suback(self) -> None:
        self._suback = None
        text = f"connector {self._name}: no answer to SUBSCRIBE within {SUBACK_S:g} s; check the broker"
        if self._give_up is not None:
            self._give_up(NotConnected(text, code="E5103"))

    def _renew(self) -> None:
        text = f"connector {self._name}: the broker sent more than {self._inbound.open_max} commands at once"
        if self._give_up is not None:
            self._give_up(NotConnected(f"{text}; the rest comes again on a new connection", code="E5104"))

    # -- handing in -----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._batch or (self._inbound.queue and self._answers < ANSWERS_MAX):
                self._batch = self._batch or self._next_batch()
                await self._hand_in()

    def _next_batch(self) -> list[_Item]:
        """What waits, as far as there is room for answers. An id stands in it once: a repeat then finds the first."""
        queue, batch, ids = self._inbound.queue, list[_Item](), set[str]()
        while queue and len(batch) < min(BATCH_MAX, ANSWERS_MAX - self._answers):
            item = self._understood(queue[0])
            if item.command is not None and item.id in ids:
                break
            ids.add(item.id)
            batch.append(item)
            queue.popleft()
        return batch

    def _understood(self, arrival: Arrival) -> _Item:
        publish = arrival.publish
        address, tag = self.topics.answer_to(publish), ""
        try:
            tag = self.topics.tag_of(publish.topic)
            new_id = ulid(arrival.received, secrets.token_bytes(10))
            command = command_from(publish, tag, arrival.received, new_id, arrival.oversize)
        except MessageRefused as refusal:
            return _Item(arrival, address, id_from(publish), tag, None, refusal)
        return _Item(arrival, address, command.id, tag, command, None)

    async def _hand_in(self) -> None:
        """Hand in the batch until all of it is durable, or refused."""
        size = len(self._batch)
        while self._batch:
            items = self._batch[:size]
            try:
                async with asyncio.timeout(SUBMIT_S):
                    records = await self._submit([item.command for item in items if item.command is not None])
            except (StoreFailed, Busy) as error:
                self._end_patience(Outcome.NOT_SENT, error.stable_code, error.text)
            except TimeoutError:
                self._end_patience(Outcome.UNKNOWN, "E5118", f"the gateway did not take it within {PATIENCE_S:g} s")
            else:
                taken = iter(records)
                for item in items:
                    self._taken(item, next(taken) if item.command is not None else None)
                del self._batch[: len(items)]
                continue
            size = 1
            await self._clock.sleep(RETRY_S)

    async def _submit(self, commands: Sequence[Command]) -> Sequence[CommandRecord]:
        if not commands:
            return ()
        return await self._door.submit([await self._as_known(command) for command in commands])

    async def _as_known(self, command: Command) -> Command:
        """The command with the ttl under which its id is known: what is left of a message's expiry shrinks, and with
        another ttl the same command would count as another one.
        """
        item = next(item for item in self._batch if item.command is command)
        if Property.MESSAGE_EXPIRY not in item.arrival.publish.properties:
            return command
        record = await self._door.wait(command.id, 0.0)
        return command if record is None else replace(command, ttl_s=record.command.ttl_s)

    def _taken(self, item: _Item, record: CommandRecord | None) -> None:
        """A message is dealt with: tell the broker first. An answer without that would be followed by a repeat."""
        self._inbound.settle(item.arrival)
        if record is None:
            assert item.refusal is not None
            self._refuse(item, Outcome.REJECTED, item.refusal.code, item.refusal.text)
        elif item.address.topic and record.outcome is not None:
            self._reply(item.address, answer_from(record))
        elif item.address.topic:
            self._answers += 1
            awaited = _Awaited(record, item.address)
            self._awaited.add(awaited)
            self._wait_for(awaited)

    def _end_patience(self, outcome: Outcome, code: str, reason: str) -> None:
        """Give up on those at the head of the batch that have waited too long, or are no commands anyway."""
        now = self._clock.now_ns()
        while self._batch:
            item = self._batch[0]
            command, received = item.command, item.arrival.received
            if command is None:
                self._taken(item, None)
            elif now >= min(received + round(PATIENCE_S * 1e9), _deadline(command, received)):
                self._inbound.settle(item.arrival, _QUOTA_EXCEEDED)
                self._refuse(item, outcome, code, reason)
            else:
                return
            del self._batch[0]

    def _refuse(self, item: _Item, outcome: Outcome, code: str, reason: str) -> None:
        self._log_refusal(code, reason)
        if item.address.topic:
            now, origin = self._clock.now_ns(), f"north:{self._name}"
            self._reply(item.address, answer(item.id, item.tag, outcome, code, reason, time=now, origin=origin))

    # -- answering ------------------------------------------------------------------------------------------------

    def _wait_for(self, awaited: _Awaited) -> None:
        task = asyncio.create_task(self._wait(awaited), name=f"{self._name} outcome")
        self._waiters.add(task)
        task.add_done_callback(self._waiters.discard)

    async def _wait(self, awaited: _Awaited) -> None:
        """Answer with the outcome, or that there is none to tell."""
        record, command = awaited.record, awaited.record.command
        left_s = max(0.0, (_deadline(command, record.received) - self._clock.now_ns()) / 1e9) + OUTCOME_S
        found: CommandRecord | None = None
        reason = f"no outcome {OUTCOME_S:g} s after the command's deadline; ask again with the same id"
        try:
            found = await self._door.wait(command.id, left_s)
        except GatewayError as error:
            reason = str(error)
        if found is not None and found.outcome is not None:
            payload = answer_from(found)
        else:
            now = self._clock.now_ns()
            payload = answer(command.id, command.tag, Outcome.UNKNOWN, "E5118", reason, time=now, origin=record.origin)
        self._awaited.discard(awaited)
        self._answers -= 1
        self._reply(awaited.address, payload)

    def _reply(self, address: ReturnAddress, payload: bytes) -> None:
        self._answers += 1
        self.replies.send(address, payload, self._on_replied)

    def _on_replied(self, error: str) -> None:
        self._answers -= 1
        self._wake.set()
        times = self._times("dropped") if error else 0
        if times:
            self._log.warning("mqtt_reply_dropped", connector=self._name, times=times, reason=error)

    # -- words ----------------------------------------------------------------------------------------------------

    def _log_refusal(self, code: str, reason: str) -> None:
        times = self._times("refused")
        if times:
            self._log.warning("mqtt_command_refused", connector=self._name, times=times, code=code, reason=reason)

    def _times(self, kind: str) -> int:
        """How often something has happened since it was told last; 0: told less than LOG_S ago, so not now."""
        now = self._clock.monotonic()
        last, times = self._noted.get(kind, (-LOG_S, 0))
        is_due = now - last >= LOG_S
        self._noted[kind] = (now, 0) if is_due else (last, times + 1)
        return times + 1 if is_due else 0


def _deadline(command: Command, received: int) -> int:
    """ns UTC. A clock of the asker that is fast gives a command no more time than its ttl from here."""
    return min(command.issued or received, received) + round(command.ttl_s * 1e9)
