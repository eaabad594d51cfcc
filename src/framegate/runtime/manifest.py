"""Reading one `plugin.toml`: text in, Manifest or Misconfigured out. No code of the plugin is touched.

The format is described in contract/plugin.py. Unknown keys are refused, because a misspelt optional key would
otherwise be ignored without a word.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, get_args

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import PLUGIN_API, Manifest, Protocol, Role, RoleEntry

MANIFEST_NAME = "plugin.toml"
MANIFEST_BYTES_MAX = 64 * 1024
SCHEMA_BYTES_MAX = 1024 * 1024
ROLES: tuple[Role, ...] = get_args(Role)
_GRADES = ("A", "B", "T", "D")
_TOP_KEYS = ("name", "api", "version", "summary", "protocol", *ROLES)
_ROLE_KEYS = ("entry", "schema", "endpoint")
_PROTOCOL_KEYS = ("name", "roles", "grade", "judges")
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_T = TypeVar("_T")


def read_manifest(path: Path) -> Manifest:
    """The manifest in that file.

    raises Misconfigured E1200 - unreadable or no TOML; E1201 - a key; E1202 - another plugin API; E1204 - a schema
    """
    table = _toml(path)
    _refuse_unknown(path, "", table, _TOP_KEYS)
    name = _value(path, "", table, "name", str)
    if not name or not set(name) <= _NAME_CHARACTERS:
        _refuse(path, "name", f"{name!r} is not made of a-z, 0-9, - and _")
    api = _value(path, "", table, "api", int)
    if api != PLUGIN_API:
        raise Misconfigured(
            f"{path}: api = {api}, this gateway speaks plugin API {PLUGIN_API}; install a matching version of "
            f"plugin {name}",
            code="E1202",
        )
    roles = {role: _role(path, role, table[role]) for role in ROLES if role in table}
    if not roles:
        _refuse(path, "driver", f"no role is declared; add a table for one of {', '.join(ROLES)}")
    rows = table.get("protocol", [])
    if not isinstance(rows, list):
        _refuse(path, "protocol", "must be written as [[protocol]]")
    return Manifest(
        name=name,
        api=api,
        version=_value(path, "", table, "version", str),
        summary=_value(path, "", table, "summary", str),
        folder=path.parent,
        roles=roles,
        protocols=tuple(_protocol(path, f"protocol[{index}].", row, roles) for index, row in enumerate(rows)),
    )


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MANIFEST_BYTES_MAX:
            raise Misconfigured(f"{path}: longer than {MANIFEST_BYTES_MAX} bytes; shorten it", code="E1200")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise Misconfigured(f"{path}: cannot be read ({reason}); check its rights", code="E1200") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8", code="E1200") from error
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{path}: is not TOML: {error}; correct that place", code="E1200") from error


def _role(path: Path, role: Role, row: object) -> RoleEntry:
    place = f"{role}."
    table = _table(path, role, row)
    _refuse_unknown(path, place, table, _ROLE_KEYS)
    entry = _value(path, place, table, "entry", str)
    module, separator, attribute = entry.partition(":")
    if not separator or not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        _refuse(path, f"{place}entry", f"{entry!r} is not of the form package.module:Name")
    schema = _schema(path, place, table["schema"]) if "schema" in table else {}
    return RoleEntry(entry, schema, _words(path, place, table, "endpoint"))


def _schema(path: Path, place: str, name: object) -> Mapping[str, Any]:
    if not isinstance(name, str) or "/" in name or name in {"", ".", ".."}:
        _refuse(path, f"{place}schema", f"{name!r} is not the name of a file beside the manifest")
    file = path.parent / name
    try:
        if file.stat().st_size > SCHEMA_BYTES_MAX:
            raise Misconfigured(f"{file}: longer than {SCHEMA_BYTES_MAX} bytes; shorten it", code="E1204")
        schema = json.loads(file.read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
        text = f"{path}: {place}schema names {name}, which cannot be read ({reason}); correct the name or add the file"
        raise Misconfigured(text, code="E1204") from error
    except (ValueError, RecursionError) as error:
        raise Misconfigured(f"{file}: is not JSON ({error}); correct that place", code="E1204") from error
    if not isinstance(schema, dict):
        raise Misconfigured(f"{file}: a schema is a JSON object; begin it with {{", code="E1204")
    return schema


def _protocol(path: Path, place: str, row: object, roles: Mapping[Role, RoleEntry]) -> Protocol:
    table = _table(path, place, row)
    _refuse_unknown(path, place, table, _PROTOCOL_KEYS)
    grade = _value(path, place, table, "grade", str)
    if grade not in _GRADES:
        _refuse(path, f"{place}grade", f"{grade!r} is not one of {', '.join(_GRADES)}")
    spoken = _words(path, place, table, "roles")
    for role in spoken:
        if role not in roles:
            _refuse(path, f"{place}roles", f"{role!r} is no role of this plugin; it has {', '.join(roles)}")
    name = _value(path, place, table, "name", str)
    judges = _value(path, place, table, "judges", str)
    return Protocol(name, spoken, cast(Any, grade), judges)  # grade was checked above


def _table(path: Path, place: str, row: object) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        _refuse(path, place.rstrip("."), "must be a table")
    return row


def _value(path: Path, place: str, table: Mapping[str, Any], key: str, type_: type[_T]) -> _T:
    if key not in table:
        _refuse(path, f"{place}{key}", "is missing")
    value = table[key]
    if not isinstance(value, type_) or isinstance(value, bool):
        _refuse(path, f"{place}{key}", f"{value!r} is not {'text' if type_ is str else 'a whole number'}")
    return value


def _words(path: Path, place: str, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        _refuse(path, f"{place}{key}", f"{value!r} is not a list of text")
    return tuple(value)


def _refuse_unknown(path: Path, place: str, table: Iterable[str], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            _refuse(path, f"{place}{key}", f"is no key of a manifest; allowed here: {', '.join(known)}{guess}")


def _refuse(path: Path, key: str, reason: str) -> NoReturn:
    raise Misconfigured(f"{path}: {key}: {reason}; correct the manifest", code="E1201")
