"""Scripts as rules: frames in, frames out, declarations, versions, state."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.frame import ValueType
from framegate.contract.quality import Quality
from framegate.mapper.rules.script import API_VERSION, SCRIPT_BYTES_MAX, fingerprint, make

ROOT = Path(__file__).resolve().parents[5]
NOW_NS = 1_795_000_000_123_456_789
DOUBLE = 'outputs = {twice = "float64"} return function(frame) return {value = frame.value * 2} end'


def failure(code: str, part: str) -> Any:
    return pytest.raises(GatewayError, match=f"^{code} .*{part}")


def test_plain_form_returns_frames_with_the_times_of_their_inputs(stage: Any) -> None:
    rule = stage.make(DOUBLE)
    rows = stage.rows(rule.take(stage.batch("a", 1.25, -4.0)))
    assert rows == [("twice", 2.5, 0, NOW_NS), ("twice", -8.0, 0, NOW_NS + 1_000_000)]


def test_on_frame_that_answers_nil_publishes_nothing(stage: Any) -> None:
    rule = stage.make("outputs = {o = 'bool'} function on_frame(frame) end")
    assert list(rule.take(stage.batch("a", 1.0))) == []


def test_frame_has_tag_value_quality_time_and_unit(stage: Any) -> None:
    rule = stage.make(
        """outputs = {o = "string"}
        function on_frame(frame)
          local f = frame
          return {value = string.format("%s %s %d %.3f %s", f.tag, f.value, f.quality, f.time, f.unit)}
        end"""
    )
    (row,) = stage.rows(rule.take(stage.batch("a", 1.5, quality=Quality.UNCERTAIN)))
    assert row[1] == "a 1.5 1073741824 1795000000.123 degC"


def test_list_of_frames_is_published_in_order_and_by_kind(stage: Any) -> None:
    rule = stage.make(
        """outputs = {x = "float64", y = "bool"}
        return function(frame)
          local late = {tag = "x", value = 2, quality = UNCERTAIN, time = 5.5}
          return {{tag = "x", value = 1}, {tag = "y", value = true}, late}
        end"""
    )
    batches = rule.take(stage.batch("a", 0.0))
    assert [batch.kind.name for batch in batches] == ["FLOAT", "BOOL"]
    assert stage.rows(batches) == [
        ("x", 1.0, 0, NOW_NS),
        ("x", 2.0, Quality.UNCERTAIN, 5_500_000_000),
        ("y", True, 0, NOW_NS),
    ]


def test_rows_of_other_tags_are_passed_over(stage: Any) -> None:
    rule = stage.make(DOUBLE)
    assert list(rule.take(stage.batch("n", 7))) == []
    assert rule.inputs == {stage.id("a")}


def test_more_rows_than_one_slice_all_pass(stage: Any) -> None:
    rule = stage.make(DOUBLE, deadline="200ms")
    rows = stage.rows(rule.take(stage.batch("a", *map(float, range(2500)))))
    assert [row[1] for row in rows] == [2.0 * number for number in range(2500)]


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("a", [0.1, -0.0, float("inf"), 5e-324, 1e308]),
        ("n", [0, -1, 2**53, 2**53 + 1, -(2**63), 2**63 - 1]),
        ("u", [0, 2**53 + 1, 2**64 - 1]),
        ("flag", [True, False]),
        ("text", ["", "Öl 60 °C", "a\0b", "x" * 65_536]),
        ("raw", [b"", b"\xff\x00\x1b", bytes(range(256))]),
    ],
)
def test_every_value_passes_through_a_script_unchanged(stage: Any, tag: str, values: list[Any]) -> None:
    type_ = stage.catalogue.find(tag).type.value
    rule = stage.make("return function(f) return {value = f.value} end", [tag], outputs={"o": type_})
    assert [row[1] for row in stage.rows(rule.take(stage.batch(tag, *values)))] == values


def test_nan_passes_through(stage: Any) -> None:
    rule = stage.make("return function(f) return {{value = f.value}, {value = 0/0}} end", outputs={"o": "float64"})
    (batch,) = rule.take(stage.batch("a", float("nan")))
    assert np.isnan(batch.value).all()


def test_whole_number_beyond_two_to_the_53_arrives_as_text_that_counts_as_number(stage: Any) -> None:
    rule = stage.make(
        "return function(f) return {value = type(f.value) .. ' ' .. f.value .. ' ' .. f.value + 0} end",
        ["n"],
        outputs={"o": "string"},
    )
    (row,) = stage.rows(rule.take(stage.batch("n", 2**53 + 1)))
    assert row[1] == "string 9007199254740993 9.007199254741e+15"


@pytest.mark.parametrize(
    ("type_", "answer"),
    [
        ("bool", "1"),
        ("int16", "32768"),
        ("int16", "0.5"),
        ("uint8", "-1"),
        ("uint64", "2^64"),
        ("int64", "'12x'"),
        ("int32", "0/0"),
        ("float32", "1e39"),
        ("float64", "'1'"),
        ("float64", "true"),
        ("string", "1"),
        ("string", "'\\255'"),
    ],
)
def test_value_that_does_not_fit_its_type_is_refused(stage: Any, type_: str, answer: str) -> None:
    rule = stage.make(f"return function(f) return {{value = {answer}}} end", outputs={"o": type_})
    with failure("E5057", "o: "):
        rule.take(stage.batch("a", 1.0))


@pytest.mark.parametrize(
    ("answer", "code", "part"),
    [
        ("{tag = 'other', value = 1}", "E5057", "other, which is not declared"),
        ("frame", "E5057", "frame of the input a; set frame.tag"),
        ("{tag = 'o'}", "E5054", "has no value"),
        ("{tag = 'o', value = {}}", "E5054", "is a table"),
        ("{tag = 7, value = 1}", "E5054", "a frame without tag"),
        ("{tag = 'o', value = 1, quality = -1}", "E5054", "no StatusCode"),
        ("{tag = 'o', value = 1, time = 0/0}", "E5054", "seconds since 1970"),
        ("{tag = 'o', value = 1, time = 1e300}", "E5054", "seconds since 1970"),
        ("1", "E5054", "must be a table"),
        ("{{tag = 'o', value = 1}, 2}", "E5054", "must be a table"),
    ],
)
def test_answer_that_is_no_frame_is_refused(stage: Any, answer: str, code: str, part: str) -> None:
    rule = stage.make(f"return function(frame) return {answer} end", outputs={"o": "float64", "p": "float64"})
    with failure(code, part):
        rule.take(stage.batch("a", 1.0))


def test_bad_frames_go_to_on_bad_without_value(stage: Any) -> None:
    rule = stage.make(
        """outputs = {o = "float64"}
        function on_frame(frame) return {value = frame.value} end
        function on_bad(frame) assert(frame.value == nil) return {quality = frame.quality} end"""
    )
    rows = stage.rows(rule.take(stage.batch("a", 1.0, 2.0, quality=[0, Quality.BAD_TIMEOUT])))
    assert [(row[2], row[3]) for row in rows] == [(0, NOW_NS), (Quality.BAD_TIMEOUT, NOW_NS + 1_000_000)]


def test_bad_frames_are_passed_over_without_on_bad(stage: Any) -> None:
    rule = stage.make(DOUBLE)
    assert list(rule.take(stage.batch("a", 1.0, quality=Quality.BAD_TIMEOUT))) == []


def test_on_tick_is_given_seconds_and_publishes_at_that_moment(stage: Any) -> None:
    rule = stage.make(
        "outputs = {o = 'float64'} function on_frame() end function on_tick(now) return {value = now} end"
    )
    assert stage.rows(rule.tick(NOW_NS)) == [("o", NOW_NS / 1e9, 0, NOW_NS)]


def test_placeholder_in_outputs_stands_for_each_input(stage: Any) -> None:
    rule = stage.make(
        "return function(f) return {tag = f.tag .. '.x', value = 1} end", ["[an]"], outputs={"{tag}.x": "int8"}
    )
    assert stage.rows(rule.take(stage.batch("n", 3)))[0][0] == "n.x"
    assert stage.catalogue.find("a.x").device == "rule/r"
    assert stage.catalogue.find("a.x").type is ValueType.INT8


def test_pattern_stands_for_no_tag_of_a_rule(stage: Any) -> None:
    stage.catalogue.intern("a.derived", "rule/other", ValueType.BOOL, "", "R")
    assert stage.make(DOUBLE, ["a*"]).inputs == {stage.id("a")}


def test_log_is_told_at_most_ten_times_a_second_and_the_rest_counted(stage: Any) -> None:
    rule = stage.make("outputs = {o = 'bool'} function on_frame(f) log('at ' .. f.value) end")
    for _ in range(3):
        rule.take(stage.batch("a", *map(float, range(6))))
    rule.tick(NOW_NS)
    said = stage.log.events("rule_script_said")
    assert [line["text"] for line in said] == [f"at {number}" for number in (0, 1, 2, 3, 4, 5, 0, 1, 2, 3)]
    rule.take(stage.batch("a", 9.0)._replace(gateway_time=NOW_NS + 1_000_000_000))
    assert stage.log.events("rule_script_said")[-1] == {"rule": "r", "text": "at 9", "dropped": 8}


# -- what is refused when a rule is made -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "code", "part"),
    [
        ("-- version: 2\n", {}, "E5051", "version 2 is not known here"),
        ("-- version\nreturn 1", {}, "E5051", f"the first line must be `-- version: {API_VERSION}`"),
        ("return function(", {}, "E5052", "r.lua:2: .* expected near"),
        ("x = 1", {}, "E5052", "r.lua: defines no function on_frame"),
        ("on_tick = 1 function on_frame() end", {}, "E5052", "on_tick must be a function"),
        ("local x = nil + 1", {}, "E5052", "r.lua:2: attempt to perform arithmetic"),
        ("while true do end", {}, "E5052", "ran longer than"),
        ("outputs = {o = function() end} function on_frame() end", {}, "E5052", "is|holds a function"),
        ("function on_frame() end", {}, "E5053", "declares no outputs"),
        ("outputs = {o = 'real'} function on_frame() end", {}, "E5053", "write one of bool, int8"),
        ("outputs = {'o'} function on_frame() end", {}, "E5053", "must be a table of names and types"),
        ("outputs = 5 function on_frame() end", {}, "E5053", "must be a table of names and types"),
        ("outputs = {n = 'int64'} function on_frame() end", {}, "E5053", "n is a tag of plc already"),
        ("\x1bLJ\x02", {}, "E5052", "attempt to load|unexpected"),
        (DOUBLE, {"inputs": ["b"]}, "E5030", "no tag b"),
        (DOUBLE, {"inputs": ["fla"]}, "E5030", "did you mean flag"),
        (DOUBLE, {"inputs": ["zz*"]}, "E5030", "no tag matches zz"),
        (DOUBLE, {"inputs": []}, "E5059", "inputs must name tags"),
        (DOUBLE, {"memory": "64MiB"}, "E5052", "256KiB to 16MiB"),
        (DOUBLE, {"deadline": "1s"}, "E5052", "1ms to 200ms"),
        (DOUBLE, {"deadline": "soon"}, "E5052", "duration"),
    ],
)
def test_script_that_cannot_work_is_refused(
    stage: Any, text: str, options: dict[str, Any], code: str, part: str
) -> None:
    with pytest.raises(Misconfigured, match=f"^{code} .*({part})"):
        stage.make(text, **{"inputs": ["a"], **options})


@pytest.mark.parametrize(
    "file", ["../r.lua", "/etc/r.lua", "a/../../r.lua", "r.txt", "", ".r.lua", "link.lua", "dir.lua"]
)
def test_file_outside_the_folder_is_refused(stage: Any, file: str, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "r.lua"
    outside.write_text("-- version: 1\nreturn print")
    (stage.folder / "link.lua").symlink_to(outside)
    (stage.folder / "dir.lua").mkdir()
    with pytest.raises(Misconfigured, match=r"^E5050 rule r: "):
        make("r", {"file": file, "inputs": ["a"]}, stage.context)


def test_missing_and_too_large_files_are_refused(stage: Any) -> None:
    with pytest.raises(Misconfigured, match=r"^E5050 .*gone.lua cannot be read \(no such file"):
        make("r", {"file": "gone.lua", "inputs": ["a"]}, stage.context)
    with pytest.raises(Misconfigured, match=f"^E5050 .*larger than {SCRIPT_BYTES_MAX}"):
        stage.make("--" + "x" * SCRIPT_BYTES_MAX)


def test_header_may_follow_a_byte_order_mark_and_end_in_crlf(stage: Any) -> None:
    (stage.folder / "r.lua").write_bytes(b"\xef\xbb\xbf--version:1 \r\n" + DOUBLE.encode())
    assert make("r", {"file": "r.lua", "inputs": ["a"]}, stage.context).name == "r"


def test_fingerprint_changes_with_the_file_and_with_the_row(stage: Any) -> None:
    options = {"file": "r.lua", "inputs": ["a"]}
    marks = {fingerprint(options, stage.folder)}
    (stage.folder / "r.lua").write_text("-- version: 1\n")
    marks |= {fingerprint(options, stage.folder), fingerprint({"inputs": ["a"], "file": "r.lua"}, stage.folder)}
    (stage.folder / "r.lua").write_text("-- version: 1\n\n")
    marks |= {fingerprint(options, stage.folder), fingerprint({**options, "memory": "1MiB"}, stage.folder)}
    assert len(marks) == 4
    assert {len(mark) for mark in marks} == {32}


# -- state -----------------------------------------------------------------------------------------------------------

COUNT = """state = {n = 0} outputs = {o = "int64"}
function on_frame(frame)
  state.n = state.n + 1
  if frame.value < 0 then error("negative") end
  return {value = state.n}
