"""A controlled station of lib60870 (c104), in a process of its own, since that library is GPL.

python iec104_station.py PORT: prints "ready", then takes one JSON object a line from stdin and answers each with one
line: {"do": "set", "object", "value", "quality": [...], "time": seconds or null}, {"do": "stop"}, {"do": "start"},
{"do": "commands"} (those that came since, as [object, value]), {"do": "clients"}.
"""
# No `annotations` of the future here: the library compares those of on_command with its classes.

import datetime as dt
import json
import sys
from typing import Any

import c104

STATION = 47
FAILING = 37
TYPES = {
    11: "M_ME_NC_1", 12: "M_ME_NB_1", 13: "M_ME_NA_1", 14: "M_SP_NA_1", 15: "M_DP_NA_1", 16: "M_IT_NA_1",
    21: "M_ME_TF_1", 22: "M_ME_TE_1", 23: "M_ME_TD_1", 24: "M_SP_TB_1", 25: "M_DP_TB_1", 26: "M_IT_TB_1",
    31: "C_SC_NA_1", 32: "C_DC_NA_1", 33: "C_SE_NA_1", 34: "C_SE_NB_1", 35: "C_SE_NC_1", 36: "C_SC_NA_1",
    FAILING: "C_SE_NC_1",
}  # fmt: skip
SELECTED = 36
DOUBLE = (c104.Double.INTERMEDIATE, c104.Double.OFF, c104.Double.ON, c104.Double.INDETERMINATE)
received: list[tuple[int, float]] = []


def on_command(point: c104.Point, previous_info: c104.Information, message: c104.IncomingMessage) -> c104.ResponseState:
    if point.io_address == FAILING:
        return c104.ResponseState.FAILURE
    received.append((point.io_address, _plain(point.value)))
    return c104.ResponseState.SUCCESS


def _plain(value: Any) -> float:
    if isinstance(value, c104.Double):
        return {c104.Double.OFF: 1.0, c104.Double.ON: 2.0}.get(value, -1.0)
    return float(value)


def _flags(kind: Any, names: list[str]) -> Any:
    flags = kind()
    for name in names:
        flags |= getattr(kind, name)
    return flags


def info_of(type_: str, value: float, quality: list[str], recorded_at: dt.datetime | None) -> Any:
    if "_IT_" in type_:
        return c104.BinaryCounterInfo(
            int(value), c104.UInt5(0), _flags(c104.BinaryCounterQuality, quality), recorded_at
        )
    flags = _flags(c104.Quality, quality)
    if "_SP_" in type_:
        return c104.SingleInfo(bool(value), flags, recorded_at)
    if "_DP_" in type_:
        return c104.DoubleInfo(DOUBLE[int(value)], flags, recorded_at)
    if type_ in {"M_ME_NA_1", "M_ME_TD_1"}:
        return c104.NormalizedInfo(c104.NormalizedFloat(value), flags, recorded_at)
    if type_ in {"M_ME_NB_1", "M_ME_TE_1"}:
        return c104.ScaledInfo(c104.Int16(int(value)), flags, recorded_at)
    return c104.ShortInfo(value, flags, recorded_at)


def main(port: int) -> None:
    server = c104.Server(ip="127.0.0.1", port=port, tick_rate_ms=50)
    station: Any = server.add_station(common_address=STATION)
    points = {}
    for address, type_ in TYPES.items():
        mode = c104.CommandMode.SELECT_AND_EXECUTE if address == SELECTED else c104.CommandMode.DIRECT
        points[address] = station.add_point(io_address=address, type=getattr(c104.Type, type_), command_mode=mode)
        if type_.startswith("C_"):
            points[address].on_receive(callable=on_command)
    server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        said = json.loads(line)
        answer: Any = True
        if said["do"] == "set":
            point = points[said["object"]]
            at = said["time"]
            recorded = None if at is None else dt.datetime.fromtimestamp(at, dt.UTC)
            point.info = info_of(TYPES[said["object"]], said["value"], said["quality"], recorded)
            answer = point.transmit(cause=c104.Cot.SPONTANEOUS) if server.has_active_connections else False
        elif said["do"] == "commands":
            answer = received[:]
            received.clear()
        elif said["do"] == "clients":
            answer = server.open_connection_count
        elif said["do"] == "stop":
            server.stop()
        else:
            server.start()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
