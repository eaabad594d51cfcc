"""The client's half of an MQTT session: what is under way, what may be sent next, what an answer means.

Sans I/O: bytes go to the `Link` of the present connection, answers come in through `take_answers`. The state
outlives connections, as the standard asks (4.1, 4.4): on a resumed session unacknowledged messages go out again
under their old packet identifiers and in their old order, with DUP; on a lost one they go out as new. Connecting,
keep-alive and time belong to client.py and connector.py.

Order (O4): repeats leave before anything that was never sent, and after a refusal nothing new is sent until the outbox
has offered the refused message again. Receive Maximum counts every message from PUBLISH to PUBACK or PUBCOMP (4.9).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat

from framegate.contract.connector import Window
from framegate.contract.errors import Busy, GatewayError, NotConnected
from framegate_plugins.mqtt.fields import broken
from framegate_plugins.mqtt.flow import Ended, Flow, Flows
from framegate_plugins.mqtt.identifiers import (
    ACK_BYTES,
    MESSAGE_ID_MAX,
    PUBACK,
    PUBCOMP,
    PUBREC,
    next_ids,
    not_found,
    plain_pubacks,
    release,
    short_answer,
)
from framegate_plugins.mqtt.link import Link
from framegate_plugins.mqtt.packets import Version
from framegate_plugins.mqtt.reason import FIRST_REFUSAL, Action, action, held_back, message_refusal, unsendable

CHUNK_BYTES_MAX = 256 * 1024  # joined into one write
PENDING_BYTES_MAX = 512 * 1024  # held back by the line before it is given no more; well under its write buffer
BUSY_FIRST_S, BUSY_S_MAX = 1.0, 30.0


class ClientSession:
    """State of one client identifier at one broker.

    needs_clean  the broker must forget its half: it knows nothing of ours (first start), or both halves disagree
    needs_purge  the broker keeps a subscription of an earlier run, which only a session of its own gets rid of
    on_idle      called when nothing is under way any more, or nothing can be
    on_other     told of PUBACKs for anything but windows: packet identifier, reason
    """

    def __init__(self) -> None:
        self.needs_clean, self.needs_purge = True, False
        self.on_idle: Callable[[], None] | None = None
        self.on_other: Callable[[int, int], object] = lambda *_: None
        self._link: Link | None = None
        self._loss = NotConnected("the MQTT session has no connection yet; it is opened first", code="E5104")
        self._flows = Flows()
        self._waiting: deque[Flow] = deque()  # offered flows that have messages to send, in order
        self._inflight: dict[int, tuple[Flow, int]] = {}  # PUBLISH sent, in order
        self._releasing: dict[int, tuple[Flow, int]] = {}  # QoS 2: PUBREC came, PUBCOMP did not
        self._resend: deque[int] = deque()  # packet identifiers in _inflight, not yet repeated on this connection
        self._replies: list[bytes] = []
        self._last_id = 0
        self._qos = 0  # of everything in _inflight
        self._is_held = False
        self._cautious = 0  # so many messages go out one at a time
        self._busy_s = BUSY_FIRST_S

    @property
    def is_attached(self) -> bool:
        return self._link is not None

    @property
    def is_idle(self) -> bool:
        return not self._inflight and not self._releasing

    @property
    def is_unanswered(self) -> bool:
        """Whether no answers will come (QoS 0): then nobody but the sender itself calls refill()."""
        return self._link is not None and not self._link.qos

    @property
    def inflight(self) -> int:
        """Messages under way."""
        return len(self._inflight) + len(self._releasing)

    @property
    def answers_bytes(self) -> int:
        """Bytes of acknowledgements that are on their way and that nothing waits for before; 0: none.

        While messages wait for room, half a window of flight is worth a call: it is refilled by halves.
        """
        link = self._link
        if link is None or self._cautious or self.on_idle is not None:
            return 0
        number = self.inflight
        if self._waiting or self._resend:
            number -= link.inflight_max // 2
        return max(number, 0) * ACK_BYTES

    # -- connections ----------------------------------------------------------------------------------------------

    def can_resume(self, link: Link) -> bool:
        """Whether what is under way may be repeated as it was, at this QoS and packet size."""
        if self.is_idle:
            return True
        open_messages = [*self._inflight.values(), *self._releasing.values()]
        return link.qos == self._qos and all(link.writer.fits(flow.window, index) for flow, index in open_messages)

    def attach(self, link: Link, *, is_resumed: bool) -> int:
        """A connection stands. Repeats go out at once, windows when they are offered. Returns how many repeats.

        is_resumed  the broker kept its half; otherwise everything unacknowledged waits to be sent as new
        """
        self._flows.turn_over()
        repeats = self.inflight
        if is_resumed:
            self._resend.extend(self._inflight)
            self._replies += [release(packet_id) for packet_id in self._releasing]
        else:
            self._start_over()
        self._qos = link.qos
        self._link = link
        self.refill()
        return repeats

    def detach(self, error: NotConnected) -> bool:
        """The connection is gone. Returns whether anybody waited for an answer, and so was told."""
        self._link = None
        self._loss = error
        self._is_held = False
        self._waiting.clear()
        self._resend.clear()
        self._replies.clear()
        told = [flow for flow in self._flows if flow.on_end is not None]
        for flow in told:
            self._tell(flow, error)
        if self.on_idle is not None:
            self.on_idle()
        return bool(told)

    def suspect(self, reason: int) -> None:
        """The broker hung up over a message without saying which: send what was under way one at a time.

        When only one was under way, that is the one.
        """
        if len(self._inflight) == 1 and not self._releasing:
            packet_id, (flow, index) = next(iter(self._inflight.items()))
            del self._inflight[packet_id]
            flow.flying -= 1
            flow.fail(index, self._refusal(flow, index, reason))
        self.needs_clean = True
        self._cautious = max(self._cautious, len(self._inflight))

    def _start_over(self) -> None:
        lost: dict[Flow, list[int]] = {}
        for flow, index in (*self._releasing.values(), *self._inflight.values()):
            lost.setdefault(flow, []).append(index)
        for flow, indices in lost.items():
            flow.flying = 0
            flow.requeue(indices)
        self._releasing.clear()
        self._inflight.clear()

    # -- windows --------------------------------------------------------------------------------------------------

    def offer(self, window: Window, on_end: Ended) -> None:
        """Send a window, or go on with it. `on_end` is called once, possibly at once."""
        flow = self._flows.find(window)
        if flow is None:
            on_end(None)
            return
        assert flow.on_end is None, "a window is offered while it is under way"
        is_held = self._is_held and any(other.on_end is not None for other in self._flows)
        flow.is_known = True
        flow.on_end = on_end
        if self._link is None:
            self._tell(flow, self._loss)
        elif flow.failed and not flow.is_reported:
            flow.is_reported = True
            self._tell(flow, flow.failure())
        elif is_held:
            self._tell(flow, held_back())
        else:
            self._is_held = False
            self._resume(flow)

    def _resume(self, flow: Flow) -> None:
        flow.requeue(list(flow.failed))
        flow.failed.clear()
        if flow.has_unsent:
            self._waiting.append(flow)
            self.refill()
        elif not flow.flying:
            self._end(flow)

    def withdraw(self, window: Window) -> None:
        """Nobody waits for this window any more. What is under way stays so; nothing more of it is sent."""
        flow = self._flows.known(window)
        if flow is not None and flow.on_end is not None:
            flow.on_end = None
            if flow in self._waiting:
                self._waiting.remove(flow)

    # -- sending --------------------------------------------------------------------------------------------------

    def refill(self) -> None:
        """Send as much as the window of flight, and the line, have room for."""
        link = self._link
        if link is None or not (self._waiting or self._resend or self._replies):
            return
        writer = link.writer
        writer.parts += self._replies
        self._replies.clear()
        while True:
            if link.write_pending() <= PENDING_BYTES_MAX:
                self._fill(link)
            if not writer.parts:
                break
            link.write(writer.take())
        if not link.qos or self._is_held:
            self._end_finished()

    def _fill(self, link: Link) -> None:
        """Gather about CHUNK_BYTES_MAX of messages in the link's writer."""
        room = 1 if self._cautious and link.qos else link.inflight_max
        if link.qos:
            room -= len(self._inflight) - len(self._resend) + len(self._releasing)
        writer = link.writer
        while room > 0 and self._resend and writer.size < CHUNK_BYTES_MAX:
            packet_id = self._resend.popleft()
            if packet_id in self._inflight:
                flow, index = self._inflight[packet_id]
                writer.add_run(flow.window, (index,), (packet_id,), CHUNK_BYTES_MAX, dup=True)
                room -= 1
        while room > 0 and self._waiting and not self._is_held and writer.size < CHUNK_BYTES_MAX:
            flow = self._waiting[0]
            room -= self._send_some(flow, room, link)
            if not flow.has_unsent:
                self._waiting.popleft()

    def _send_some(self, flow: Flow, room: int, link: Link) -> int:
        """Write the next messages of a flow; returns how many are now under way."""
        writer = link.writer
        indices = flow.upcoming(room)
        packet_ids = next_ids(self._last_id, len(indices), self._inflight, self._releasing) if link.qos else ()
        written = writer.add_run(flow.window, indices, packet_ids, CHUNK_BYTES_MAX)
        if link.qos and written:
            self._inflight.update(zip(packet_ids[:written], zip(repeat(flow), indices), strict=False))
            flow.flying += written
            self._last_id = packet_ids[written - 1]
        if writer.refusal:
            index = indices[written]
            window = flow.window
            flow.fail(index, unsendable(window.key[index], window.position[index], writer.refusal))
            flow.sent(written + 1)
            self._is_held = True
        else:
            flow.sent(written)
        return written

    # -- answers --------------------------------------------------------------------------------------------------

    def take_answers(self, data: bytes, at: int) -> int:
        """Take in the run of acknowledgements that begins at `at`, and use the room; returns where it ends.

        Only whole packets of 4 or 5 bytes (no properties) are read here: nearly all of them.
        """
        start = at
        if self._qos == 1:
            packet_ids = plain_pubacks(data, at)
            self._acknowledged(packet_ids)
            at += ACK_BYTES * len(packet_ids)
        while (answer := short_answer(data, at)) is not None:
            self.take_answer(answer.kind, answer.packet_id, answer.reason)
            at = answer.end
        if at > start:
            self.settle()
        return at

    def _acknowledged(self, packet_ids: Sequence[int]) -> None:
        """QoS 1 messages have arrived. On the hot path."""
        pop = self._inflight.pop
        flow, landed = None, 0
        for packet_id in packet_ids:
            entry = pop(packet_id, None)
            if entry is None:
                self.on_other(packet_id, 0)
                continue
            if entry[0] is not flow:
                if flow is not None:
                    self._land(flow, landed)
                flow, landed = entry[0], 0
            landed += 1
        if flow is not None:
            self._land(flow, landed)

    def take_answer(self, kind: int, packet_id: int, reason: int) -> None:
        """One acknowledgement; `settle` is owed after the last of a burst.

        kind    first byte of its packet
        raises  FrameBroken - it does not suit the QoS of our messages
        """
        if (kind == PUBACK) == (self._qos == 2):
            raise broken(f"an acknowledgement of type {kind >> 4} for messages of QoS {self._qos}")
        if packet_id > MESSAGE_ID_MAX:
            self.on_other(packet_id, reason)
        elif reason >= FIRST_REFUSAL and kind != PUBCOMP:
            self._refused(packet_id, reason)
        elif kind == PUBREC:
            self._received(packet_id)
        else:
            # PUBCOMP "packet identifier not found" answers a PUBREL that was repeated after it had been done.
            entry = (self._inflight if kind == PUBACK else self._releasing).pop(packet_id, None)
            if entry is not None:
                self._land(entry[0])

    def settle(self) -> None:
        """After a burst of answers: use the freed room with one write."""
        if self._cautious:
            self._cautious -= 1
        if not self._is_well_filled:
            self.refill()
        if self.on_idle is not None and self.is_idle:
            self.on_idle()

    @property
    def _is_well_filled(self) -> bool:
        """True while more than half of the window of flight is under way: room gathers for one larger write."""
        if self._link is None or self._cautious or self._resend or self._replies or self._is_held:
            return False
        return 2 * (len(self._inflight) + len(self._releasing)) > self._link.inflight_max

    def _received(self, packet_id: int) -> None:
        entry = self._inflight.pop(packet_id, None)
        if entry is not None:
            self._releasing[packet_id] = entry
        if packet_id in self._releasing:
            self._replies.append(release(packet_id))
        elif self._link is not None and self._link.writer.style.version is Version.V5:
            self._replies.append(not_found(packet_id))
        else:
            self._replies.append(release(packet_id))

    def _refused(self, packet_id: int, reason: int) -> None:
        entry = self._inflight.pop(packet_id, None)
        if entry is None:
            return
        flow, index = entry
        flow.fail(index, self._refusal(flow, index, reason))
        self._is_held = True
        if action(reason) is Action.AFRESH:
            self.needs_clean = True
        self._land(flow)

    def _refusal(self, flow: Flow, index: int, reason: int) -> GatewayError:
        window = flow.window
        error = message_refusal(window.key[index], window.position[index], reason, self._busy_s)
        if isinstance(error, Busy):
            self._busy_s = min(self._busy_s * 2, BUSY_S_MAX)
        return error

    def _land(self, flow: Flow, number: int = 1) -> None:
        """So many messages of a flow have been answered."""
        flow.flying -= number
        if not flow.flying:
            self._landed(flow)

    def _landed(self, flow: Flow) -> None:
        """Nothing of this flow is under way: it has ended, unless it has more to send."""
        if flow.on_end is not None and (self._is_held or not flow.has_unsent):
            self._end(flow)

    # -- ends -----------------------------------------------------------------------------------------------------

    def _end_finished(self) -> None:
        """Flows that no answer will end: QoS 0, and those held behind a refusal."""
        for flow in self._flows:
            if not flow.flying:
                self._landed(flow)

    def _end(self, flow: Flow) -> None:
        """Say how this offer of a flow ended."""
        if flow in self._waiting:
            self._waiting.remove(flow)
        error = flow.failure()
        if error is not None:
            flow.is_reported = True
        elif flow.has_unsent:
            error = held_back()
        else:
            self._busy_s = BUSY_FIRST_S
            self._flows.discard(flow)
        self._tell(flow, error)

    def _tell(self, flow: Flow, error: GatewayError | None) -> None:
        on_end, flow.on_end = flow.on_end, None
        if on_end is not None:
            on_end(error)
