"""ONNX models made on the spot, a folder for them, and rules that ask them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from framegate.bus.catalogue import DurableCatalogue
from framegate.contract.frame import Batch, TagId, ValueType
from framegate.contract.ports import Disk
from framegate.endpoint.outbound import Outbound
from framegate.mapper.rules.model import OnnxRule, make
from framegate.mapper.rules.rule import RuleContext
from framegate.testing.fakes import CollectingLog

NOW_NS = 1_795_000_000_000_000_000
Tensor = Any


def model_bytes(
    nodes: Sequence[Any],
    weights: dict[str, Tensor],
    *,
    input_shape: Sequence[int | str | None] = (None, 2),
    outputs: Sequence[tuple[str, int]] = (("y", TensorProto.FLOAT),),
    input_type: int = TensorProto.FLOAT,
) -> bytes:
    """A model with the input `x`; outputs as (name, element type), of open shape."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", input_type, list(input_shape))],
        [helper.make_tensor_value_info(name, type_, None) for name, type_ in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = made.SerializeToString()
    return data


def linear(weight: Sequence[Sequence[float]], bias: Sequence[float] = (0.0,), **options: Any) -> bytes:
    """y = x @ weight + bias."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    weights = {"w": np.array(weight, np.float32), "b": np.array(bias, np.float32)}
    return model_bytes(nodes, weights, input_shape=(None, len(weight)), **options)


def endless() -> bytes:
    """A loop that ends in the next geological age; only where the sum of the input is not 0."""
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [
            scalar("i", TensorProto.INT64, []),
            scalar("go", TensorProto.BOOL, []),
            scalar("v", TensorProto.FLOAT, [None, 2]),
        ],
        [scalar("go_on", TensorProto.BOOL, []), scalar("w", TensorProto.FLOAT, [None, 2])],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["go"], to=TensorProto.BOOL),
        helper.make_node("Loop", ["trips", "go", "x"], ["y"], body=body),
    ]
    return model_bytes(nodes, {"trips": np.array(2**62, np.int64)})


@dataclass
class Stage:
    """Tags a and b (float64), n (int32), flag (bool), text (string)."""

    folder: Path
    log: CollectingLog = field(default_factory=CollectingLog)
    catalogue: DurableCatalogue = field(default_factory=lambda: DurableCatalogue(cast(Disk, None)))

    def __post_init__(self) -> None:
        for name, type_ in (
            ("a", ValueType.FLOAT64),
            ("b", ValueType.FLOAT64),
            ("n", ValueType.INT32),
            ("flag", ValueType.BOOL),
            ("text", ValueType.STRING),
        ):
            self.catalogue.intern(name, "plc", type_, "", "R")

    @property
    def context(self) -> RuleContext:
        names = [tag.name for tag in map(self.catalogue.tag, range(1, len(self.catalogue) + 1)) if tag.device == "plc"]
        return RuleContext(
            self.catalogue,
            self.folder,
            self.log,
            names,
            models=self.folder / "data" / "models",
            tables=self.folder,
            outbound=Outbound(("127.0.0.1",)),
        )

    def id(self, name: str) -> TagId:
        tag = self.catalogue.find(name)
        assert tag is not None
        return tag.id

    def write(self, data: bytes) -> None:
        """Replace the model's file as an editor does: whole."""
        new = self.folder / "m.new"
        new.write_bytes(data)
        new.replace(self.folder / "m.onnx")

    def make(self, data: bytes | None = None, **options: Any) -> OnnxRule:
        if data is not None:
            self.write(data)
        row = {"model": "m.onnx", "inputs": ["a", "b"], "outputs": ["y"], "deadline": "200ms", **options}
        return make("r", row, self.context)

    def batch(self, name: str, *values: Any, quality: int = 0, now_ns: int = NOW_NS, step_ns: int = 0) -> Batch:
        tag = self.catalogue.find(name)
        assert tag is not None
        column = np.empty(len(values), tag.type.kind.value)
        column[:] = values
        return Batch(
            np.full(len(values), tag.id, np.int32),
            column,
            np.array([quality], np.uint32),
            now_ns + np.arange(len(values), dtype=np.int64) * step_ns,
            now_ns,
        )

    def rows(self, batches: Sequence[Batch]) -> list[tuple[str, Any, int]]:
        """(name, value, quality) of every row."""
        return [
            (self.catalogue.tag(tag).name, value, status)
            for batch in batches
            for tag, value, status in zip(batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), strict=True)
        ]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def models() -> Any:
    """The makers of this module, for tests that make models of their own."""

    class Makers:
        linear = staticmethod(linear)
        model_bytes = staticmethod(model_bytes)
        endless = staticmethod(endless)

    return Makers
