"""`edge dlq`: messages that a remote refused for good. Lists, exports, sends again, throws away.

What a running gateway holds is asked of it; a stopped one's are read from its store, which nothing here changes.
Sending again and throwing away need the gateway that runs.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

from cyclopts import Parameter

from framegate.bus import inspect
from framegate.cli import exits
from framegate.cli.moment import moment
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.talk import complain, say
from framegate.contract.errors import Busy, DeviceRefused, GatewayError, Misconfigured, NotConnected
from framegate.contract.letter import DeadLetter
from framegate.gateway.home import Home
from framegate.observe.face import LetterRow
from framegate.ops.client import ControlClient

_COLUMNS = ("id", "rows", "topic", "size", "tries", "since", "reason")
_OUTCOME_COLUMNS = ("id", "outcome", "detail")
NOT_RUNNING = "E4010"

ConnectorOption = Annotated[str, Parameter(name=["--connector", "-c"], help="Only letters of this connector.")]
Ids = Annotated[list[str] | None, Parameter(help="Ids as `edge dlq ls` shows them: connector/position.")]


def ls(
    *,
    connector: ConnectorOption = "",
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="The same as --output json.")] = False,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """List letters by connector and position: what was refused, how often, and why."""
    with _source(home) as source:
        count = write_rows(map(_row, source.rows(connector)), _COLUMNS, "json" if as_json else output)
    if count == 0:
        say("no letters" if not connector else f"no letters of connector {connector}")
    return exits.OK


def retry(
    ids: Ids = None,
    /,
    *,
    every: Annotated[bool, Parameter(name="--all", negative="", help="Every letter.")] = False,
    connector: ConnectorOption = "",
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Send letters again, one by one in order of their positions, beside what is delivered now.

    A letter that the remote takes is gone; one that it refuses stays. Exit code 1 when one stays.
    """
    if bool(ids) == (every or bool(connector)):
        text = "dlq retry: name letters by their ids, or all of them with --all, or those of one --connector"
        raise Misconfigured(text, code="E4025")
    with ControlClient(_socket(home)) as gateway:
        chosen = sorted(ids, key=_order) if ids else [row.id for row in gateway.letters(connector)]
        stayed = 0

        def outcomes() -> Iterator[Mapping[str, Any]]:
            nonlocal stayed
            for id_ in chosen:
                outcome = _retried(gateway, id_)
                stayed += outcome["outcome"] != "taken"
                yield outcome

        write_rows(outcomes(), _OUTCOME_COLUMNS, output)
    if not chosen:
        say("no letters")
    return exits.FAILED if stayed else exits.OK


def drop(
    ids: Annotated[list[str], Parameter(help="Ids as `edge dlq ls` shows them.")], /, *, home: HomeOption = HOME_DEFAULT
) -> int:
    """Throw letters away for good; `edge dlq export` keeps a copy."""
    code = exits.OK
    with ControlClient(_socket(home)) as gateway:
        for id_ in ids:
            try:
                gateway.drop_letter(id_)
            except DeviceRefused as error:
                complain(str(error))
                code = exits.FAILED
    return code


def export(
    file: Annotated[str, Parameter(allow_leading_hyphen=True, help="A file that does not exist yet; - for stdout.")],
    /,
    *,
    connector: ConnectorOption = "",
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Write letters as JSON lines, without loss: payload as text where it is text, else as base64."""
    with _source(home) as source, _opened(file) as stream:
        count = 0
        for row in source.rows(connector):
            try:
                letter = source.letter(row)
            except DeviceRefused:  # it went between listing and asking
                continue
            stream.write(json.dumps(exported(letter), ensure_ascii=False) + "\n")
            count += 1
    say(f"{count:,} letters written")
    return exits.OK


def exported(letter: DeadLetter) -> Mapping[str, Any]:
    """A letter as one line of an export."""
    return {
        "id": letter.id,
        "connector": letter.connector,
        "position": letter.position,
        "rows": letter.rows,
        **_text_or_base64("topic", letter.key),
        "encoding": letter.encoding,
        "reason": letter.reason,
        "tries": letter.tries,
        "since_ns": letter.since_ns,
        "tried_ns": letter.tried_ns,
        **_text_or_base64("payload", letter.payload),
    }


def _text_or_base64(name: str, data: bytes) -> Mapping[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


class _Source:
    """Where letters are read: rows(connector) lists them, letter(row) is one with its payload."""

    def __init__(self, rows: Callable[[str], Iterator[LetterRow]], letter: Callable[[LetterRow], DeadLetter]) -> None:
        self.rows, self.letter = rows, letter


@contextmanager
def _source(home: Path) -> Iterator[_Source]:
    """The running gateway, or the store of a stopped one."""
    try:
        gateway = ControlClient(_socket(home))
    except NotConnected as error:
        if error.stable_code != NOT_RUNNING:
            raise
    else:
        with gateway:
            yield _Source(gateway.letters, gateway.letter)
        return
    with inspect.letters(Home(home.resolve()).data) as book:
        yield _Source(lambda connector: iter(book.rows(connector)), book.letter)


def _order(id_: str) -> tuple[str, int, str]:
    """Connector, then position; what is no id keeps its place by its text."""
    connector, _, position = id_.rpartition("/")
    return connector, int(position) if position.isdecimal() else 0, position


def _retried(gateway: ControlClient, id_: str) -> Mapping[str, Any]:
    try:
        left = gateway.retry_letter(id_)
    except Busy as error:
        return {"id": id_, "outcome": "not sent", "detail": str(error)}
    except GatewayError as error:
        if error.stable_code in {NOT_RUNNING, "E4016"}:  # the gateway itself is gone, or hangs: nothing more will work
            raise
        return {"id": id_, "outcome": "not sent", "detail": str(error)}
    if left is None:
        return {"id": id_, "outcome": "taken", "detail": ""}
    return {"id": id_, "outcome": "refused", "detail": f"try {left.tries}: {left.reason}"}


@contextmanager
def _opened(file: str) -> Iterator[IO[str]]:
    if file == "-":
        yield sys.stdout
        return
    try:
        stream = Path(file).open("x", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed below
    except OSError as error:
        text = f"export to {file}: {error.strerror}; name a file that does not exist yet, in a folder you may write to"
        raise Misconfigured(text, code="E4024") from error
    with stream:
        yield stream


def _socket(home: Path) -> Path:
    return Home(home.resolve()).socket


def _row(letter: LetterRow) -> Mapping[str, Any]:
    return {
        "id": letter.id,
        "connector": letter.connector,
        "position": letter.position,
        "rows": letter.rows,
        "topic": letter.key,
        "encoding": letter.encoding,
        "size": letter.size,
        "tries": letter.tries,
        "since": moment(letter.since_ns),
        "tried": moment(letter.tried_ns),
        "reason": letter.reason,
    }
