"""Addresses of endpoints: `tcp://plc1:502`, `tls+tcp://broker:8883`, `serial:///dev/ttyUSB0?baud=9600`.

A URL says where and how the line runs, nothing of the protocol on it and nothing secret: user names and
passwords are refused, and every message shows a URL without them. IPv6 addresses stand in brackets.
Source: RFC 3986; the serial query is in serial_settings.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from framegate.contract.errors import Misconfigured
from framegate.endpoint.serial_settings import SERIAL_KEYS, settings_from_query

SCHEMES: Final = ("tcp", "tls+tcp", "udp", "serial", "memory")
URL_CHARACTERS_MAX = 2048
_LIKELY = {
    "tls": "tls+tcp", "ssl": "tls+tcp", "tcps": "tls+tcp", "tcp+tls": "tls+tcp", "mqtts": "tls+tcp", "https": "tls+tcp",
    "opc.tcp": "tcp", "mqtt": "tcp", "modbus": "tcp", "http": "tcp", "tcp4": "tcp", "tcp6": "tcp",
    "rtu": "serial", "com": "serial", "tty": "serial", "file": "serial", "rs485": "serial", "mem": "memory",
}  # fmt: skip
_EXAMPLES = {
    "tcp": "tcp://192.168.0.10:502", "tls+tcp": "tls+tcp://broker.example:8883", "udp": "udp://192.168.0.10:47808",
    "serial": "serial:///dev/ttyUSB0?baud=9600", "memory": "memory://bench",
}  # fmt: skip
_SECRET_PART = re.compile(r"(://|^).*@")
_HOST = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class EndpointUrl:
    """One address.

    host  without brackets; the name of a memory line
    port  0 asks a listener for any free one
    path  device of a serial line
    """

    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    query: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def place(self) -> str:
        """For messages: scheme, host and port or device, without the query."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def __str__(self) -> str:
        return f"{self.place}?{urlencode(self.query, quote_via=quote)}" if self.query else self.place


def parse_url(text: str) -> EndpointUrl:
    """The address a text stands for.

    raises Misconfigured E2001-E2007 - naming the part at fault, what is allowed, and a likely correction
    """
    if len(text) > URL_CHARACTERS_MAX or any(ord(character) <= 32 for character in text):
        raise _wrong(text, "holds spaces or control characters, or is too long; write one address", "E2001")
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise _wrong(text, f"has no scheme; write e.g. {_EXAMPLES['tcp']} or {_EXAMPLES['serial']}", "E2001")
    if "@" in rest.partition("?")[0]:
        raise _wrong(text, "holds a user name or password; move them to `credentials:` in the same row", "E2005")
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        raise _wrong(
            text, f'has the unknown scheme "{scheme}"; allowed: {", ".join(SCHEMES)}{_suggestion(scheme)}', "E2002"
        )
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _wrong(
            text, "has a host that cannot be read; write IPv6 in brackets: tcp://[fe80::1]:502", "E2003"
        ) from None
    if parts.fragment or text.endswith("#"):
        raise _wrong(text, "has a part after #; remove it", "E2001")
    if scheme == "serial":
        return _serial(text, parts)
    if scheme == "memory":
        return _memory(text, parts)
    return _network(text, scheme, parts)


def _network(text: str, scheme: str, parts: SplitResult) -> EndpointUrl:
    if parts.netloc.count(":") > 1 and not parts.netloc.startswith("["):
        raise _wrong(text, "has an IPv6 host without brackets; write e.g. tcp://[fe80::1]:502", "E2003")
    host = parts.hostname or ""
    if not host or not (parts.netloc.startswith("[") or _HOST.fullmatch(host)):
        raise _wrong(text, f"has no usable host; write e.g. {_EXAMPLES[scheme]}", "E2003")
    try:
        port = parts.port
    except ValueError:
        raise _wrong(text, "has a port that is not a number from 1 to 65535", "E2004") from None
    if port is None:
        raise _wrong(text, f"has no port; write e.g. {_EXAMPLES[scheme]}", "E2004")
    if parts.path not in {"", "/"}:
        raise _wrong(text, f'has the path "{parts.path}", which {scheme} lines do not use; remove it', "E2007")
    _query(text, parts, ())
    return EndpointUrl(scheme, host, port)


def _serial(text: str, parts: SplitResult) -> EndpointUrl:
    if parts.netloc or len(parts.path) < 2:
        device = f"/{parts.netloc}{parts.path}" if parts.netloc == "dev" else "/dev/ttyUSB0"
        raise _wrong(text, f"has no device path; did you mean serial://{device}? (three slashes)", "E2007")
    query = _query(text, parts, SERIAL_KEYS)
    try:
        settings_from_query(query)
    except ValueError as error:
        raise _wrong(text, f"has a setting that cannot work: {error}", "E2006") from error
    return EndpointUrl("serial", path=parts.path, query=query)


def _memory(text: str, parts: SplitResult) -> EndpointUrl:
    if not _HOST.fullmatch(parts.netloc):
        raise _wrong(text, f"has no usable name; write e.g. {_EXAMPLES['memory']}", "E2003")
    if parts.path not in {"", "/"}:
        raise _wrong(text, f'has the path "{parts.path}"; a memory line has a name only', "E2007")
    _query(text, parts, ())
    return EndpointUrl("memory", parts.netloc)


def _query(text: str, parts: SplitResult, allowed: tuple[str, ...]) -> Mapping[str, str]:
    """The query as a mapping: known keys, each once, each with a value."""
    query: dict[str, str] = {}
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _wrong(text, "has a query that is not key=value&key=value", "E2006") from None
    for key, value in pairs:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            known = f"allowed: {', '.join(allowed)}" if allowed else "this scheme has none"
            raise _wrong(text, f'has the unknown query key "{key}"; {known}{hint}', "E2006")
        if key in query:
            raise _wrong(text, f'has the query key "{key}" twice; keep one', "E2006")
        if not value:
            raise _wrong(text, f'has the query key "{key}" without a value; write {key}=...', "E2006")
        query[key] = value
    return MappingProxyType(query)


def _suggestion(scheme: str) -> str:
    close = difflib.get_close_matches(scheme, SCHEMES, 1)
    likely = _LIKELY.get(scheme) or (close[0] if close else "")
    return f"; did you mean {likely}?" if likely else ""


def _wrong(text: str, what: str, code: str) -> Misconfigured:
    """An error that shows the address without its query and without anything that may be a secret."""
    shown = _SECRET_PART.sub(r"\1***@", text.partition("?")[0])[:120]
    return Misconfigured(f'url "{shown}" {what}', code=code)
