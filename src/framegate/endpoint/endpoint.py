"""Endpoints: rows of endpoints.yml, parsed once and believed from then on.

    broker:
      url: tls+tcp://broker.example:8883
      tls: {ca: certs/ca.pem, cert: certs/gw.pem, key: certs/gw.key, min: "1.2", server_name: broker.example}
      credentials: {username: gw1, password: "${env:BROKER_PASSWORD}"}
      connect_timeout: 5s

Every mistake of a row is reported at once. Verification has no off switch: a device with a certificate of its
own is trusted by naming that certificate as `ca`. Files are looked at by `check_endpoint`, not by the parser.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, unique
from pathlib import Path
from typing import Any, TypeVar

from framegate.contract.errors import Misconfigured, Problem
from framegate.contract.ports import Clock, Credentials
from framegate.endpoint.certificate import FileProblem, certificate_problems, pair_problems
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.quantity import bytes_from, seconds_from
from framegate.endpoint.secret import resolve
from framegate.endpoint.url import EndpointUrl, parse_url

LINES_PER_ENDPOINT_MAX = 8
CONNECT_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S_MAX = 300.0
WRITE_BUFFER_BYTES = 4 * 1024 * 1024
WRITE_BUFFER_BYTES_MIN = 1024
WRITE_BUFFER_BYTES_MAX = 256 * 1024 * 1024
CAPTURE_CHUNKS_MAX = 10_000
RATE_BYTES_PER_S_MAX = 1024**3

_NO_SWITCH = (
    "verification cannot be switched off; name the remote's own certificate, or its issuer's, as `ca`, "
    "and the name it carries as `server_name`"
)
_SWITCHES = (
    "verify",
    "insecure",
    "insecure_skip_verify",
    "skip_verify",
    "check_hostname",
    "verify_hostname",
    "validate",
)

T = TypeVar("T")


@unique
class TlsVersion(Enum):
    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


@unique
class Plaintext(Enum):
    """Whether a line may step down to no TLS at all when the remote speaks none."""

    NEVER = "never"
    ALLOWED = "allowed"


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Section `tls` of a row.

    ca            certificates to trust instead of the system's
    cert, key     what the gateway shows; key None: in the same file
    key_password  reference, see secret.py
    server_name   name the remote's certificate must carry; None: the host of the URL
    alpn          protocols to offer, best first
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    minimum: TlsVersion = TlsVersion.TLS_1_2
    server_name: str | None = None
    plaintext: Plaintext = Plaintext.NEVER
    alpn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CredentialsReference:
    """Where user name and password are; resolved when a protocol logs in."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address with everything needed to open a line to it.

    base                   folder that relative secret references start from
    connections            lines that leases are spread over, 1..LINES_PER_ENDPOINT_MAX
    capture_chunks         chunks of traffic kept for inspection; 0: none
    rate_bytes_per_s       bound on traffic, each way; 0: none
    """

    name: str
    url: EndpointUrl
    tls: TlsOptions | None = None
    credentials: CredentialsReference | None = None
    base: Path = Path()
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    write_buffer_bytes_max: int = WRITE_BUFFER_BYTES
    connections: int = 1
    capture_chunks: int = 0
    rate_bytes_per_s: int = 0

    def login(self) -> Credentials | None:
        """User name and password, resolved now.

        raises Misconfigured E2010 - a reference leads nowhere
        """
        if self.credentials is None:
            return None
        return Credentials(resolve(self.credentials.username, self.base), resolve(self.credentials.password, self.base))


def endpoint_from_row(name: str, row: Mapping[str, object], base: Path) -> Endpoint:
    """One row of endpoints.yml; relative paths start from `base`.

    raises Misconfigured - with one Problem for each mistake in the row
    """
    reader = _Row(("endpoints", name), row)
    keys = ("url", "tls", "credentials", "connect_timeout", "write_buffer", "connections", "capture", "rate_limit")
    reader.refuse_unknown(keys)
    # A url that cannot be read must not make its tls section wrong as well.
    url = reader.take("url", _url, EndpointUrl("tls+tcp" if "tls" in row else "tcp"))
    if row.get("url") is None:
        reader.wrong("url", "is missing; write e.g. url: tcp://192.168.0.10:502")
    endpoint = Endpoint(
        name=name,
        url=url,
        tls=_tls(reader, url, base),
        credentials=_credentials(reader),
        base=base,
        connect_timeout_s=reader.take("connect_timeout", _timeout, CONNECT_TIMEOUT_S),
        write_buffer_bytes_max=reader.take("write_buffer", _write_buffer, WRITE_BUFFER_BYTES),
        connections=reader.take("connections", _whole(1, LINES_PER_ENDPOINT_MAX), 1),
        capture_chunks=reader.take("capture", _whole(0, CAPTURE_CHUNKS_MAX), 0),
        rate_bytes_per_s=reader.take("rate_limit", _rate, 0),
    )
    if url.scheme == "serial" and endpoint.connections > 1:
        reader.wrong("connections", "must be 1 for a serial line: a port has one owner")
    if reader.problems:
        more = f" (and {len(reader.problems) - 1} more)" if len(reader.problems) > 1 else ""
        first = reader.problems[0]
        raise Misconfigured(f"endpoint {name}: {first.text}{more}", code=first.code, problems=reader.problems)
    return endpoint


def check_endpoint(endpoint: Endpoint, clock: Clock | None = None) -> list[Problem]:
    """What would keep a well-formed endpoint from opening: files, keys, dates, secrets. No network is touched."""
    problems: list[Problem] = []

    def add(section: str, key: str, code: str, text: str) -> None:
        problems.append(Problem("endpoints", ("endpoints", endpoint.name, section, key), code, text))

    if endpoint.tls is not None:
        for found in tls_file_problems(endpoint.tls, endpoint.base, (clock or SystemClock()).now_ns()):
            add("tls", found.key, found.code, found.text)
    if endpoint.credentials is not None:
        for key in ("username", "password"):
            try:
                resolve(getattr(endpoint.credentials, key), endpoint.base)
            except Misconfigured as error:
                add("credentials", key, error.stable_code, error.text)
    return problems


def tls_file_problems(options: TlsOptions, base: Path, now_ns: int) -> list[FileProblem]:
    """What is wrong with the files that TLS options name."""
    problems = certificate_problems("ca", options.ca, now_ns) if options.ca else []
    if options.cert is None:
        return problems
    own = certificate_problems("cert", options.cert, now_ns)
    problems += own
    if any(problem.code != "E2014" for problem in own):
        return problems  # a key cannot be compared with a certificate that cannot be read
    try:
        password = resolve(options.key_password or "", base)
    except Misconfigured as error:
        return [*problems, FileProblem("key_password", error.stable_code, error.text)]
    return problems + pair_problems(options.cert, options.key or options.cert, lambda: password)


class _Row:
    """One mapping of a row: takes values out of it and collects what is wrong with them."""

    def __init__(self, path: tuple[str, ...], row: Mapping[str, object], problems: list[Problem] | None = None) -> None:
        self.path = path
        self.row = row
        self.problems: list[Problem] = [] if problems is None else problems

    def wrong(self, key: str, text: str, code: str = "E2008") -> None:
        self.problems.append(Problem("endpoints", (*self.path, key), code, f"{key} {text}"))

    def take(self, key: str, parse: Callable[[Any], T], default: T) -> T:
        """The parsed value of a key; the default where it is absent or wrong."""
        value = self.row.get(key)
        if value is None:
            return default
        try:
            return parse(value)
        except Misconfigured as error:
            self.problems.append(Problem("endpoints", (*self.path, key), error.stable_code, error.text))
        except ValueError as error:
            self.wrong(key, str(error))
        return default

    def section(self, key: str) -> _Row | None:
        """A mapping under a key; None where it is absent or no mapping."""
        value = self.row.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.wrong(key, "must be a mapping of keys and values")
            return None
        return _Row((*self.path, key), value, self.problems)

    def refuse_unknown(self, allowed: tuple[str, ...]) -> None:
        for key in self.row:
            if key not in allowed:
                close = difflib.get_close_matches(str(key), allowed, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                self.wrong(str(key), f"is unknown here; allowed: {', '.join(allowed)}{hint}")


def _tls(reader: _Row, url: EndpointUrl, base: Path) -> TlsOptions | None:
    section = reader.section("tls")
    if section is None:
        return TlsOptions() if url.scheme == "tls+tcp" else None
    if url.scheme != "tls+tcp":
        reader.wrong(
            "tls", f"needs a url with tls+tcp://, this one has {url.scheme}://; change the url or remove tls", "E2009"
        )
    for switch in _SWITCHES:
        if switch in section.row:
            section.wrong(switch, _NO_SWITCH, "E2009")
    allowed = ("ca", "cert", "key", "key_password", "min", "server_name", "plaintext", "alpn")
    section.refuse_unknown((*allowed, *(switch for switch in _SWITCHES if switch in section.row)))
    options = TlsOptions(
        ca=section.take("ca", _file(base), None),
        cert=section.take("cert", _file(base), None),
        key=section.take("key", _file(base), None),
        key_password=section.take("key_password", _text, None),
        minimum=section.take("min", _minimum, TlsVersion.TLS_1_2),
        server_name=section.take("server_name", _text, None),
        plaintext=section.take("plaintext", _plaintext, Plaintext.NEVER),
        alpn=section.take("alpn", _alpn, ()),
    )
    if options.key and not options.cert:
        section.wrong("key", "stands alone; name the certificate it belongs to as cert", "E2009")
    return options


def _credentials(reader: _Row) -> CredentialsReference | None:
    section = reader.section("credentials")
    if section is None:
        return None
    section.refuse_unknown(("username", "password"))
    if not section.row.get("username"):
        section.wrong("username", 'is missing; write username and password, e.g. password: "${env:BROKER_PASSWORD}"')
    return CredentialsReference(section.take("username", _text, ""), section.take("password", _text, ""))


def _url(value: object) -> EndpointUrl:
    url = parse_url(_text(value))
    if url.port == 0:
        raise ValueError("has port 0, which only a listener can use; write a port from 1 to 65535")
    return url


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text; put it in quotes")  # noqa: TRY004 - collected as a problem of the table
    return value


def _file(base: Path) -> Callable[[object], Path | None]:
    return lambda value: base / _text(value)


def _minimum(value: object) -> TlsVersion:
    # YAML reads an unquoted 1.3 as a number; both spellings are meant.
    if str(value) not in {"1.2", "1.3"}:
        raise ValueError(f'is {value!r}; allowed: "1.2", "1.3"')
    return TlsVersion(str(value))


def _plaintext(value: object) -> Plaintext:
    if value not in {"never", "allowed"}:
        raise ValueError(f"is {value!r}; allowed: never, allowed")
    return Plaintext(value)


def _alpn(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and 0 < len(name) < 256 for name in value):
        raise ValueError("must be a list of protocol names, e.g. [mqtt]")
    return tuple(value)


def _timeout(value: object) -> float:
    seconds = seconds_from(value)
    if not 0.01 <= seconds <= CONNECT_TIMEOUT_S_MAX:
        raise ValueError(f"must lie between 10ms and {CONNECT_TIMEOUT_S_MAX:g}s, e.g. 5s")
    return seconds


def _write_buffer(value: object) -> int:
    size = bytes_from(value)
    if not WRITE_BUFFER_BYTES_MIN <= size <= WRITE_BUFFER_BYTES_MAX:
        raise ValueError("must lie between 1KiB and 256MiB, e.g. 4MiB")
    return size


def _rate(value: object) -> int:
    rate = bytes_from(value)
    if not 1 <= rate <= RATE_BYTES_PER_S_MAX:
        raise ValueError("must be bytes per second between 1 and 1GiB, e.g. 64KiB")
    return rate


def _whole(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return parse
