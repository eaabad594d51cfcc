"""The law is kept: generated files are fresh, numbers last for ever, golden bytes hold, and every name is specified."""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from framegate.contract import errors
from framegate.contract._generated import frame_pb2
from framegate.contract.frame import Batch, Placed, Position, Tag, TagId, ValueColumn, ValueType
from framegate.contract.law import law_folder, law_text
from framegate.northbound.encoder import make_encoder

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if not {"_generated", "tests"} & set(path.parts))
VECTORS = sorted((law_folder() / "vectors" / "frame").glob("*.json"))
LEVELS = ("debug", "info", "warning", "error")
KINDS = {"float": np.float64, "int": np.int64, "uint": np.uint64, "bool": np.bool_, "object": np.object_}


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "tools" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_and_lock_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "tools" / "generate.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_every_field_of_the_proto_is_locked() -> None:
    locked = generator().read_lock(law_text("frame.fields.lock"))
    for message in frame_pb2.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            assert locked[message.name, field.number].split(" ")[0] == field.name


@pytest.mark.parametrize("now", [{}, {("Run", 1): "pos uint64"}, {("Run", 1): "place fixed64"}])
def test_lock_refuses_removed_retyped_and_renamed_fields(now: dict[tuple[str, int], str]) -> None:
    tool = generator()
    with pytest.raises(tool.LawBroken, match="Run field 1"):
        tool.extend_lock({("Run", 1): "pos fixed64"}, now)


def test_lock_takes_new_fields() -> None:
    tool = generator()
    text = tool.extend_lock({("Run", 1): "pos fixed64"}, {("Run", 1): "pos fixed64", ("Run", 3): "new bool"})
    assert tool.read_lock(text) == {("Run", 1): "pos fixed64", ("Run", 3): "new bool"}


class Names:
    """A catalogue made from a vector's names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        if name not in self.names:
            self.names.append(name)
        return TagId(self.names.index(name))

    def tag(self, tag_id: int) -> Tag:
        return Tag(TagId(tag_id), self.names[tag_id], "dev", ValueType.FLOAT64, "", "R")

    def find(self, name: str) -> Tag | None:
        return None


def placed_of(row: dict[str, Any], names: Names) -> Placed:
    tags = [names.intern(name, "", ValueType.FLOAT64, "", "R") for name in row["name"]]
    values = [base64.b64decode(value["base64"]) if isinstance(value, dict) else value for value in row["value"]]
    column: ValueColumn = np.empty(len(values), KINDS[row["kind"]])
    column[:] = values
    quality, time = np.array(row["quality"], np.uint32), np.array(row["source_time"], np.int64)
    return Placed(Position(row["pos"]), Batch(np.array(tags, np.int32), column, quality, time, row["gateway_time"]))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_golden_bytes_hold_for_the_generated_class_and_our_encoder(path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    golden = bytes.fromhex(vector["hex"])
    message = getattr(frame_pb2, vector["message"]).FromString(golden)
    assert json_format.MessageToDict(message, preserving_proto_field_name=True) == vector["expected"]
    if "batches" not in vector:
        return
    assert message.SerializeToString(deterministic=True) == golden
    names = Names()
    encoder = make_encoder(
        "protobuf",
        tenant="t",
        gateway=vector["gateway"],
        connector="c",
        template="",
        catalogue=names,
        is_backfill=vector.get("is_backfill", False),
    )
    window = encoder.encode([placed_of(row, names) for row in vector["batches"]])
    assert [payload.hex() for payload in window.payload] == [vector["hex"]]


def test_there_are_golden_bytes() -> None:
    assert len(VECTORS) >= 14


def test_every_error_class_has_a_listed_code() -> None:
    listed = tomllib.loads(law_text("errors.toml"))
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.GatewayError)
    ]
    assert {one.code for one in classes} <= set(listed)
    assert all(listed[one.code]["name"] == one.__name__ for one in classes)


def test_every_error_code_is_listed_once_with_help() -> None:
    listed = tomllib.loads(law_text("errors.toml"))
    for code, entry in listed.items():
        assert re.fullmatch(r"E\d{4}", code)
        assert set(entry) >= {"name", "help"}, code
    used = {code for path in SOURCES for code in re.findall(r"\"(E\d{4})\"", path.read_text("utf-8"))}
    assert used - set(listed) == set()


def calls() -> Iterator[tuple[str, str, str, frozenset[str | None]]]:
    """(object, method, first argument, keywords) of each method call that begins with a constant text."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    keywords = frozenset(keyword.arg for keyword in node.keywords)
                    yield ast.unparse(node.func.value), node.func.attr, first.value, keywords


def test_every_metric_used_is_specified_with_its_labels() -> None:
    listed = tomllib.loads(law_text("telemetry.toml"))["metric"]
    for _, method, name, keywords in calls():
        if method in {"counter", "gauge", "histogram"} and name.startswith("edge_"):
            assert name in listed
            assert listed[name]["kind"] == method, name
            assert None in keywords or keywords == set(listed[name].get("labels", ())), name


def test_every_log_event_used_is_specified_with_its_level() -> None:
    listed = tomllib.loads(law_text("telemetry.toml")).get("event", {})
    for owner, method, name, keywords in calls():
        if method in LEVELS and re.search(r"(^|[._])log$", owner):
            assert name in listed
            assert listed[name]["level"] == method, name
            assert keywords - {None} <= set(listed[name]["keys"]), name


def test_every_specified_name_has_its_parts() -> None:
    listed = tomllib.loads(law_text("telemetry.toml"))
    for name, entry in listed["metric"].items():
        assert re.fullmatch(r"edge_[a-z0-9_]+", name)
        assert entry["kind"] in {"counter", "gauge", "histogram"}
        assert entry["help"]
        assert (entry["kind"] == "histogram") == ("bounds" in entry), name
    for name, entry in listed.get("event", {}).items():
        assert entry["level"] in LEVELS, name
        assert entry["help"]
        assert isinstance(entry["keys"], list), name
