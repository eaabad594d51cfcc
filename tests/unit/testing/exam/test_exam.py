"""The examiner lets the template pass, and names the question that a bad driver answers wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import Driver, DriverContext, Plan
from framegate.contract.errors import GatewayError, NoReply, NotConnected
from framegate.contract.frame import Batch, ValueType
from framegate.package.build import project_manifest
from framegate.package.discover import load_role
from framegate.package.template import render, write_project
from framegate.testing.exam import exam as exam_module
from framegate.testing.exam.exam import Exam, Verdict, examine
from framegate.testing.exam.vectors import Vectors, VectorTag, read_vectors

NAME = "examined_example"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins") / NAME
    write_project(folder, render(NAME, "python", "any"))
    return folder


@pytest.fixture(scope="module")
def driver_class(project: Path) -> type[Any]:
    return cast(type[Any], load_role(project_manifest(project), "driver"))


@pytest.fixture(scope="module")
def vectors(project: Path) -> Vectors:
    return read_vectors(project)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam_module, "SCANS_WARM", 20)
    monkeypatch.setattr(exam_module, "SCANS_MEASURED", 100)
    monkeypatch.setattr(exam_module, "SILENT_ROUNDS", 1)


async def findings(factory: Callable[[], Driver], vectors: Vectors, *checks: str, rounds: int = 60) -> dict[str, str]:
    """What failed, by check; all checks where none is named."""
    exam = Exam(vectors, factory, rounds)
    asked = exam.questions
    chosen = [(name, question) for name, question in asked if not checks or name in checks]
    assert len(chosen) == len(checks or asked)
    failed = {}
    async for finding in examine(Chosen(exam, chosen)):
        if finding.verdict is Verdict.FAILED:
            failed[finding.check] = finding.detail
    return failed


class Chosen(Exam):
    """An exam of some questions only."""

    def __init__(self, exam: Exam, questions: Sequence[tuple[str, exam_module.Question]]) -> None:
        super().__init__(exam.vectors, exam.factory, exam.rounds)
        self._chosen = questions

    @property
    def questions(self) -> Sequence[tuple[str, exam_module.Question]]:
        return self._chosen


async def test_template_passes_every_question(driver_class: type[Any], vectors: Vectors) -> None:
    assert await findings(lambda: driver_class(vectors.options), vectors) == {}


async def test_driver_over_datagrams_is_asked_what_can_be_asked(driver_class: type[Any], vectors: Vectors) -> None:
    exam = Exam(vectors, lambda: driver_class({"timeout_ms": 200}), 8, is_datagram=True)
    found = [one async for one in examine(exam)]
    assert [one for one in found if one.verdict is Verdict.FAILED] == []
    skipped = [one.check for one in found if one.verdict is Verdict.SKIPPED]
    assert skipped == ["artifact", "bytes one by one", "nobody there", "close"]


class Sabotage:
    """A driver of the template, with one thing wrong."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def plan(self, tags: Sequence[Any]) -> Plan:
        return cast(Plan, self.driver.plan(tags))

    async def open(self, context: DriverContext) -> None:
        await self.driver.open(context)

    async def read(self, plan: Plan) -> Sequence[Batch]:
        return cast(Sequence[Batch], await self.driver.read(plan))

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        return cast(Sequence[WriteResult], await self.driver.write(commands))

    async def close(self) -> None:
        await self.driver.close()


class IsOffByOne(Sabotage):
    async def read(self, plan: Plan) -> Sequence[Batch]:
        return [batch._replace(value=batch.value + 1) for batch in await super().read(plan)]


class InventsQuality(Sabotage):
    async def read(self, plan: Plan) -> Sequence[Batch]:
        batches = await super().read(plan)
        return [batch._replace(quality=np.array([0xC000_0000], np.uint32)) for batch in batches]


class KeepsOldValues(Sabotage):
    last: Sequence[Batch] = ()

    async def read(self, plan: Plan) -> Sequence[Batch]:
        with contextlib.suppress(NoReply):
            self.last = await super().read(plan)
        return self.last


class ConfirmsBlindly(Sabotage):
    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        await super().write(commands)
        return [WriteResult(command.tag, Outcome.CONFIRMED) for command in commands]


class CallsUnknownRejected(Sabotage):
    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        results = await super().write(commands)
        return [
            result if result.outcome is not Outcome.UNKNOWN else WriteResult(result.tag, Outcome.REJECTED)
            for result in results
        ]


