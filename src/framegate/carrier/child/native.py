"""The process of one native driver. carrier/child_process.py starts it with a bare interpreter, and nobody else.

It says HELLO, is told what to load and what it may, gives up everything else, loads the library from a sealed file,
and then makes the gateway's calls on it, one at a time. A thread says every half second that a call goes on: only
while the driver waits for its device, or has moved bytes since. It ends when the gateway hangs up or asks for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time

from framegate.carrier.child.abi import Library, LibraryRefused, Status
from framegate.carrier.child.channel import Channels
from framegate.carrier.child.confinement import Confinement, Limits, ParentGone, attend_parent
from framegate.carrier.child.instance import Answer, Instance
from framegate.carrier.child.wire import (
    BEAT_S,
    HEADER,
    MESSAGE_BYTES_MAX,
    NOT_LOADED,
    PACKET_BYTES_MAX,
    START,
    Grant,
    Header,
    Message,
    header_of,
    packets,
)

THREAD_STACK_BYTES = 128 * 1024
CALL_FDS_MAX = 2


def main(number: int, parent: int) -> None:
    """Serve over the inherited socket with that file descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which tells us
    with contextlib.suppress(ParentGone, BrokenPipeError, ConnectionResetError):
        attend_parent(parent, number)
        Process(socket.socket(fileno=number)).serve()


class Process:
    """The conversation with the gateway."""

    def __init__(self, gateway: socket.socket) -> None:
        self._gateway = gateway
        self._channels: Channels | None = None
        self._call = 0
        self._instance: Instance | None = None

    def serve(self) -> None:
        """Until the gateway hangs up or asks for the end."""
        self._send(Message.HELLO, 0, Answer(0, 0, ()))
        while True:
            received = self._receive()
            if received is None:
                return
            header, body, fds = received
            if header.kind == Message.CANCEL:  # of a call that has been answered
                continue
            self._call = header.call
            if header.kind == Message.START:
                answer = self._start(body, fds)
            elif self._instance is None:
                answer = Answer(Status.INVALID, 0, ())
            elif header.kind == Message.DISCONNECT:
                self._instance.leave()
                answer = Answer(Status.OK, 0, ())
            else:
                answer = self._instance.answer(header.kind, header.status, header.rows, body)
            self._call = 0
            self._send(Message.DONE, header.call, answer)
            if header.kind == Message.DISCONNECT:
                return

    def _start(self, body: memoryview, fds: list[int]) -> Answer:
        """Confine, load, create."""
        memory, flags, home_bytes = START.unpack_from(body)
        home = bytes(body[START.size : START.size + home_bytes]).decode()
        options = bytes(body[START.size + home_bytes :])
        library, *lines = fds
        sockets = [socket.socket(fileno=each) for each in lines]
        for each in sockets:
            each.setblocking(False)
        confinement = Confinement(Limits(memory, bool(flags & Grant.NETWORK), home if flags & Grant.HOME else ""))
        confinement.begin()
        self._channels = Channels(sockets, self._gateway.fileno(), self._log)
        threading.stack_size(THREAD_STACK_BYTES)
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        try:
            loaded = Library(f"/proc/self/fd/{library}", confinement.end)
        except LibraryRefused as error:
            return Answer(NOT_LOADED, 0, (str(error).encode(),))
        os.close(library)
        instance = Instance(loaded, self._channels)
        created = instance.create(options)
        if created.status != Status.OK:
            return created
        self._instance = instance
        return Answer(Status.OK, 0, ("; ".join(confinement.missing).encode(),))

    def _receive(self) -> tuple[Header, memoryview, list[int]] | None:
        """The next message; None: the gateway has gone."""
        body, fds = bytearray(), []
        while True:
            packet, got, _, _ = socket.recv_fds(self._gateway, PACKET_BYTES_MAX, CALL_FDS_MAX)
            fds += got
            if not packet or len(body) > MESSAGE_BYTES_MAX:
                return None
            header = header_of(packet)
            body += packet[HEADER.size :]
            if not header.is_more:
                return header, memoryview(bytes(body)), fds

    def _send(self, kind: Message, call: int, answer: Answer) -> None:
        for packet in packets(kind, call, answer.status, answer.rows, answer.parts):
            self._gateway.sendall(packet)

    def _log(self, level: int, text: bytes) -> None:
        self._send(Message.LOG, 0, Answer(level, 0, (text,)))

    def _beat(self) -> None:
        seen = 0
        while True:
            time.sleep(BEAT_S)
            channels, call = self._channels, self._call
            if call and channels is not None and (channels.is_waiting or channels.moved != seen):
                self._send(Message.BEAT, call, Answer(0, 0, ()))
                seen = channels.moved
