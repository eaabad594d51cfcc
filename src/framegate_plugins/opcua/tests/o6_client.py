"""Judge: open62541 (o6) as the client of a bridge; a process of its own, because o6 ends its process in time.

One line of JSON in: {"url", "tags": [{"name", "type", "write"}]}. A line "FOUND {...}" out: what it found by browsing,
reading, subscribing and writing.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import o6  # type: ignore[import-untyped]
from o6.ns import ns0  # type: ignore[import-untyped]

NOTIFIED_S = 10.0
BOTH = ns0.datatypes.TimestampsToReturn.BOTH


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    ids = [f"ns=2;s={tag['name']}" for tag in asked["tags"]]
    with o6.Client(asked["url"]) as client:
        found = {
            "names": _browse(client),
            "values": [_described(value) for value in client.read(ids, timestampsToReturn=BOTH, valueOnly=False)],
            "notified": _subscribe(client, asked["tags"]),
            "results": [_write(client, tag) for tag in asked["tags"]],
        }
    sys.stdout.write("FOUND " + json.dumps(found) + "\n")
    sys.stdout.flush()


def _browse(client: Any) -> list[str]:
    """Identifiers of all variables below the folder of the tags; o6 numbers namespaces in its own way."""
    names, ahead, seen = [], ["ns=3;s=/"], set()
    while ahead:
        for each in client.browse(ahead.pop(), resultMask=63):
            identifier = str(each.nodeId).partition(";s=")[2]
            if each.nodeClass == ns0.datatypes.NodeClass.VARIABLE and ":" not in identifier:
                names.append(identifier)
            elif each.nodeClass == ns0.datatypes.NodeClass.OBJECT and identifier not in seen:
                seen.add(identifier)
                ahead.append(each.nodeId)
    return names


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, str):
        return str(value)
    if type(value).__name__ in {"int64", "uint64"}:
        return str(value)
    return value.item() if hasattr(value, "item") else value


def _described(value: Any) -> dict[str, Any]:
    is_null = value.value is None
    kind = {"bool": "Boolean", "str": "String", "bytes": "ByteString", "int8": "SByte", "uint8": "Byte"}
    kind |= {"float32": "Float", "float64": "Double"}
    kind |= {f"{sign.lower()}{bits}": f"{sign}{bits}" for sign in ("Int", "UInt") for bits in (16, 32, 64)}
    name = type(value.value).__name__
    return {
        "type": "Null" if is_null else kind.get(name, name),
        "value": None if is_null else _plain(value.value),
        "status": int(value.status or 0),
        "source": str(value.sourceTimestamp),
    }


def _subscribe(client: Any, tags: list[dict[str, Any]]) -> dict[str, Any]:
    got: dict[str, Any] = {}
    for tag in tags:

        def take(value: Any, name: str = tag["name"]) -> None:
            got[name] = _described(value)

        client.monitor(f"ns=2;s={tag['name']}", take, 0.0, valueOnly=False)
    end = time.monotonic() + NOTIFIED_S
    while len(got) < len(tags) and time.monotonic() < end:
        time.sleep(0.05)
    return dict(got)


def _write(client: Any, tag: dict[str, Any]) -> str:
    value, kind = tag["write"], tag["type"]
    if kind == "ByteString":
        value = o6.ByteString(bytes.fromhex(value))
    elif kind in {"Int64", "UInt64"}:
        value = getattr(o6, kind)(int(value))
    elif kind != "String":
        value = getattr(o6, kind)(value)
    return str(client.write(f"ns=2;s={tag['name']}", value))


if __name__ == "__main__":
    main()