class NeverComesBack(Sabotage):
    """Believes for ever that the line is lost."""

    is_lost = False

    async def read(self, plan: Plan) -> Sequence[Batch]:
        if self.is_lost:
            raise NotConnected("lost")
        try:
            return await super().read(plan)
        except GatewayError:
            self.is_lost = True
            raise


class BreaksOnGarbage(Sabotage):
    async def read(self, plan: Plan) -> Sequence[Batch]:
        try:
            return await super().read(plan)
        except GatewayError as error:
            raise struct.error("unpack requires a buffer of 4 bytes") from error


class WasStopped(Sabotage):
    """As a carrier tells of a crash."""

    async def read(self, plan: Plan) -> Sequence[Batch]:
        try:
            return await super().read(plan)
        except GatewayError as error:
            raise NotConnected("the driver was stopped (trap)", code="E9999") from error


class KeepsItsLine(Sabotage):
    async def close(self) -> None:
        pass


HOARDED_BYTES = 80_000


class Hoards(Sabotage):
    hoard: list[mmap.mmap] = []  # noqa: RUF012 - the leak to be found; pages of its own, as a heap may have room

    async def read(self, plan: Plan) -> Sequence[Batch]:
        page = mmap.mmap(-1, HOARDED_BYTES)
        page.write(b"x" * HOARDED_BYTES)
        self.hoard.append(page)
        return await super().read(plan)


class OpensAnyhow(Sabotage):
    async def open(self, context: DriverContext) -> None:
        with contextlib.suppress(NotConnected):
            await super().open(context)


class LosesRows(Sabotage):
    async def read(self, plan: Plan) -> Sequence[Batch]:
        return (await super().read(plan))[1:]


class Hangs(Sabotage):
    async def read(self, plan: Plan) -> Sequence[Batch]:
        await asyncio.get_running_loop().create_future()
        return []


@pytest.mark.parametrize(
    ("sabotage", "check", "words"),
    [
        (IsOffByOne, "known answers", "counter is 8, expected 7"),
        (LosesRows, "known answers", "a scan that ends well has rows of"),
        (Hangs, "known answers", "read has not ended after"),
        (InventsQuality, "quality", "0xC0000000 is no OPC UA StatusCode"),
        (KeepsOldValues, "silence", "the device is silent, and tag 1 has a value all the same"),
        (ConfirmsBlindly, "writes", "CONFIRMED, expected REJECTED"),
        (ConfirmsBlindly, "hostile writes", "the write left, and it is CONFIRMED, not UNKNOWN"),
        (CallsUnknownRejected, "hostile writes", "the write left, and it is REJECTED, not UNKNOWN"),
        (NeverComesBack, "hostile answers", "no scan after a disturbance"),
        (BreaksOnGarbage, "hostile answers", "round 0 of seed 1, .*read raises error"),
        (WasStopped, "hostile answers", "E9999 the driver was stopped"),
        (KeepsItsLine, "close", "the device still has a connection"),
        (Hoards, "memory", "bytes more after"),
        (OpensAnyhow, "nobody there", "open succeeds although nobody listens"),
    ],
)
async def test_bad_driver_is_told_what_it_did(
    driver_class: type[Any],
    vectors: Vectors,
    monkeypatch: pytest.MonkeyPatch,
    sabotage: type[Sabotage],
    check: str,
    words: str,
) -> None:
    monkeypatch.setattr(exam_module, "CLOSED_S_MAX", 0.1)
    monkeypatch.setattr("framegate.testing.exam.bench.CALL_S_MAX", 1.5)
    monkeypatch.setattr("framegate.testing.exam.bench.STOPPED_CODES", {"E9999"})
    failed = await findings(lambda: sabotage(driver_class(vectors.options)), vectors, check)
    assert list(failed) == [check]
    assert re.search(words, failed[check]), failed[check]
    Hoards.hoard.clear()


async def test_driver_that_cannot_plan_is_asked_nothing_else(driver_class: type[Any], vectors: Vectors) -> None:
    odd = Vectors(tags=[VectorTag("odd", "x", ValueType.UINT16)], scans=[], options={})
    failed = await findings(lambda: driver_class({}), odd)
    assert list(failed) == ["plan"]
    assert 'tag odd: "x" is no register' in failed["plan"]
