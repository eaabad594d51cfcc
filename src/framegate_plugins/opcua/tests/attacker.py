"""A hostile client as a process of its own: strings of bytes at a bridge, half of them before a login, half behind one.

    python attacker.py PORT COUNT SEED

Before a login: random bytes, and valid first messages with bytes changed, cut off or repeated, from many addresses of
127.0.0.0/8, so that no bound on one address spares the bridge the work. Behind a login: messages that are whole and in
order, with requests in them that are not. Prints how many strings it sent, and how many connections it took.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import sys
from typing import Any

import asyncua
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, struct_to_binary

ua: Any = vars(asyncua)["ua"]
TIMEOUT_S = 5.0
ANSWER_S = 0.02
BEHIND_ONE_LOGIN = 500
"""Strings that one session sends, unless the bridge ends it before."""
HELLO_BODY = struct.pack("<IIIII", 0, 65_536, 65_536, 0, 0) + b"\x10\x00\x00\x00opc.tcp://h:4840"
POLICY_NONE = b"http://opcfoundation.org/UA/SecurityPolicy#None"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", 8 + len(body)) + body


HELLO = message(b"HELF", HELLO_BODY)


class Raw:
    """A client that frames by itself, without security."""

    def __init__(self, port: int, address: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S, (address, 0))
        self.sequence = 0
        self.channel = self.token = 0
        self.auth = ua.NodeId()

    def login(self) -> None:
        self.socket.sendall(HELLO)
        self.receive()
        request = ua.OpenSecureChannelRequest()
        request.Parameters.RequestType = ua.SecurityTokenRequestType.Issue
        request.Parameters.SecurityMode = ua.MessageSecurityMode.None_
        request.Parameters.RequestedLifetime = 3_600_000
        secure = struct.pack("<I", len(POLICY_NONE)) + POLICY_NONE + b"\xff" * 8
        body = struct.pack("<I", 0) + secure + self._sequence() + struct_to_binary(request)
        self.socket.sendall(message(b"OPNF", body))
        data = asyncua.common.utils.Buffer(self.receive()[12 + len(secure) + 8 :])
        nodeid_from_binary(data)
        struct_from_binary(ua.ResponseHeader, data)
        opened = struct_from_binary(ua.OpenSecureChannelResult, data)
        self.channel, self.token = opened.SecurityToken.ChannelId, opened.SecurityToken.TokenId
        created = self.ask(ua.CreateSessionRequest())
        nodeid_from_binary(created)
        struct_from_binary(ua.ResponseHeader, created)
        self.auth = struct_from_binary(ua.CreateSessionResult, created).AuthenticationToken
        activate = ua.ActivateSessionRequest()
        activate.Parameters.UserIdentityToken = ua.AnonymousIdentityToken("anonymous")
        self.ask(activate)

    def ask(self, request: Any) -> Any:
        request.RequestHeader.AuthenticationToken = self.auth
        self.send(struct_to_binary(request))
        return asyncua.common.utils.Buffer(self.receive()[24:])

    def send(self, body: bytes) -> None:
        secure = struct.pack("<II", self.channel, self.token)
        self.socket.sendall(message(b"MSGF", secure + self._sequence() + body))

    def receive(self) -> bytes:
        head = self._exactly(8)
        return head + self._exactly(struct.unpack("<I", head[4:])[0] - 8)

    def drain(self) -> None:
        """Take what is answered; a publish request is not answered at once."""
        self.socket.settimeout(ANSWER_S)
        with contextlib.suppress(TimeoutError):
            if not self.socket.recv(1_000_000):
                raise ConnectionError
        self.socket.settimeout(TIMEOUT_S)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            got = self.socket.recv(size - len(data))
            if not got:
                raise ConnectionError
            data += got
        return data

    def _sequence(self) -> bytes:
        self.sequence += 1
        return struct.pack("<II", self.sequence, self.sequence)


def before_login(dice: random.Random) -> bytes:
    """First bytes of a hostile client."""
    kind = dice.randrange(5)
    if kind == 0:
        return dice.randbytes(dice.randrange(1, 200))
    if kind == 1:
        return HELLO[: dice.randrange(len(HELLO))]
    if kind == 2:
        return HELLO + message(dice.choice((b"OPNF", b"MSGF", b"CLOF", b"HELF")), dice.randbytes(dice.randrange(200)))
    if kind == 3:
        secure = struct.pack("<II", 0, len(POLICY_NONE)) + POLICY_NONE + b"\xff" * 8 + struct.pack("<II", 1, 1)
        return HELLO + message(b"OPNF", secure + dice.randbytes(dice.randrange(120)))
    changed = bytearray(HELLO)
    for _ in range(dice.randrange(1, 5)):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


REQUESTS = (
    422, 428, 461, 467, 527, 533, 554, 560, 631, 664, 673, 712, 751, 763, 769, 781, 787, 793, 799, 826, 832, 841, 847,
)  # fmt: skip
"""Default Binary encodings, of services that are served and of two that are not."""
CLAIM = b"\x00\x05" + struct.pack("<I", 13) + b"\xff\xff\xff\xff" + b"\x01\x80" + struct.pack("<I", 0x7FFF_FFFF)
"""A value to write: an array of nothing, as long as can be claimed."""


def behind_login(dice: random.Random, auth: Any) -> bytes:
    """A request with a header that can be answered, and a body that cannot."""
    header = struct_to_binary(ua.RequestHeader(AuthenticationToken=auth, RequestHandle=dice.randrange(2**32)))
    kind = dice.randrange(3)
    if kind == 0:
        body = dice.randbytes(dice.randrange(300))
    elif kind == 1:
        body = struct.pack("<I", 1) + CLAIM
    else:
        counts = struct.pack("<IdI", dice.randrange(3), dice.random(), dice.randrange(2**31))
        body = counts + dice.randbytes(dice.randrange(3_000))
    return b"\x01\x00" + struct.pack("<H", dice.choice(REQUESTS)) + header + body


def main() -> None:
    port, count, dice = int(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    sent = connections = 0

    def address() -> str:
        return f"127.{dice.randrange(1, 255)}.{dice.randrange(1, 255)}.{dice.randrange(2, 255)}"

    while sent < count // 2:
        sent, connections = sent + 1, connections + 1
        line = socket.create_connection(("127.0.0.1", port), TIMEOUT_S, (address(), 0))
        with contextlib.suppress(OSError), line:
            line.sendall(before_login(dice))
            if dice.random() < 0.5:
                line.settimeout(0.02)
                line.recv(4_096)
    while sent < count:
        connections += 1
        with contextlib.suppress(OSError, ConnectionError):
            raw = Raw(port, address())
            try:
                raw.login()
                for _ in range(BEHIND_ONE_LOGIN):
                    if sent >= count:
                        break
                    raw.send(behind_login(dice, raw.auth))
                    sent += 1
                    raw.drain()
            finally:
                raw.socket.close()
    sys.stdout.write(f"{sent} {connections}\n")


if __name__ == "__main__":
    main()
