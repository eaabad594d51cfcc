"""Rules of kind wasm: columns in and out, state, and what becomes of a module that misbehaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality
from framegate.gateway.home import Home
from framegate.gateway.plugins.rule_modules import maker_of_modules
from framegate.gateway.rules import PlainCatalogue
from framegate.mapper.rules.kinds import maker_of
from framegate.mapper.rules.rule import Rule, RuleContext
from framegate.package.discover import discover
from framegate.testing.fakes import CollectingLog

wasmtime = pytest.importorskip("wasmtime", reason="sandboxed rules need the package wasmtime")
TOTAL = Path(__file__).with_name("total.wat")
OPTIONS = {"file": "total.wasm", "inputs": ["a", "b"], "outputs": {"sum": "float64", "last": "int32"}}
NOW_NS = 1_700_000_000_000_000_000
Make = Callable[..., Rule]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Of all tests here, so that machine code is made once."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.rules.mkdir(parents=True)
    (home.rules / "total.wasm").write_bytes(wasmtime.wat2wasm(TOTAL.read_text()))
    (home.rules / "nothing.wasm").write_bytes(wasmtime.wat2wasm('(module (import "env" "f" (func)))'))
    (home.rules / "text.wasm").write_bytes(b"no module")
    return home


@pytest.fixture
def make(home: Home) -> Make:
    def make(**options: Any) -> Rule:
        catalogue = PlainCatalogue()
        for name, type_ in (("a", ValueType.FLOAT64), ("b", ValueType.FLOAT64), ("text", ValueType.STRING)):
            catalogue.intern(name, "device", type_, "", "R")
        context = RuleContext(catalogue, home.rules, CollectingLog(), make_module=maker_of_modules(home, discover()))
        return maker_of("wasm")("total", {**OPTIONS, **options}, context)

    return make


def batch_of(*rows: tuple[int, float], quality: int = Quality.GOOD) -> Batch:
    tag = np.array([tag for tag, _ in rows], np.int32)
    value = np.array([value for _, value in rows], np.float64)
    return Batch(tag, value, uniform_quality(quality), uniform_time(NOW_NS), NOW_NS)


def values(batches: Sequence[Batch]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for batch in batches:
        for tag, value in zip(batch.tag.tolist(), batch.value.tolist(), strict=True):
            found.setdefault(tag, []).append(value)
    return found


def test_rows_are_handed_over_in_columns_and_come_back_as_outputs(make: Make) -> None:
    rule = make()
    assert rule.inputs == {TagId(1), TagId(2)}
    told = rule.take(batch_of((3, 1000.0), (1, 2.5), (2, 7.0)))
    assert values(told) == {5: [7]}, "of the input b, as an integer"
    assert told[0].source_time.tolist() == [NOW_NS]
    assert values(rule.tick(NOW_NS)) == {4: [9.5]}
    rule.close()


def test_more_rows_than_there_is_room_for_are_handed_over_in_pieces(make: Make) -> None:
    rule = make()
    told = rule.take(batch_of(*((2, float(n)) for n in range(21))))  # there is room for 8
    assert values(told) == {5: list(range(21))}
    assert values(rule.tick(NOW_NS)) == {4: [210.0]}


def test_bad_rows_carry_no_number(make: Make) -> None:
    rule = make()
    assert rule.take(batch_of((2, 7.0), quality=Quality.BAD)) == []
    assert values(rule.tick(NOW_NS)) == {4: [0.0]}


def test_state_goes_on_after_a_restart_and_strange_state_is_refused(make: Make) -> None:
    rule, next_one = make(), make()
    rule.take(batch_of((1, 2.5)))
    next_one.load(rule.save())
    assert values(next_one.tick(NOW_NS)) == {4: [2.5]}
    for state in (b"lua 1\n{}", b"wasm 1\nxx"):
        with pytest.raises(GatewayError, match="E4564"):
            make().load(state)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1.0, "E4562 .*ran longer than 30 ms"),
        (-2.0, "E4562 .*unreachable"),
        (-3.0, "E4563 .*9 rows"),
        (-4.0, "E4563 .*output 9"),
    ],
)
def test_module_that_misbehaves_is_stopped_and_starts_anew_from_its_state(value: float, said: str, make: Make) -> None:
    rule = make()
    rule.take(batch_of((1, 2.5)))
    rule.save()
    rule.take(batch_of((1, 100.0)))
    started = time.thread_time()
    with pytest.raises(GatewayError, match=said):
        rule.take(batch_of((1, value)))
    assert time.thread_time() - started < 0.3
    assert values(rule.tick(NOW_NS)) == {4: [2.5]}, "what was saved"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"file": "gone.wasm"}, "E4560 .*gone.wasm cannot be read"),
        ({"file": "nothing.wasm"}, "E4560 .*imports env f, which a rule is not given"),
        ({"file": "text.wasm"}, "E4560 .*is no WASM"),
        ({"plugin": "x"}, "E4560 .*name one of `file` and `plugin`"),
        ({"inputs": ["text"]}, "E4561 .*text is string"),
        ({"inputs": []}, "E4561 .*inputs"),
        ({"inputs": ["nobody"]}, "E5030"),
        ({"outputs": {}}, "E5053"),
        ({"outputs": {"a": "float64"}}, "E5053"),
        ({"memory": "1KiB"}, "E4561 .*memory"),
        ({"deadline": "1s"}, "E4561 .*deadline"),
    ],
)
def test_row_that_cannot_work_is_refused(options: dict[str, Any], said: str, make: Make) -> None:
    with pytest.raises(Misconfigured, match=said):
        make(**options)


def test_plugin_that_is_no_rule_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPTIONS, "file")
    with pytest.raises(Misconfigured, match="plugin modbus has no rule"):
        make(plugin="modbus")
    with pytest.raises(Misconfigured, match="no plugin nobody"):
        make(plugin="nobody")
