"""Judge: a server made with open62541 (package o6), in a process of its own, because it ends one after ten minutes.

    python open62541.py PORT TAGS [CERTIFICATE KEY]

Doubles `ns=1;s=t0` on, one node of each type, and with a certificate the user "operator" with "secret". Says "ready".
"""

from __future__ import annotations

import signal
import sys
from datetime import UTC, datetime
from typing import Any

import o6  # type: ignore[import-untyped]
from o6.ns import ns0  # type: ignore[import-untyped]

VALUES: dict[str, Any] = {
    "boolean": o6.Boolean(True),
    "sbyte": o6.SByte(-128),
    "byte": o6.Byte(255),
    "int16": o6.Int16(-(2**15)),
    "uint16": o6.UInt16(2**16 - 1),
    "int32": o6.Int32(-(2**31)),
    "uint32": o6.UInt32(2**32 - 1),
    "int64": o6.Int64(-(2**63)),
    "uint64": o6.UInt64(2**64 - 1),
    "float": o6.Float(1.5),
    "double": o6.Double(-1e300),
    "string": o6.String("液位"),
    "guid": o6.Guid("72962b91-fa75-4ae6-8d28-b404dc7daf63"),
    "bytestring": o6.ByteString(b"\x00\xff"),
    "datetime": o6.DateTime(datetime(2026, 11, 26, 12, tzinfo=UTC)),
    "localized": o6.LocalizedText("pump", "en"),
    "array": [o6.Double(1.0), o6.Double(2.0), o6.Double(3.0)],
}


class Users(o6.AccessControl):  # type: ignore[misc]
    """Anonymous, and one user with a password."""

    def __init__(self) -> None:
        super().__init__(anonymous=True, username=True)

    def activateSession(self, endpoint: Any, remoteCertificate: bytes, session: Any, userIdentityToken: Any) -> Any:  # noqa: N802, N803 - as o6 calls it
        if isinstance(userIdentityToken, ns0.datatypes.UserNameIdentityToken):
            password = bytes(userIdentityToken.password)
            if str(userIdentityToken.userName) == "operator" and password == b"secret":
                return None
            raise o6.StatusCodeError(o6.StatusCode.BAD_USER_ACCESS_DENIED)
        return None


def serve(port: int, tags: int, *pair: str) -> None:
    options: dict[str, Any] = {}
    if pair:
        options = {
            "certificate": pair[0], "privateKey": pair[1], "acceptAllCertificates": True,
            "applicationUri": "urn:judge:open62541", "accessControl": Users(),
        }  # fmt: skip
    server = o6.Server(port=port, **options)
    if not pair:  # with a certificate the configuration is closed by now
        server.config.maxSubscriptionsPerSession = 8
    for number in range(tags):
        server.addVariable(f"t{number}", server.objectsNode, o6.Double(number), nodeId=f"ns=1;s=t{number}")
    for name, value in VALUES.items():
        server.addVariable(name, server.objectsNode, value, nodeId=f"ns=1;s={name}")
    with server:
        print("ready", flush=True)  # noqa: T201 - its voice
        while True:
            signal.pause()


serve(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
