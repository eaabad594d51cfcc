"""An artificial plugin API 2: drivers of API 1 go on behind a shim, those of both run as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framegate.contract.plugin import PLUGIN_API, SUPPORTED_APIS, Manifest, RoleEntry, api_for
from framegate.gateway.plugins.shims import SHIMS, Shims, adapted

SUPPORTED = (1, 2)


class Old:
    """API 1: `read` takes a plan."""

    def read(self, plan: str) -> list[str]:
        return [f"{plan} of 1"]


class New:
    """API 2, as made up here: `read` takes a plan and a deadline."""

    def read(self, plan: str, deadline: float) -> list[str]:
        return [f"{plan} of 2 by {deadline}"]


class Shim:
    """A driver of API 1 as one of API 2."""

    def __init__(self, old: Old) -> None:
        self._old = old

    def read(self, plan: str, deadline: float) -> list[str]:
        return self._old.read(plan)


MADE_UP: Shims = {("driver", 1): Shim}


def manifest(low: int, high: int) -> Manifest:
    return Manifest("acme", (low, high), "1.0", "", Path(), {"driver": RoleEntry("a:B", {}, ())}, ())


@pytest.mark.parametrize(
    ("span", "api"), [((1, 1), 1), ((1, 2), 2), ((2, 2), 2), ((1, 9), 2), ((3, 3), None), ((0, 0), None)]
)
def test_api_for_newest_that_both_know(span: tuple[int, int], api: int | None) -> None:
    assert api_for(span, SUPPORTED) == api


def test_adapted_driver_of_the_old_api_is_called_as_one_of_the_new() -> None:
    driver: Any = adapted(Old(), manifest(1, 1), "driver", SUPPORTED, MADE_UP)
    assert driver.read("scan", 2.0) == ["scan of 1"]


@pytest.mark.parametrize("span", [(1, 2), (2, 2)])
def test_adapted_driver_that_knows_the_new_api_is_left_alone(span: tuple[int, int]) -> None:
    made = New()
    assert adapted(made, manifest(*span), "driver", SUPPORTED, MADE_UP) is made


def test_adapted_role_that_the_new_api_did_not_change_is_left_alone() -> None:
    made = object()
    assert adapted(made, manifest(1, 1), "connector", SUPPORTED, MADE_UP) is made


def test_adapted_over_two_steps_goes_through_both() -> None:
    shims: Shims = {("driver", 1): lambda made: [made, 1], ("driver", 2): lambda made: [made, 2]}
    assert adapted("d", manifest(1, 1), "driver", (1, 2, 3), shims) == [["d", 1], 2]


def test_supported_newest_is_last_and_each_step_between_is_covered() -> None:
    assert SUPPORTED_APIS[-1] == PLUGIN_API == max(SUPPORTED_APIS)
    assert {api for _, api in SHIMS} <= set(SUPPORTED_APIS[:-1])
