"""`edge tags` and `edge top` against a control socket with a gateway's face behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from framegate.cli import exits
from framegate.cli.main import main
from framegate.cli.top_screen import draw, span

SECOND_NS = 1_000_000_000
Serving = Callable[[Any, Path], AbstractContextManager[None]]


@pytest.fixture
def home(face: Any, serving: Serving, tmp_path: Path) -> Iterator[Path]:
    with serving(face, tmp_path):
        yield tmp_path


def rows(text: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in text.splitlines()]


def test_tags_ls_gives_names_values_and_reasons(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tags", "ls", "t1", "--home", str(home)]) == exits.OK
    listed = rows(capsys.readouterr().out)
    assert [row["tag"] for row in listed] == ["t1", *(f"t1{n}" for n in range(10))]
    assert (listed[0]["value"], listed[0]["quality"], listed[0]["unit"]) == (0.5, "Good", "bar")
    assert (listed[3]["value"], listed[3]["quality"]) == (None, "BadTimeout")


def test_tags_ls_beyond_its_limit_says_that_there_may_be_more(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tags", "ls", "--limit", "3", "--home", str(home)]) == exits.OK
    captured = capsys.readouterr()
    assert len(rows(captured.out)) == 3
    assert captured.err == "3 tags shown, perhaps there are more: --limit\n"


def test_tags_ls_as_table_has_a_head_and_marks_what_has_no_value(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tags", "ls", "t3", "-o", "table", "--home", str(home)]) == exits.OK
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["TAG", "VALUE", "UNIT", "QUALITY", "TIME"]
    assert row.split()[:4] == ["t3", "-", "bar", "BadTimeout"]


def test_tag_that_was_never_read_has_no_value_and_no_time(
    face: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face.rows = [replace(face.rows[0], value=None, quality=0x8032_0000, source_time=0, gateway_time=0)]
    assert main(["tags", "get", "t1", "--home", str(home)]) == exits.OK
    row = rows(capsys.readouterr().out)[0]
    assert (row["value"], row["time"], row["quality"]) == (None, None, "BadWaitingForInitialData")


def test_tags_get_with_an_unknown_name_shows_the_others_and_ends_with_1(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tags", "get", "t1", "nix", "t2", "--home", str(home)]) == exits.FAILED
    captured = capsys.readouterr()
    assert [row["tag"] for row in rows(captured.out)] == ["t1", "t2"]
    assert captured.err == "E4014 tag nix: no such tag; `edge tags ls` lists them\n"


def test_tags_watch_of_nothing_ends_with_1(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tags", "watch", "nix", "--home", str(home)]) == exits.FAILED
    assert capsys.readouterr().err == "no tag matches 'nix'; `edge tags ls` lists them\n"


def test_top_once_shows_devices_connectors_and_the_reason(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--home", str(home)]) == exits.OK
    out = capsys.readouterr().out
    assert "gw1  tenant gas" in out
    assert "no answer from unit 2 at tcp://127.0.0.1:5020 within 1 s; check wiring, unit id and power" in " ".join(
        out.split()
    )
    assert out.index("meter") < out.index("pump"), "what fails stands first"
    assert "cloud" in out


def test_top_as_json_is_the_whole_record(home: Path, face: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "-o", "json", "--home", str(home)]) == exits.OK
    assert orjson.loads(capsys.readouterr().out)["devices"][1]["name"] == face.record.devices[1].name


def test_screen_of_80_columns_wraps_no_line_and_keeps_its_height(face: Any) -> None:
    now = face.record
    many = replace(
        now, devices=tuple(replace(now.devices[n % 2], name=f"device-with-a-long-name-{n}") for n in range(90))
    )
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(draw(many, many, 80, 24))
    lines = capture.get().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "more devices; a taller terminal shows them" in capture.get()
    assert "cloud" in capture.get()


def test_screen_rates_come_from_two_records(face: Any) -> None:
    before = face.record
    now = replace(
        before,
        now_ns=before.now_ns + 2 * SECOND_NS,
        cpu_s=before.cpu_s + 0.1,
        bus=replace(before.bus, rows=before.bus.rows + 5_000),
        connectors=(replace(before.connectors[0], rows=before.connectors[0].rows + 4_000),),
    )
    text = draw(now, before, 120, 40).plain
    assert "in 2,500 rows/s   out 2,000 rows/s   cpu 5.0 %" in text
    assert "in - rows/s" in draw(now, now, 120, 40).plain


def test_screen_says_why_the_gateway_is_not_ready(face: Any) -> None:
    stuck = replace(face.record, problem="durable log: no space left on device")
    assert "durable log: no space left on device" in draw(stuck, stuck, 80, 24).plain


def test_screen_tells_of_dead_letters_where_there_are_any(face: Any) -> None:
    now = face.record
    assert "dlq" not in draw(now, now, 80, 24).plain
    refused = replace(now, connectors=(replace(now.connectors[0], letters=3),))
    assert "3 messages were refused for good; `edge dlq ls` shows why" in draw(refused, refused, 80, 24).plain


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.21, "0.2 s"), (-5, "0.0 s"), (95, "1m 35s"), (3_600, "1h"), (280_800, "3d 6h")]
)
def test_span_in_words(seconds: float, text: str) -> None:
    assert span(int(seconds * SECOND_NS)) == text
