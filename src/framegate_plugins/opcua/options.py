"""Options of an OPC UA driver's row, checked and turned into types. `driver.schema.json` describes them for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from framegate.contract.errors import Misconfigured, Problem
from framegate.endpoint.quantity import seconds_from

Security: TypeAlias = Literal["sign_and_encrypt", "sign", "none"]
Policy: TypeAlias = Literal["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
Identity: TypeAlias = Literal["auto", "anonymous", "user", "certificate"]
Mode: TypeAlias = Literal["subscribe", "poll"]
SourceTime: TypeAlias = Literal["source", "server", "gateway"]
TIMEOUT_S_MIN, TIMEOUT_S_MAX = 0.1, 60.0
ITEMS_MAX: Final = 100_000
"""Of one request, where the server names no limit of its own."""
ITEMS_PER_CALL: Final = 1_000
ITEMS_PER_SUBSCRIPTION: Final = 10_000
WRONG: Final = "E2730"


@dataclass(frozen=True, slots=True)
class Options:
    """A driver's row, parsed.

    path        behind host and port in the server's endpoint URL
    items_per_call, items_per_subscription   at most; what the server says counts where it is less
    """

    path: str = ""
    security: Security = "sign_and_encrypt"
    policy: Policy = "Basic256Sha256"
    identity: Identity = "auto"
    user_certificate: str = ""
    mode: Mode = "subscribe"
    timeout_s: float = 5.0
    source_time: SourceTime = "source"
    items_per_call: int = ITEMS_PER_CALL
    items_per_subscription: int = ITEMS_PER_SUBSCRIPTION
    write_timestamp: bool = False


def parse_options(row: Mapping[str, Any]) -> Options:
    """Options from the `options:` mapping of a driver's row.

    raises Misconfigured - with one problem per wrong option
    """
    reader = _Reader(row)
    options = Options(
        path=reader.text("path"),
        security=cast(Security, reader.choice("security", get_args(Security))),
        policy=cast(Policy, reader.choice("policy", get_args(Policy))),
        identity=cast(Identity, reader.choice("identity", get_args(Identity))),
        user_certificate=reader.text("user_certificate"),
        mode=cast(Mode, reader.choice("mode", get_args(Mode))),
        timeout_s=reader.seconds("timeout", 5.0, TIMEOUT_S_MIN, TIMEOUT_S_MAX),
        source_time=cast(SourceTime, reader.choice("source_time", get_args(SourceTime))),
        items_per_call=reader.integer("items_per_call", ITEMS_PER_CALL, 1, ITEMS_MAX),
        items_per_subscription=reader.integer("items_per_subscription", ITEMS_PER_SUBSCRIPTION, 1, ITEMS_MAX),
        write_timestamp=reader.flag("write_timestamp"),
    )
    if options.path and not options.path.startswith("/"):
        reader.wrong("path", f"{options.path!r} begins with no /; write it as in the server's URL")
    if (options.identity == "certificate") != bool(options.user_certificate):
        reader.wrong("user_certificate", "identity: certificate and user_certificate go together")
    if "/" in options.user_certificate or options.user_certificate.startswith("."):
        reader.wrong("user_certificate", "name a file in pki/own without its suffix")
    reader.finish()
    return options


class _Reader:
    """Takes options one by one and gathers every mistake."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row
        self.known: set[str] = set()
        self.problems: list[Problem] = []

    def text(self, key: str) -> str:
        value = self._take(key, "")
        if isinstance(value, str):
            return value
        self.wrong(key, f"{value!r} is no text")
        return ""

    def flag(self, key: str) -> bool:
        value = self._take(key, False)
        if isinstance(value, bool):
            return value
        self.wrong(key, f"{value!r} is neither true nor false")
        return False

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._take(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(key, f"{value!r} is not a whole number from {low} to {high}")
        return default

    def seconds(self, key: str, default: float, low: float, high: float) -> float:
        try:
            value = seconds_from(self._take(key, default))
        except ValueError as error:
            self.wrong(key, str(error))
            return default
        if not low <= value <= high:
            self.wrong(key, f"{value:g} s is outside {low:g} s to {high:g} s")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """The first allowed value is the default."""
        value = self._take(key, allowed[0])
        if value in allowed:
            return str(value)
        self.wrong(key, f"{value!r} is not one of {', '.join(allowed)}")
        return allowed[0]

    def wrong(self, key: str, text: str) -> None:
        self.problems.append(Problem("drivers", ("options", key), WRONG, f"option {key}: {text}"))

    def finish(self) -> None:
        """Refuse what is not known; raises Misconfigured."""
        for key in self.row.keys() - self.known:
            self.wrong(key, f"is no option of opcua; there are {', '.join(sorted(self.known))}")
        if self.problems:
            first = self.problems[0].text
            raise Misconfigured(f"{first} ({len(self.problems)} in all)", code=WRONG, problems=self.problems)

    def _take(self, key: str, default: object) -> Any:
        self.known.add(key)
        return self.row.get(key, default)
