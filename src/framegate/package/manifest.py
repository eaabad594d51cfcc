"""Reading one `plugin.toml`, or the `driver.toml` of a package: text in, Manifest or Misconfigured out.

No code of the plugin is touched.

The format is described in contract/plugin.py. Unknown keys are refused, because a misspelt optional key would
otherwise be ignored without a word.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar, cast, get_args

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import (
    SUPPORTED_APIS,
    Manifest,
    PackagedFile,
    Permissions,
    Protocol,
    Role,
    RoleEntry,
    Shape,
    api_for,
)
from framegate.endpoint.durable import read_bounded, why
from framegate.package.names import clash_of, name_flaw

MANIFEST_NAME = "plugin.toml"
PACKAGE_MANIFEST_NAME = "driver.toml"
SIGNATURE_NAME = "driver.toml.sig"
MANIFEST_BYTES_MAX = 64 * 1024
SCHEMA_BYTES_MAX = 1024 * 1024
ROLES: tuple[Role, ...] = get_args(Role)
_GRADES = ("A", "B", "T", "D")
SHAPES: tuple[Shape, ...] = get_args(Shape)
MEMORY_MIN = 1 << 20
MEMORY_MAX = 1 << 32
FILES_MAX = 1000
FILE_BYTES_MAX = 64 << 20
SERIAL_MAX = (1 << 31) - 1
SUMMARY_CHARACTERS_MAX = 200
SCAN_S_MAX = 86_400
"""A driver that can do with less than one scan a day says nothing."""
_TOP_KEYS = ("name", "api", "version", "summary", "serial", "arch", "protocol", "permissions", "files", *ROLES)
_ROLE_KEYS = ("entry", "schema", "endpoint", "shape", "artifact")
_DRIVER_KEYS = (*_ROLE_KEYS, "scan_s_max")
_PERMISSION_KEYS = ("memory", "network", "home", "in_process")
_FILE_KEYS = ("sha256", "size")
_PROTOCOL_KEYS = ("name", "roles", "grade", "judges")
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}", re.ASCII)
_HEX = frozenset("0123456789abcdef")
_FILES_TABLE = re.compile(rb"(?ms)^[ \t]*\[[ \t]*files[ \t]*\].*?(?=^[ \t]*\[|\Z)")
_T = TypeVar("_T")


Read: TypeAlias = Callable[[str, int], bytes]
"""A file beside the manifest by name, and how many bytes it may have; raises OSError, or ValueError for more."""


def read_manifest(path: Path, *, is_project: bool = False) -> Manifest:
    """The manifest in that file.

    is_project  somebody works on its folder: `[files]` is of what was published last, and left out
    raises      Misconfigured E1200 - unreadable or no TOML; E1201 - a key; E1202 - another plugin API;
                E1204 - a schema; E4613, E4615 - a schema that is not the one that the manifest lists
    """
    try:
        data = read_bounded(path, MANIFEST_BYTES_MAX)
    except (OSError, ValueError) as error:
        text = f"{path}: cannot be read ({why(error)}); correct the file or its rights"
        raise Misconfigured(text, code="E1200") from error
    return manifest_of(
        without_files(data) if is_project else data,
        path,
        lambda name, bytes_max: read_bounded(path.parent / name, bytes_max),
    )


def without_files(text: bytes) -> bytes:
    """A manifest's text without its table `[files]`, where that is written plainly, as publishing writes it."""
    return _FILES_TABLE.sub(b"", text).rstrip() + b"\n"


