"""The OpenAPI 3.1 document of the API, made of the table of operations and the types it names. Pure.

contract/openapi.json is this document in the repository; tools/render_api.py writes it. Descriptions, limits and
defaults come from the types themselves, so that nothing is said twice. Source: OpenAPI Specification 3.1.0.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import msgspec
import orjson

from framegate import __version__
from framegate.api.operation import Operation, Upload
from framegate.api.operations import OPERATIONS
from framegate.api.problem import CONTENT_TYPE, Problem

_REFERENCE: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_ALWAYS: Final = (429, 500, 503)
"""Any operation can meet a bug, and a gateway with too much to do."""
_WITH_CREDENTIALS: Final = (401, 403)
_WITH_BODY: Final = (400, 408, 413, 415)
_PATH_HELP: Final[Mapping[str, str]] = {
    "tag": "Name of the tag; a / in it is written as %2F.",
    "command": "Id of the command.",
    "alarm": "Id of the alarm, rule.condition.",
    "code": "Error code, such as E4014.",
    "token": "Name or id of the token.",
    "plugin": "Name of the plugin.",
}


@cache
def document_bytes() -> bytes:
    """The document as JSON."""
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def document(operations: Sequence[Operation] = OPERATIONS) -> dict[str, Any]:
    """The document of some operations."""
    types = [Problem, *dict.fromkeys(_types(operations))]
    found, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schemas = dict(zip(map(_key, types), found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.full_path, {})[operation.method.lower()] = _operation(operation, schemas, components)
    queries = {operation.query.__name__ for operation in operations}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Framegate",
            "version": __version__,
            "summary": "REST API of an industrial edge gateway",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {name: _tidied(one) for name, one in components.items() if name not in queries},
        },
    }


def _types(operations: Sequence[Operation]) -> Iterator[Any]:
    for operation in operations:
        yield operation.query
        yield from (one for one in operation.answers.values() if one is not bytes)
        if operation.body not in {None, Upload}:
            yield operation.body


def _key(type_: Any) -> str:
    return repr(type_)


def _operation(operation: Operation, schemas: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id.replace(".", "_"),
        "tags": [operation.id.partition(".")[0]],
        "summary": operation.summary,
        "parameters": [*_path(operation), *_query(operation, components), *_headers(operation)],
        "responses": _responses(operation, schemas),
    }
    if operation.permission is None:
        described["security"] = []
    else:
        described["description"] = f"Needs the permission `{operation.permission.value}`."
    if operation.body is Upload:
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        described["requestBody"] = {"required": False, "content": content}
    elif operation.body is not None:
        content = {"application/json": {"schema": _tidied(schemas[_key(operation.body)])}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _path(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in _PARAMETER.findall(operation.path):
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "description": _PATH_HELP[name], "schema": schema}


def _query(operation: Operation, components: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    schema = components[operation.query.__name__]
    for name, one in schema["properties"].items():
        rest = {key: value for key, value in one.items() if key != "description"}
        described = {"description": one["description"]} if "description" in one else {}
        is_required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": is_required, **described, "schema": rest}


def _headers(operation: Operation) -> Iterator[dict[str, Any]]:
    for name, help_ in operation.headers.items():
        if name != "accept":  # OpenAPI says it by the types of the answer
            shown = "-".join(word.capitalize() for word in name.split("-"))
            yield {"name": shown, "in": "header", "required": False, "description": help_, "schema": {"type": "string"}}


def _responses(operation: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, type_ in operation.answers.items():
        first, *others = operation.content_types
        schema = {"type": "string"} if type_ is bytes else schemas[_key(type_)]
        content = {first: {"schema": schema}} | {other: {"schema": {"type": "string"}} for other in others}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    problems = {*operation.errors, *_ALWAYS, 422}
    if operation.permission is not None:
        problems.update(_WITH_CREDENTIALS)
    if operation.body is not None:
        problems.update(_WITH_BODY)
    for status in sorted(problems):
        content = {CONTENT_TYPE: {"schema": schemas[_key(Problem)]}}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    return responses


def _tidied(schema: Any) -> Any:
    """Descriptions without the indentation of the source they stand in; lists that say what they hold."""
    if isinstance(schema, dict):
        if schema.get("type") == "array" and "items" not in schema:
            schema = {**schema, "items": {}}  # msgspec's word for anything; some generators insist on it
        return {
            key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _tidied(value)
            for key, value in schema.items()
        }
    return [_tidied(one) for one in schema] if isinstance(schema, list) else schema
