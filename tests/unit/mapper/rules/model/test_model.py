"""Models as rules, judged by numpy and by ONNX's own reference evaluator."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.quality import Quality
from framegate.mapper.rules import onnx_model
from framegate.mapper.rules.onnx_model import load_model

NOW_NS = 1_795_000_000_000_000_000
SECOND_NS = 1_000_000_000


def test_linear_model_gives_what_numpy_gives(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[2.0], [-0.5]], [3.0]))
    rule.take(stage.batch("a", 1.0, 4.0))
    rule.take(stage.batch("b", 6.0))
    assert stage.rows(rule.tick(NOW_NS)) == [("y", 2.0 * 4.0 - 0.5 * 6.0 + 3.0, 0)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 5))
def test_small_network_gives_what_the_reference_evaluator_gives(seed: int, features: int, outputs: int) -> None:
    from_numpy, make = onnx.numpy_helper.from_array, helper.make_node
    dice = np.random.default_rng(seed)
    weights = {
        "w1": dice.normal(size=(features, 8)).astype(np.float32),
        "b1": dice.normal(size=8).astype(np.float32),
        "w2": dice.normal(size=(8, outputs)).astype(np.float32),
    }
    nodes = [
        make("Gemm", ["x", "w1", "b1"], ["h"]),
        make("Relu", ["h"], ["r"]),
        make("MatMul", ["r", "w2"], ["o"]),
        make("Tanh", ["o"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, [None, features])],
        [info("y", TensorProto.FLOAT, [None, outputs])],
        [from_numpy(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    given_ = dice.normal(size=features)
    expected: Any = ReferenceEvaluator(made).run(None, {"x": given_.astype(np.float32).reshape(1, -1)})
    model = load_model(made.SerializeToString(), features, None, 1, 0.2)
    np.testing.assert_allclose(model.run(given_, 0.2)["y"], expected[0][0], rtol=1e-4, atol=1e-5)


def test_outputs_take_values_in_order_and_by_name(stage: Any, models: Any) -> None:
    make = helper.make_node
    nodes = [
        make("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        make("Softmax", ["x"], ["probability"], axis=1),
        make("Greater", ["x", "zero"], ["is_positive"]),
    ]
    data = models.model_bytes(
        nodes,
        {"zero": np.zeros((1, 2), np.float32)},
        outputs=[("label", TensorProto.INT64), ("probability", TensorProto.FLOAT), ("is_positive", TensorProto.BOOL)],
    )
    outputs = [
        {"tag": "p0", "from": "probability"},
        {"tag": "label", "type": "uint8", "unit": "class"},
        {"tag": "p1", "from": "probability", "type": "float32"},
        {"tag": "up0", "from": "is_positive", "type": "bool"},
        {"tag": "up1", "from": "is_positive", "type": "bool"},
    ]
    rule = stage.make(data, outputs=outputs)
    rule.take(stage.batch("a", -1.0))
    rule.take(stage.batch("b", 1.0))
    rows = {name: value for name, value, _ in stage.rows(rule.tick(NOW_NS))}
    chance = float(np.exp(1) / (np.exp(1) + np.exp(-1)))
    assert rows == {"p0": pytest.approx(1 - chance), "p1": pytest.approx(chance), "label": 1, "up0": False, "up1": True}
    assert stage.catalogue.find("label").unit == "class"
    assert stage.catalogue.find("label").device == "rule/r"


@pytest.mark.parametrize(
    ("input_type", "shape", "inputs", "row_shape"),
    [
        (TensorProto.DOUBLE, (None, 2), ["a", "n"], None),
        (TensorProto.INT64, (1, 2), ["a", "n"], None),
        (TensorProto.INT32, (2,), ["a", "n"], None),
        (TensorProto.FLOAT, ("batch", "features"), ["a", "n"], None),
        (TensorProto.FLOAT, (None,), ["a", "n"], None),
        (TensorProto.FLOAT, (1, None, 1), ["a", "n"], None),
        (TensorProto.FLOAT, (None, None, None), ["a", "n"], [1, 2, 1]),
    ],
)
def test_input_is_cast_and_shaped_as_the_model_wants(
    stage: Any, models: Any, input_type: int, shape: Any, inputs: list[str], row_shape: Any
) -> None:
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    data = models.model_bytes(nodes, {}, input_shape=shape, input_type=input_type, outputs=[("y", input_type)])
    rule = stage.make(data, inputs=inputs, **({"shape": row_shape} if row_shape else {}))
    rule.take(stage.batch("a", 40.0))
    rule.take(stage.batch("n", 2))
    assert stage.rows(rule.tick(NOW_NS)) == [("y", 42.0, 0)]


def test_boolean_counts_as_one_or_nothing(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [10.0]]), inputs=["a", "flag"])
    rule.take(stage.batch("a", 1.0))
    rule.take(stage.batch("flag", True))
    assert stage.rows(rule.tick(NOW_NS)) == [("y", 11.0, 0)]


def test_last_values_are_features_oldest_first(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [10.0], [100.0]]), inputs=[{"tag": "a", "last": 3}])
    rule.take(stage.batch("a", 9.0, 1.0))
    assert [row[2] for row in stage.rows(rule.tick(NOW_NS))] == [Quality.BAD_WAITING_FOR_INITIAL_DATA]
    rule.take(stage.batch("a", 2.0, 3.0))
    assert stage.rows(rule.tick(NOW_NS + 2 * SECOND_NS)) == [("y", 1.0 + 20.0 + 300.0, 0)]


def test_model_is_asked_once_in_each_period(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [1.0]]), every="5s")
    rule.take(stage.batch("a", 1.0))
    rule.take(stage.batch("b", 1.0))
    asked = [second for second in range(12) if rule.tick(NOW_NS + second * SECOND_NS)]
    assert asked == [0, 5, 10]


def test_model_is_asked_after_data(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [1.0]]), when="data")
    first = rule.take(stage.batch("a", 1.0))
    assert [row[2] for row in stage.rows(first)] == [Quality.BAD_WAITING_FOR_INITIAL_DATA]
    assert stage.rows(rule.take(stage.batch("b", 2.0))) == [("y", 3.0, 0)]
    assert list(rule.take(stage.batch("n", 2))) == []
    assert list(rule.tick(NOW_NS)) == []


def test_bad_input_makes_the_outputs_bad_once_and_good_again(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [1.0]]), when="data")
    rule.take(stage.batch("a", 1.0))
    rule.take(stage.batch("b", 2.0))
    told = [rule.take(stage.batch("a", 0.0, quality=Quality.BAD_TIMEOUT)) for _ in range(3)]
    assert [[row[2] for row in stage.rows(batches)] for batches in told] == [[Quality.BAD_TIMEOUT], [], []]
    assert stage.rows(rule.take(stage.batch("a", 5.0))) == [("y", 7.0, 0)]


def test_uncertain_input_makes_the_output_uncertain(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [1.0]]), when="data")
    rule.take(stage.batch("a", 1.0, quality=Quality.UNCERTAIN_LAST_USABLE_VALUE))
    assert stage.rows(rule.take(stage.batch("b", 2.0))) == [("y", 3.0, Quality.UNCERTAIN_LAST_USABLE_VALUE)]


def test_nan_and_infinity_pass_through(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [0.0]]), when="data")
    rule.take(stage.batch("b", 0.0))
    assert np.isnan(stage.rows(rule.take(stage.batch("a", float("nan"))))[0][1])
    assert stage.rows(rule.take(stage.batch("a", float("inf"))))[0][1] == float("inf")


def test_state_goes_on_where_it_was(stage: Any, models: Any) -> None:
    inputs = [{"tag": "a", "last": 2}]
    rule = stage.make(models.linear([[1.0], [10.0]]), inputs=inputs, every="5s")
    rule.take(stage.batch("a", 1.0, 2.0))
    assert rule.tick(NOW_NS)
    again = stage.make(inputs=inputs, every="5s")
    again.load(rule.save())
    assert list(again.tick(NOW_NS + SECOND_NS)) == []
    assert stage.rows(again.tick(NOW_NS + 5 * SECOND_NS)) == [("y", 21.0, 0)]


@pytest.mark.parametrize("damage", [b"", b"x" * 11, b"x" * 200])
def test_damaged_state_is_refused(stage: Any, models: Any, damage: bytes) -> None:
    rule = stage.make(models.linear([[1.0], [1.0]]))
    with pytest.raises(GatewayError, match=r"^E5070"):
        rule.load(damage)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        ({"inputs": ["a"]}, "E5062", r"wants an input of shape \[any, 2\]; the row has 1 features"),
        ({"inputs": ["a", "b"], "shape": [2, 1]}, "E5062", r"as \[2, 1\]"),
        ({"outputs": ["y", "z"]}, "E5062", "the model gives y: 1; the row has 2 outputs"),
        ({"outputs": [{"tag": "y", "from": "q"}]}, "E5062", "1 outputs from q"),
        ({"outputs": []}, "E5053", "declares no outputs"),
        ({"outputs": ["y", "y"]}, "E5053", "each once"),
        ({"outputs": ["a"]}, "E5053", "a is a tag of plc already"),
        ({"outputs": [{"tag": "y", "type": "real"}]}, "E5053", "write one of"),
        ({"inputs": []}, "E5069", "0 features"),
        ({"inputs": ["a", "text"]}, "E5059", "text is text"),
        ({"inputs": ["a", "zz"]}, "E5030", "no tag zz"),
        ({"inputs": ["a", {"tag": "b", "window": "25h", "function": "avg"}]}, "E5069", "24h"),
        ({"inputs": ["a", {"tag": "b", "window": "1m", "function": "mode"}]}, "E5069", "functions avg"),
        ({"model": "../m.onnx"}, "E5060", "cannot be read|inside"),
        ({"model": "gone.onnx"}, "E5060", "no such file"),
        ({"model": "models:/m/1"}, "E5069", "needs `registry`"),
        ({"threads": 0}, "E5069", "threads"),
        ({"every": "10ms"}, "E5069", "every must be 1s"),
        ({"deadline": "1s"}, "E5069", "deadline must be"),
        ({"when": "never"}, "E5069", "tick or data"),
    ],
)
def test_row_that_does_not_fit_is_refused(stage: Any, models: Any, options: Any, code: str, part: str) -> None:
    with pytest.raises(Misconfigured, match=f"^{code} .*({part})"):
        stage.make(models.linear([[1.0], [1.0]]), **options)


@pytest.mark.parametrize("cut", [0, 1, 20, 60])
def test_bytes_that_are_no_model_are_refused(stage: Any, models: Any, cut: int) -> None:
    with pytest.raises(Misconfigured, match=r"^E506[12] rule r: model m.onnx: "):
        stage.make(models.linear([[1.0], [1.0]])[:cut] or b"\x00garbage")


def test_model_whose_weights_lie_elsewhere_is_refused(stage: Any, models: Any) -> None:
    made = onnx.load_from_string(models.linear([[1.0], [1.0]]))
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], "weights.bin")
    made.graph.initializer[0].ClearField("raw_data")
    (stage.folder / "weights.bin").write_bytes(np.ones(2, np.float32).tobytes())
    with pytest.raises(Misconfigured, match=r"^E5061 "):
        stage.make(made.SerializeToString())


def test_model_without_end_is_stopped_when_it_is_loaded(stage: Any, models: Any) -> None:
    made = onnx.load_from_string(models.endless())
    made.graph.node[1].CopyFrom(
        helper.make_node("Constant", [], ["go"], value=onnx.numpy_helper.from_array(np.array(True)))
    )
    began = time.monotonic()
    with pytest.raises(Misconfigured, match=r"^E5063 .*ran longer than"):
        stage.make(made.SerializeToString())
    assert time.monotonic() - began < 10


def test_run_without_end_is_stopped_at_its_deadline_and_the_next_one_works(stage: Any, models: Any) -> None:
    rule = stage.make(models.endless(), outputs=["y0", "y1"], when="data")
    rule.take(stage.batch("a", 0.0))
    assert len(stage.rows(rule.take(stage.batch("b", 0.0)))) == 2
    began = time.monotonic()
    with pytest.raises(GatewayError, match=r"^E5063 rule r: model m.onnx: .*200 ms"):
        rule.take(stage.batch("b", 1.0))
    assert time.monotonic() - began < 5
    assert len(stage.rows(rule.take(stage.batch("b", 0.0)))) == 2


def test_model_that_wants_much_memory_is_refused(stage: Any, models: Any) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["much"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["x"], ["of_x"], keepdims=0),
        helper.make_node("Add", ["sum", "of_x"], ["y"]),
    ]
    data = models.model_bytes(nodes, {"much": np.array([200_000, 200_000], np.int64)})
    with pytest.raises(Misconfigured, match=r"^E506[14] .*"):
        stage.make(data)


def test_answer_that_does_not_fit_its_type_is_refused(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [1.0]]), outputs=[{"tag": "y", "type": "uint8"}], when="data")
    rule.take(stage.batch("a", 1.0))
    assert stage.rows(rule.take(stage.batch("b", 2.0))) == [("y", 3, 0)]
    with pytest.raises(GatewayError, match=r"^E5064 .*y: 2.5 is no uint8"):
        rule.take(stage.batch("b", 1.5))


def test_missing_onnxruntime_says_what_to_install(stage: Any, models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import_again = onnx_model._runtime.__wrapped__
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(onnx_model, "_runtime", import_again)
    with pytest.raises(Misconfigured, match=r"^E5065 .*pip install framegate\[onnx\]"):
        stage.make(models.linear([[1.0], [1.0]]))


# -- a newer file ----------------------------------------------------------------------------------------------------


def ask(stage: Any, rule: Any) -> Any:
    rule.take(stage.batch("a", 1.0))
    return stage.rows(rule.take(stage.batch("b", 1.0)))[0][1]


def test_newer_file_takes_over_and_a_broken_one_does_not(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [1.0]]), when="data")
    look = rule._refresher.look
    rule._refresher.start = lambda: None
    look()
    assert ask(stage, rule) == 0.0 + 2.0
    stage.write(models.linear([[10.0], [10.0]]))
    look()
    assert ask(stage, rule) == 2.0
    rule.tick(NOW_NS)
    assert ask(stage, rule) == 20.0
    for broken in (b"garbage", models.linear([[1.0]]), b""):
        stage.write(broken)
        look()
        rule.tick(NOW_NS)
        look()
        rule.tick(NOW_NS)
        assert ask(stage, rule) == 20.0
    refused = stage.log.events("rule_model_refused")
    assert [line["reason"][:5] for line in refused] == ["E5061", "E5062", "E5061"]
    assert "wants an input of shape [any, 1]; the row has 2 features" in refused[1]["reason"]
    stage.write(models.linear([[100.0], [100.0]]))
    look()
    rule.tick(NOW_NS)
    assert ask(stage, rule) == 200.0
    assert len(stage.log.events("rule_model_loaded")) == 3


def test_file_that_vanished_is_told_once_and_the_model_stays(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [1.0]]), when="data")
    rule._refresher.start = lambda: None
    (stage.folder / "m.onnx").unlink()
    for _ in range(3):
        rule._refresher.look()
        rule.tick(NOW_NS)
    assert ask(stage, rule) == 2.0
    assert [line["reason"].split()[0] for line in stage.log.events("rule_model_refused")] == ["E5060"]
    rule.close()


def test_thread_that_looks_ends_with_the_rule(stage: Any, models: Any) -> None:
    rule = stage.make(models.linear([[1.0], [1.0]]))
    rule.tick(NOW_NS)
    thread = rule._refresher._thread
    assert thread.name == "edge-model-r"
    rule.close()
    thread.join(10)
    assert not thread.is_alive()
