"""Between contract/driver.wit and a driver that is plain Python: JSON, columns, errors, state.

    class Pump:
        def __init__(self, options): ...               raise Refused("why") for wrong options; no I/O
        def plan(self, tags): ...                      what poll gets for these tags; raise Problems([(tag, "why")])
        def connect(self, channels): ...               raise Refused("why")
        def poll(self, planned, budget_ms): ...        emit(tags, values, quality, ts_ns); raise Err(Errc.TIMEOUT), ...
        def write(self, tag, value): ...               raise Err(Errc.REFUSED), ... where it was not done
        def disconnect(self): ...

    Guest = guest_of(Pump, "pump", "1.0.0")            in app.py, where componentize-py looks for it

A copy of this file belongs to each driver.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import host
from wit_world.imports.types import (
    Batch,
    Column_Blobs,
    Column_Bools,
    Column_Ints,
    Column_Reals,
    Column_Texts,
    Column_Uints,
    Errc,
)

__all__ = ["Err", "Errc", "Problems", "Refused", "Tag", "emit", "guest_of", "log", "now_ns", "recv", "send"]
COLUMNS = {
    "bool": Column_Bools, "float32": Column_Reals, "float64": Column_Reals, "uint64": Column_Uints,
    "string": Column_Texts, "bytes": Column_Blobs,
}  # fmt: skip
now_ns = host.now_ns


class Refused(Exception):
    """Options that cannot work, or a device that cannot be made ready: why."""


class Problems(Exception):
    """Tags that cannot be read: [(tag, why)]."""


class Tag:
    """One row of variables.yml. type: bool, int8 .. uint64, float32, float64, string, bytes."""

    def __init__(self, row):
        self.id, self.name, self.address = row["id"], row["name"], row["address"]
        self.type, self.access, self.options = row["type"], row["access"], row["options"]


def send(data, channel=0):
    """Raises Err(Errc.CLOSED), and Err(Errc.NOT_SENT) where no byte has left."""
    host.send(channel, data)


def recv(size_max, timeout_ms, channel=0):
    """As soon as there are any bytes. Raises Err(Errc.TIMEOUT), Err(Errc.CLOSED), Err(Errc.CANCELLED)."""
    return host.recv(channel, size_max, timeout_ms)


def log(text, level=1):
    """level: 0 debug .. 3 error"""
    host.log(level, text)


def emit(tags, values, quality=0, ts_ns=0):
    """Rows of the poll under way; one batch per kind of value.

    quality  OPC UA StatusCode, one for all or a list;  ts_ns: UTC, one for all or a list; 0 is now
    """
    kinds = {}
    for place, tag in enumerate(tags):
        kinds.setdefault(COLUMNS.get(tag.type, Column_Ints), []).append(place)
    for column, places in kinds.items():
        stamps, qualities = (
            [each[p] for p in places] if isinstance(each, list) else [each] for each in (ts_ns, quality)
        )
        cells = [values[place] for place in places]
        if column is Column_Bools:
            cells = bytes(map(bool, cells))
        elif column is Column_Reals:
            cells = [float(cell) for cell in cells]
        host.emit(Batch([tags[place].id for place in places], stamps, qualities, column(cells)))


def guest_of(make, name, version):
    """The class that componentize-py exports; it makes an object of it for each call, so the driver lives outside."""
    driver = None
    tags, groups = {}, {}

    class Guest(exports.Guest):
        def meta(self):
            return json.dumps({"name": name, "version": version})

        def create(self, options_json):
            nonlocal driver
            try:
                driver = make(json.loads(options_json))
            except Refused as refused:
                raise Err(str(refused)) from None

        def plan(self, group, tags_json):
            rows = [Tag(row) for row in json.loads(tags_json)]
            try:
                groups[group] = driver.plan(rows)
            except Problems as found:
                told = [{"tag": tag.id, "key": "address", "text": why} for tag, why in found.args[0]]
                raise Err(json.dumps(told)) from None
            tags.update((tag.id, tag) for tag in rows)

        def connect(self, channels):
            try:
                driver.connect(channels)
            except Refused as refused:
                raise Err(str(refused)) from None

        def poll(self, group, budget_ms):
            driver.poll(groups[group], budget_ms)
            return 0

        def write(self, commands, budget_ms):
            return bytes(
                _status(driver, tags.get(tag), value)
                for tag, value in zip(commands.tag, commands.value.value, strict=True)
            )

        def disconnect(self):
            driver.disconnect()

    return Guest


def _status(driver, tag, value):
    if tag is None:
        return 1 + Errc.INVALID.value
    try:
        driver.write(tag, bool(value) if tag.type == "bool" else value)
    except Err as error:
        return 1 + error.value.value
    return 0
