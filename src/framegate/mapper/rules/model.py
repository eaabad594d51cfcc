"""Rules of kind onnx: a model that is asked over and over; its inputs are tags or windows, its outputs are tags.

A run happens on the loop thread, because then the same rows and ticks give the same answer; in return a model must
keep a deadline, is measured when it is loaded, and ended when a run takes longer. Loading and asking a registry happen
in a thread (`model_source`). Where an input is Bad, or there is no model yet, the outputs are Bad and say so once.

Source: docs/reference/rule-models.md.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import orjson

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.frame import Batch
from framegate.contract.quality import Quality
from framegate.endpoint.quantity import seconds_from
from framegate.mapper.rules.features import Features, features_of
from framegate.mapper.rules.model_source import ModelFile, ModelOfRegistry, Origin, Refresher
from framegate.mapper.rules.named_tags import Output, OutputRow, batches_of, output_tags
from framegate.mapper.rules.onnx_model import Model, load_model
from framegate.mapper.rules.registry import Registry, model_name
from framegate.mapper.rules.rule import RuleContext

DEADLINE_S_MIN, DEADLINE_S, DEADLINE_S_MAX = 0.001, 0.05, 0.2
REFRESH_S_MIN, REFRESH_S, REFRESH_S_MAX = 1.0, 60.0, 86_400.0
EVERY_S_MIN, EVERY_S, EVERY_S_MAX = 1.0, 1.0, 86_400.0
THREADS_MAX = 8
OUTPUTS_MAX = 1_000
When: TypeAlias = Literal["tick", "data"]
_STATE = struct.Struct("<qI")  # moment of the last run, ns; status that the outputs were told


class _Place(NamedTuple):
    """Where one output tag's value is found in a model's answer."""

    output: Output
    name: str  # of the model's output, "" = its first one
    element: int


@dataclass(frozen=True, slots=True)
class _Options:
    """A row's wishes after checking; times in seconds."""

    model: str
    when: When
    every: float
    deadline: float
    refresh: float
    threads: int
    shape: Sequence[int] | None


class OnnxRule:
    """One model as a rule; see the contract."""

    def __init__(self, name: str, options: _Options, features: Features, places: Sequence[_Place]) -> None:
        self.name = name
        self.inputs = features.inputs
        self._options, self._features, self._places = options, features, places
        self._every_ns = round(options.every * 1e9)
        self._ran_ns = 0
        self._told = int(Quality.GOOD)
        self._model: Model | None = None
        self._refresher: Refresher | None = None
        self._context: RuleContext | None = None

    def begin(self, origin: Origin, context: RuleContext) -> None:
        """Load what can be had now. Raises Misconfigured, E5060 to E5065."""
        self._context = context
        self._refresher = Refresher(self.name, origin, self.fitting, self._options.refresh)
        try:
            first = self._refresher.first()
        except Misconfigured as error:
            raise Misconfigured(
                f"rule {self.name}: model {self._options.model}: {error.text}", code=error.stable_code
            ) from error
        if first is not None:
            self._use(first[0], first[1].version)

    def fitting(self, data: bytes) -> Model:
        """The model of these bytes; raises Misconfigured where it does not fit the row."""
        options = self._options
        model = load_model(data, self._features.size, options.shape, options.threads, options.deadline)
        wanted: dict[str, int] = {}
        for place in self._places:
            wanted[place.name] = max(wanted.get(place.name, 0), place.element + 1)
        given = {output.name: output.size for output in model.outputs}
        for name, size in wanted.items():
            found = given.get(name) if name else model.outputs[0].size
            if found != size:
                shown = ", ".join(f"{one.name}: {one.size}" for one in model.outputs)[:200]
                text = f"the model gives {shown}; the row has {size} outputs{f' from {name}' if name else ''}"
                raise Misconfigured(text, code="E5062")
        return model

    def take(self, batch: Batch) -> Sequence[Batch]:
        """Keeps the rows; with when: data the model is asked. Raises GatewayError E5063, E5064."""
        has_news = self._features.take(batch)
        return self._asked(batch.gateway_time) if has_news and self._options.when == "data" else ()

    def tick(self, now_ns: int) -> Sequence[Batch]:
        """Takes a newer model over; with when: tick the model is asked once in each period. Raises as `take`."""
        self._look()
        if self._options.when != "tick" or now_ns // self._every_ns == self._ran_ns // self._every_ns:
            return ()
        self._ran_ns = now_ns
        return self._asked(now_ns)

    def save(self) -> bytes:
        return _STATE.pack(self._ran_ns, self._told) + self._features.save()

    def load(self, state: bytes) -> None:
        """Raises GatewayError E5070: damaged, or of other inputs."""
        if len(state) < _STATE.size:
            raise GatewayError(f"rule {self.name}: the state kept is damaged; it starts anew", code="E5070")
        self._features.load(state[_STATE.size :])
        self._ran_ns, self._told = _STATE.unpack_from(state)

    def close(self) -> None:
        if self._refresher is not None:
            self._refresher.stop()
        self._model = None

    def _look(self) -> None:
        if self._refresher is None or self._context is None:
            return
        self._refresher.start()
        arrival = self._refresher.take()
        if arrival is None:
            return
        if arrival.model is not None:
            self._use(arrival.model, arrival.version)
        else:
            self._context.log.warning(
                "rule_model_refused",
                rule=self.name,
                model=self._options.model,
                version=arrival.version,
                reason=arrival.reason,
            )

    def _use(self, model: Model, version: str) -> None:
        assert self._context is not None
        self._model = model
        self._context.log.info(
            "rule_model_loaded",
            rule=self.name,
            model=self._options.model,
            version=version,
            sha256=model.sha256,
            run_ms=round(model.run_s * 1e3, 3),
        )

    def _asked(self, now_ns: int) -> Sequence[Batch]:
        if self._model is None:
            return self._bad(Quality.BAD_WAITING_FOR_INITIAL_DATA, now_ns)
        values, quality = self._features.vector(now_ns)
        if not len(values):
            return self._bad(quality, now_ns)
        self._told = Quality.GOOD
        try:
            answer = self._model.run(values, self._options.deadline)
            rows = [OutputRow(place.output, self._value(answer, place), quality, now_ns) for place in self._places]
            return batches_of(rows, now_ns)
        except ValueError as error:
            raise GatewayError(f"rule {self.name}: model {self._options.model}: {error}", code="E5064") from error
        except GatewayError as error:
            text = f"rule {self.name}: model {self._options.model}: {error.text}"
            raise GatewayError(text, code=error.stable_code) from error

    def _value(self, answer: Mapping[str, Sequence[Any]], place: _Place) -> Any:
        values = answer[place.name] if place.name else next(iter(answer.values()))
        if place.element >= len(values):
            raise ValueError(f"{place.output.name}: the model gave {len(values)} values this time")
        return values[place.element]

    def _bad(self, status: int, now_ns: int) -> Sequence[Batch]:
        """Bad outputs, told when their status changes."""
        if status == self._told:
            return ()
        self._told = status
        return batches_of([OutputRow(place.output, None, status, now_ns) for place in self._places], now_ns)


