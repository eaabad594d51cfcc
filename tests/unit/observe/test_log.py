"""Log lines are JSON, bounded, levelled, and without secrets."""

from __future__ import annotations

import io
import json

from framegate.observe.log import LINE_BYTES_MAX, make_log


def test_log_event_is_one_json_line_with_bound_keys() -> None:
    stream = io.StringIO()
    make_log(stream, gateway="gw1").warning("slot_backoff", driver_id="mb1", wait_s=4.0, path=object)
    record = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert record["event"] == "slot_backoff"
    assert record["level"] == "warning"
    assert (record["gateway"], record["driver_id"], record["wait_s"]) == ("gw1", "mb1", 4.0)


def test_log_below_level_is_silent() -> None:
    stream = io.StringIO()
    log = make_log(stream, level="warning")
    log.debug("a")
    log.info("b")
    log.error("c")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["c"]


def test_log_secret_keys_are_masked() -> None:
    stream = io.StringIO()
    make_log(stream).info("login", user="anna", Password="hunter2", api_token="t0p")
    assert "hunter2" not in stream.getvalue()
    assert "t0p" not in stream.getvalue()
    assert "anna" in stream.getvalue()


def test_log_line_beyond_its_bound_is_cut() -> None:
    stream = io.StringIO()
    make_log(stream).info("long", text="x" * 3 * LINE_BYTES_MAX)
    assert len(stream.getvalue()) < LINE_BYTES_MAX
    assert json.loads(stream.getvalue())["event"] == "long"