def manifest_of(text: bytes, path: Path, read: Read) -> Manifest:
    """The manifest that a text is.

    path    where it stands, for texts and as the manifest's folder
    raises  as read_manifest
    """
    table = _toml(path, text)
    _refuse_unknown(path, "", table, _TOP_KEYS)
    name = _value(path, "", table, "name", str)
    if not name or not set(name) <= _NAME_CHARACTERS:
        _refuse(path, "name", f"{name!r} is not made of a-z, 0-9, - and _")
    api = _api(path, table)
    if api_for(api) is None:
        spoken = f"api = {api[0]}" if api[0] == api[1] else f"api = {api[0]} to {api[1]}"
        raise Misconfigured(
            f"{path}: {spoken}, this gateway speaks plugin API {', '.join(map(str, SUPPORTED_APIS))}; install a "
            f"matching version of plugin {name}",
            code="E1202",
        )
    files = _files(path, table.get("files", {}))
    schemas = _Schemas(path, read, files)
    roles = {role: _role(path, role, table[role], schemas) for role in ROLES if role in table}
    if not roles:
        _refuse(path, "driver", f"no role is declared; add a table for one of {', '.join(ROLES)}")
    rows = table.get("protocol", [])
    if not isinstance(rows, list):
        _refuse(path, "protocol", "must be written as [[protocol]]")
    return Manifest(
        name=name,
        api=api,
        version=_value(path, "", table, "version", str),
        summary=_summary(path, _value(path, "", table, "summary", str)),
        folder=path.parent,
        roles=roles,
        protocols=tuple(_protocol(path, f"protocol[{index}].", row, roles) for index, row in enumerate(rows)),
        serial=_whole(path, "serial", table["serial"], SERIAL_MAX) if "serial" in table else 0,
        arch=_value(path, "", table, "arch", str) if "arch" in table else "",
        permissions=_permissions(path, table.get("permissions", {})),
        files=files,
    )


def _toml(path: Path, text: bytes) -> Mapping[str, Any]:
    if len(text) > MANIFEST_BYTES_MAX:
        raise Misconfigured(f"{path}: longer than {MANIFEST_BYTES_MAX} bytes; shorten it", code="E1200")
    try:
        return tomllib.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8", code="E1200") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Misconfigured(f"{path}: is not TOML: {error}; correct that place", code="E1200") from error


def _api(path: Path, table: Mapping[str, Any]) -> tuple[int, int]:
    if not isinstance(table.get("api"), dict):
        api = _value(path, "", table, "api", int)
        return api, api
    span = table["api"]
    _refuse_unknown(path, "api.", span, ("min", "max"))
    return _value(path, "api.", span, "min", int), _value(path, "api.", span, "max", int)


def _role(path: Path, role: Role, row: object, schemas: _Schemas) -> RoleEntry:
    place = f"{role}."
    table = _table(path, role, row)
    _refuse_unknown(path, place, table, _DRIVER_KEYS if role == "driver" else _ROLE_KEYS)
    shape = table.get("shape", "python")
    if shape not in SHAPES:
        _refuse(path, f"{place}shape", f"{shape!r} is not one of {', '.join(SHAPES)}")
    if shape != "python" and role not in {"driver", "rule"}:
        _refuse(path, f"{place}shape", f"a {role} is written in Python; only drivers and rules have other shapes")
    entry = artifact = ""
    if shape == "python":
        entry = _entry(path, place, table)
    else:
        artifact = _file_name(path, f"{place}artifact", _value(path, place, table, "artifact", str))
    schema = schemas.schema(place, table["schema"]) if "schema" in table else {}
    endpoint = _words(path, place, table, "endpoint")
    for scheme in endpoint:
        if not _SCHEME.fullmatch(scheme):
            _refuse(path, f"{place}endpoint", f"{scheme!r:.40} is no scheme of an endpoint, such as tcp")
    scan_s_max = _whole(path, f"{place}scan_s_max", table.get("scan_s_max", 0), SCAN_S_MAX)
    return RoleEntry(entry, schema, endpoint, cast(Shape, shape), artifact, scan_s_max)


def _entry(path: Path, place: str, table: Mapping[str, Any]) -> str:
    entry = _value(path, place, table, "entry", str)
    module, separator, attribute = entry.partition(":")
    if not separator or not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        _refuse(path, f"{place}entry", f"{entry!r} is not of the form package.module:Name")
    return entry


def _file_name(path: Path, key: str, name: object) -> str:
    if not isinstance(name, str) or "/" in name or "\\" in name or "\0" in name or name in {"", ".", ".."}:
        _refuse(path, key, f"{name!r} is not the name of a file beside the manifest")
    return name


