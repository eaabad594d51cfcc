from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from framegate.contract.driver import Plan
from framegate.contract.errors import NotConnected
from framegate.contract.frame import Batch
from framegate.testing.scripted import ScriptedDriver

if TYPE_CHECKING:
    from tests.unit.runtime.conftest import Plant


class Dying(ScriptedDriver):
    code = "E4510"

    async def read(self, plan: Plan) -> Sequence[Batch]:
        raise NotConnected("its process was killed", code=self.code)


class Losing(Dying):
    code = "E2028"


@pytest.mark.parametrize(("make", "crashes"), [(Dying, 1), (Losing, 0)])
async def test_crashes_of_a_driver_are_counted_and_lost_lines_are_none(
    make_plant: Callable[[], Plant], make: type[Dying], crashes: int
) -> None:
    plant = make_plant()
    await plant.runtime.start([plant.slot(make())])
    await plant.until(lambda: bool(plant.log.events("slot_backoff")))
    await plant.runtime.stop()
    counted = plant.metrics.counter("edge_driver_crashes_total", device="plc1").value
    assert counted == crashes
