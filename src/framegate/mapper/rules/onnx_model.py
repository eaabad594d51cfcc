"""One loaded ONNX model: what it wants and gives, one run at a time, with a deadline that ends a run.

onnxruntime is imported when the first model is loaded; without the extra `onnx` that is a mistake of the row. A run
happens in the caller's thread: the same features give the same answer at the same moment. A timer in another thread
ends it at its deadline, which works between two nodes of a graph and inside of its loops. All models share one
arena of memory with an upper bound.

Source: ONNX IR 1.15; onnxruntime 1.32, RunOptions.terminate and OrtArenaCfg.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.frame import Float64Column

MODEL_BYTES_MAX = 64 << 20
ARENA_BYTES_MAX = 256 << 20
"""Memory for the tensors of all models together."""
OUTPUT_VALUES_MAX = 4_096
WARM_UP_S_MAX = 1.0
"""The first run of a model prepares what later ones use."""
_INPUT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class OutputShape(NamedTuple):
    """One output of a model and how many values it has."""

    name: str
    size: int


class Model:
    """A model that has run once and fits its row."""

    def __init__(self, session: Any, shape: Sequence[int], sha256: str) -> None:
        self._session = session
        (wanted,) = session.get_inputs()
        self._input, self._type = wanted.name, _INPUT_TYPES[wanted.type]
        self._shape = tuple(shape)
        self._names = [output.name for output in session.get_outputs()]
        self.sha256 = sha256
        self.run_s = 0.0
        self.outputs: Sequence[OutputShape] = ()

    def run(self, features: Float64Column, deadline_s: float) -> dict[str, list[Any]]:
        """Values of each output, flattened.

        features  float64[features], cast to the type that the model wants
        raises    GatewayError E5063 - the deadline passed; E5064 - the model failed
        """
        runtime = _runtime()
        options = runtime.RunOptions()
        options.log_severity_level = 4  # the error says it

        def end() -> None:
            options.terminate = True

        with np.errstate(invalid="ignore"):  # NaN as integer is what the model then gets
            tensor: Any = features.astype(self._type).reshape(self._shape)
        timer = threading.Timer(deadline_s, end)
        timer.name, timer.daemon = "edge-model-deadline", True
        timer.start()
        try:
            answers = self._session.run(None, {self._input: tensor}, options)
        except _errors() as error:
            if options.terminate:
                text = f"the model ran longer than {deadline_s * 1000:.0f} ms; make it smaller, or raise `deadline`"
                raise GatewayError(text, code="E5063") from error
            raise GatewayError(f"the model failed: {_reason(error)}", code="E5064") from error
        finally:
            timer.cancel()
        return {name: _flat(answer) for name, answer in zip(self._names, answers, strict=True)}


def load_model(data: bytes, features: int, shape: Sequence[int] | None, threads: int, deadline_s: float) -> Model:
    """Load a model and run it twice with zeros: it must fit, and keep its deadline.

    shape   of its input, from the row; None: as the model says
    raises  Misconfigured E5061 - no model; E5062 - another input; E5063 - too slow; E5064 - it fails on zeros;
            E5065 - onnxruntime is missing
    """
    if len(data) > MODEL_BYTES_MAX:
        raise Misconfigured(f"the model is larger than {MODEL_BYTES_MAX >> 20} MiB", code="E5061")
    runtime = _runtime()
    try:
        session = runtime.InferenceSession(data, _session_options(threads), providers=["CPUExecutionProvider"])
    except _errors() as error:
        raise Misconfigured(f"the model cannot be loaded: {_reason(error)}", code="E5061") from error
    model = Model(session, _input_shape(session.get_inputs(), features, shape), hashlib.sha256(data).hexdigest())
    zeros = np.zeros(features)
    try:
        model.run(zeros, max(WARM_UP_S_MAX, deadline_s))
        began = time.perf_counter()
        answers = model.run(zeros, deadline_s)
        model.run_s = time.perf_counter() - began
    except GatewayError as error:
        raise Misconfigured(error.text, code=error.stable_code) from error
    model.outputs = tuple(OutputShape(name, len(values)) for name, values in answers.items())
    return model


def _session_options(threads: int) -> Any:
    options = _runtime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A model is one file: weights beside it would be read from wherever its author says.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/nonexistent")
    return options


def _input_shape(inputs: Sequence[Any], features: int, shape: Sequence[int] | None) -> Sequence[int]:
    """The model's input with its open dimensions filled in, so that it holds exactly the features."""
    if len(inputs) != 1 or inputs[0].type not in _INPUT_TYPES:
        found = ", ".join(f"{one.name}: {one.type}" for one in inputs) or "none"
        text = f"the model has the inputs {found[:200]}; one tensor of {', '.join(_INPUT_TYPES)} is taken"
        raise Misconfigured(text, code="E5062")
    dims = [dim if isinstance(dim, int) and dim > 0 else 0 for dim in inputs[0].shape]
    if shape is None:
        filled = (
            [1, *dims[1:]] if len(dims) > 1 and not dims[0] else list(dims)
        )  # the first of several is the batch: one row
        rest = prod(dim for dim in filled if dim)
        fill = features // rest if filled.count(0) == 1 and features % rest == 0 else 1
        filled = [dim or fill for dim in filled]
    else:
        filled = list(shape)
    fits = len(filled) == len(dims) and all(dim in (0, one) for dim, one in zip(dims, filled, strict=True))
    if not fits or prod(filled) != features:
        wanted = ", ".join(str(dim or "any") for dim in dims)
        text = f"the model wants an input of shape [{wanted}]; the row has {features} features"
        raise Misconfigured(
            f"{text}{'' if shape is None else f' as {list(shape)}'}; correct inputs or shape", code="E5062"
        )
    return filled


def _flat(answer: Any) -> list[Any]:
    """Values of one output; raises GatewayError E5064 for what is no tensor, or a large one."""
    if not isinstance(answer, np.ndarray):
        text = "the model gives a sequence or map; export it with tensors only (scikit-learn: zipmap=False)"
        raise GatewayError(text, code="E5064")
    if answer.size > OUTPUT_VALUES_MAX:
        raise GatewayError(f"the model gives {answer.size} values; {OUTPUT_VALUES_MAX} are taken", code="E5064")
    values: list[Any] = answer.reshape(-1).tolist()
    return values


def _reason(error: BaseException) -> str:
    return str(error).replace("[ONNXRuntimeError] : ", "").replace("\n", " ")[:400]


@cache
def _runtime() -> Any:
    """The package, with one bounded arena for all sessions."""
    try:
        import onnxruntime  # noqa: PLC0415 - an extra, and 0.2 s that only models shall cost
    except ImportError as error:
        text = "models need onnxruntime, which is not installed; run `pip install framegate[onnx]`"
        raise Misconfigured(text, code="E5065") from error
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    arena = onnxruntime.OrtArenaCfg(
        {"max_mem": ARENA_BYTES_MAX, "arena_extend_strategy": 1}
    )  # 1: as much as is asked for
    onnxruntime.create_and_register_allocator(place, arena)
    return onnxruntime


@cache
def _errors() -> tuple[type[Exception], ...]:
    """onnxruntime's errors have no common root of their own."""
    state = _runtime().capi.onnxruntime_pybind11_state
    own = [one for one in vars(state).values() if isinstance(one, type) and issubclass(one, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)