def _permissions(path: Path, row: object) -> Permissions:
    table = _table(path, "permissions", row)
    _refuse_unknown(path, "permissions.", table, _PERMISSION_KEYS)
    asked = Permissions()
    memory = _value(path, "permissions.", table, "memory", int) if "memory" in table else asked.memory
    if not MEMORY_MIN <= memory <= MEMORY_MAX:
        _refuse(path, "permissions.memory", f"{memory} is not between {MEMORY_MIN} and {MEMORY_MAX} bytes")
    network = table.get("network", asked.network)
    if network not in {"handed", "own"}:
        _refuse(path, "permissions.network", f"{network!r} is not one of handed, own")
    flags = {key: table.get(key, False) for key in ("home", "in_process")}
    for key, value in flags.items():
        if not isinstance(value, bool):
            _refuse(path, f"permissions.{key}", f"{value!r} is neither true nor false")
    return Permissions(memory, network, **flags)


def _summary(path: Path, text: str) -> str:
    if len(text) > SUMMARY_CHARACTERS_MAX or not text.isprintable():
        _refuse(path, "summary", f"is not one line of {SUMMARY_CHARACTERS_MAX} printable characters at most")
    return text


def _whole(path: Path, key: str, value: object, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        _refuse(path, key, f"{value!r:.40} is no whole number from 0 to {highest}")
    return value


def _files(path: Path, row: object) -> Mapping[str, PackagedFile]:
    table = _table(path, "files", row)
    if len(table) > FILES_MAX:
        _refuse(path, "files", f"{len(table)} files are listed; {FILES_MAX} are allowed")
    files = {}
    for name, entry in table.items():
        flaw = "is the manifest itself" if name in {PACKAGE_MANIFEST_NAME, SIGNATURE_NAME} else name_flaw(name)
        if flaw:
            _refuse(path, "files", f"{name[:64]!r} {flaw}")
        place = f'files."{name}".'
        _refuse_unknown(path, place, _table(path, place, entry), _FILE_KEYS)
        digest = _value(path, place, entry, "sha256", str)
        size = _whole(path, f"{place}size", entry.get("size"), FILE_BYTES_MAX)
        if len(digest) != 64 or not set(digest) <= _HEX:
            _refuse(path, f"{place}sha256", f"{digest!r} is not 64 hexadecimal digits in lower case")
        files[name] = PackagedFile(digest, size)
    clash = clash_of(files)
    if clash:
        _refuse(path, "files", clash)
    return files


class _Schemas:
    """Reads schemas beside a manifest; of a package those bytes that it lists, and no others."""

    def __init__(self, path: Path, read: Read, files: Mapping[str, PackagedFile]) -> None:
        self._path, self._read, self._files = path, read, files

    def schema(self, place: str, value: object) -> Mapping[str, Any]:
        """The schema that a role names."""
        path = self._path
        name = _file_name(path, f"{place}schema", value)
        file = path.parent / name
        try:
            data = self._read(name, SCHEMA_BYTES_MAX)
            schema = json.loads(data)
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"{path}: {place}schema names {name}, which cannot be read ({reason}); correct the name or add it"
            raise Misconfigured(text, code="E1204") from error
        except (ValueError, RecursionError) as error:
            text = f"{file}: is not JSON of {SCHEMA_BYTES_MAX} bytes at most ({error}); correct that place"
            raise Misconfigured(text, code="E1204") from error
        if self._files:
            _compare(path, name, data, self._files)
        if not isinstance(schema, dict):
            raise Misconfigured(f"{file}: a schema is a JSON object; begin it with {{", code="E1204")
        return schema


def _compare(path: Path, name: str, data: bytes, files: Mapping[str, PackagedFile]) -> None:
    listed = files.get(name)
    if listed is None:
        raise Misconfigured(f"{path}: {name} is not listed in [files]; publish the package again", code="E4614")
    if (hashlib.sha256(data).hexdigest(), len(data)) != listed:
        raise Misconfigured(altered(path.parent / name), code="E4613")


def altered(file: Path | str) -> str:
    """What is said of a file that is another one than its signed manifest lists."""
    return f"{file}: is not the file that the signed manifest lists; fetch the package again from whoever made it"


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