end"""


def test_state_is_restored_in_a_new_rule(stage: Any) -> None:
    rule = stage.make(COUNT)
    rule.take(stage.batch("a", 1.0, 1.0))
    again = stage.make(COUNT)
    again.load(rule.save())
    assert [row[1] for row in stage.rows(again.take(stage.batch("a", 1.0)))] == [3]
    assert again.save() == b"lua 1\n{s1:nn3;}"


def test_failed_call_leaves_the_state_that_was_saved_last(stage: Any) -> None:
    rule = stage.make(COUNT)
    rule.take(stage.batch("a", 1.0))
    saved = rule.save()
    with failure("E5054", r"r.lua:5: negative"):
        rule.take(stage.batch("a", 1.0, -1.0))
    assert rule.save() == saved
    assert [row[1] for row in stage.rows(rule.take(stage.batch("a", 1.0)))] == [2]


def test_state_of_another_version_is_refused(stage: Any) -> None:
    saved = stage.make(COUNT).save()
    with failure("E5058", "another state_version"):
        stage.make(COUNT + " state_version = 2").load(saved)


@pytest.mark.parametrize("text", ["x", "{", "{s1:n", "n1", "n1;n2;", "{n1;}", "{tt}", "{nnan;t}", "s9:abc", "{" * 99])
def test_damaged_state_is_refused_and_the_script_starts_anew(stage: Any, text: str) -> None:
    rule = stage.make(COUNT)
    with failure("E5058", "is damaged"):
        rule.load(b"lua 1\n" + text.encode())
    assert [row[1] for row in stage.rows(rule.take(stage.batch("a", 1.0)))] == [1]


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("function() end", "holds a function"),
        ("(function() local t = {} t.t = t return t end)()", "one table twice"),
        ("{[{}] = 1}", "a key that is a table"),
        ("(function() local t = {} for i = 1, 9 do t = {t} end return t end)()", "nested too deep"),
        ("(function() local t = {} for i = 1, 4097 do t[i] = i end return t end)()", "more than 4096 entries"),
        ("(function() local t = {} for i = 1, 20 do t[i] = i .. ('x'):rep(60000) end return t end)()", "are allowed"),
    ],
)
def test_state_that_cannot_be_kept_is_refused(stage: Any, expression: str, part: str) -> None:
    rule = stage.make(f"{COUNT} state = {{n = 0, x = {expression}}}", deadline="200ms")
    with failure("E5058", part):
        rule.save()


def test_script_without_state_saves_a_header_only(stage: Any) -> None:
    rule = stage.make(DOUBLE)
    assert rule.save() == b"lua 1\n"
    rule.load(b"lua 1\n")
    assert [row[1] for row in stage.rows(rule.take(stage.batch("a", 1.0)))] == [2.0]


# -- the sample ------------------------------------------------------------------------------------------------------


def test_sample_alarm_has_hysteresis_outlives_a_restart_and_tells_when_it_is_blind(stage: Any) -> None:
    shutil.copy(ROOT / "examples" / "rules" / "alarm_temp.lua", stage.folder)
    stage.catalogue.intern("pump1.temp", "plc", ValueType.FLOAT64, "degC", "R")
    options = {"file": "alarm_temp.lua", "inputs": ["*.temp"]}
    rule = make("hot", options, stage.context)
    rows = stage.rows(rule.take(stage.batch("pump1.temp", 70.0, 81.0, 77.0)))
    assert [(row[0], row[1]) for row in rows] == [("pump1.temp.hot", False), ("pump1.temp.hot", True)]
    assert stage.log.events("rule_script_said")[0]["text"] == "pump1.temp is at 81 degC"
    again = make("hot", options, stage.context)
    again.load(rule.save())
    assert [row[1] for row in stage.rows(again.take(stage.batch("pump1.temp", 76.0, 74.0)))] == [False]
    (blind,) = stage.rows(again.take(stage.batch("pump1.temp", 0.0, quality=Quality.BAD_TIMEOUT)))
    assert blind[2] == Quality.BAD_TIMEOUT