def make(name: str, options: Mapping[str, Any], context: RuleContext) -> OnnxRule:
    """A rule of kind onnx.

    options  contract/tables/drivers.schema.json, onnx_rule
    raises   Misconfigured E5030, E5053, E5059 to E5065, E5069
    """
    checked = _checked(name, options)
    features = features_of(options.get("inputs", ()), name, context)
    places = _places(name, options.get("outputs", ()), features, context)
    rule = OnnxRule(name, checked, features, places)
    rule.begin(_origin(name, options, context), context)
    return rule


def fingerprint(options: Mapping[str, Any], folder: Path) -> bytes:
    """What must be equal for a rule to be unchanged: its row; a changed file is taken over by the rule itself."""
    return hashlib.sha256(orjson.dumps(options, option=orjson.OPT_SORT_KEYS)).digest()


def _checked(name: str, options: Mapping[str, Any]) -> _Options:
    def seconds(key: str, default: float, low: float, high: float) -> float:
        try:
            value = seconds_from(options.get(key, default))
        except ValueError as error:
            raise Misconfigured(f"rule {name}: {key}: {error}", code="E5069") from error
        if not low <= value <= high:
            raise Misconfigured(f"rule {name}: {key} must be {low:g}s to {high:g}s", code="E5069")
        return value

    threads, when, shape = options.get("threads", 1), options.get("when", "tick"), options.get("shape")
    if not isinstance(threads, int) or not 1 <= threads <= THREADS_MAX:
        raise Misconfigured(f"rule {name}: threads must be 1 to {THREADS_MAX}", code="E5069")
    if when not in {"tick", "data"}:
        raise Misconfigured(f"rule {name}: when is tick or data", code="E5069")
    return _Options(
        str(options.get("model", "")),
        cast(When, when),
        seconds("every", EVERY_S, EVERY_S_MIN, EVERY_S_MAX),
        seconds("deadline", DEADLINE_S, DEADLINE_S_MIN, DEADLINE_S_MAX),
        seconds("refresh", REFRESH_S, REFRESH_S_MIN, REFRESH_S_MAX),
        threads,
        None if shape is None else tuple(shape),
    )


def _places(name: str, rows: Sequence[Any], features: Features, context: RuleContext) -> list[_Place]:
    forms: list[Mapping[str, Any]] = [row if isinstance(row, Mapping) else {"tag": row} for row in rows]
    declared = {
        str(form.get("tag", "")): {"type": form.get("type", "float64"), "unit": form.get("unit", "")} for form in forms
    }
    if len(declared) != len(forms) or len(forms) > OUTPUTS_MAX or any("{tag}" in tag for tag in declared):
        text = f"rule {name}: outputs are at most {OUTPUTS_MAX} tags, each once, and without {{tag}}"
        raise Misconfigured(text, code="E5053")
    inputs = [context.catalogue.tag(tag) for tag in sorted(features.inputs)]
    outputs = output_tags(declared, inputs, name, context)
    counts: dict[str, int] = {}
    places: list[_Place] = []
    for output, form in zip(outputs, forms, strict=True):
        source = str(form.get("from", ""))
        places.append(_Place(output, source, counts.get(source, 0)))
        counts[source] = counts.get(source, 0) + 1
    return places


def _origin(name: str, options: Mapping[str, Any], context: RuleContext) -> Origin:
    model, registry = str(options.get("model", "")), options.get("registry")
    if not model.startswith("models:/"):
        return ModelFile(name, model, context.folder)
    if not isinstance(registry, str) or context.models is None:
        raise Misconfigured(f"rule {name}: {model} needs `registry`, the address of the MLflow server", code="E5069")
    ca = options.get("ca")
    trust = context.tables / ca if ca else None
    server = Registry(registry, str(options.get("token", "")), trust, context.tables, context.outbound)
    try:
        server.check()
        return ModelOfRegistry(server, model_name(model), context.models)
    except ValueError as error:
        raise Misconfigured(f"rule {name}: {error}", code="E5069") from error
