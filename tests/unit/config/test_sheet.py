"""Sheets: whatever a table holds goes out and comes back; whatever a file holds is read within bounds, or refused."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import xlsxwriter
import yaml_rs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from framegate.config import load_tables
from framegate.config.sheet import ImportPlan, Policy, SheetForm, export_sheet, plan_import, write_table
from framegate.config.sheet.cells import decode, encode
from framegate.config.sheet.columns import Kind
from framegate.config.sheet.flow import flow_row
from framegate.config.sheet.table import read_raw
from framegate.config.yaml import load_yaml
from framegate.contract.errors import Misconfigured, Problem
from framegate.package.discover import discover

PLUGINS = discover()
FORMS: tuple[SheetForm, ...] = ("csv", "xlsx")
TABLE = """\
# the plant
variables:
  - {tag: a, source: mb1, address: "4x1", type: int16, scale: 0.5}   # the first
  - {tag: b, source: mb1, address: 40002, type: bool, bit: 3}

  # in block form
  - tag: c
    source: mb2  # other device
    address: "1:20"
    type: float32

    description: "=SUM(A1)"
  - {tag: d, expr: 'tag["a"] * 2', type: float64, enum: {"1": "on", "2": "=off"}}  # the last
templates:
  meter: {variables: [{tag: "{name}.p", address: "hr:{base}", type: int16}], parameters: {base: {}}}
instances:
  - {template: meter, name: M1, source: mb2, base: 7}
"""

VALUES = (
    st.text(max_size=40)
    | st.sampled_from(["=1+1", "+1", "-1", "@x", "'=1", "1:20", "0123", "40001", "1e3", "true", "", " x ", '"q"', "{}",
                       "[1]", "1,5", "\t=1", "_x000D_", "a\r\nb", "\x00", "~", "NO", "泵", "null"])
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
)  # fmt: skip
KINDS = st.sampled_from(["text", "number", "boolean", "any"])
ROWS = st.lists(
    st.fixed_dictionaries(
        {"tag": st.text(min_size=1, max_size=20)},
        optional={
            "source": st.text(max_size=10),
            "address": st.text(max_size=10) | st.integers(0, 99999),
            "type": st.text(max_size=10),
            "description": st.text(max_size=40),
            "scale": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63),
            "deadband": VALUES,
            "invert": st.booleans(),
            "clamp": st.lists(VALUES, max_size=3),
            "enum": st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
            "bit": st.integers(-(2**63), 2**63),
            "length": st.integers(-(2**63), 2**63),
            "no_such_key": VALUES,
        },
    ),
    max_size=5,
    unique_by=lambda row: cast(str, row["tag"]),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "variables.yml").write_text(TABLE, encoding="utf-8")
    return tmp_path


def plan_of(folder: Path, data: bytes, policy: Policy = "merge", encoding: str = "") -> ImportPlan:
    return plan_import(folder, PLUGINS, "sheet", data, policy, encoding)


def told(plan: ImportPlan) -> list[tuple[str, str, int, str]]:
    return [(change.action, change.tag, change.row, change.column) for change in plan.report]


def edited(folder: Path, old: str, new: str, policy: Policy = "merge") -> ImportPlan:
    """An import of the folder's own export with one text replaced."""
    text = export_sheet(folder, PLUGINS, "variables", "csv")[0].decode()
    assert old in text
    return plan_of(folder, text.replace(old, new).encode(), policy)


def shuffled(*cells: str, header: str = "tag,source,address,type", delimiter: str = ",") -> str:
    return "\n".join([header.replace(",", delimiter), *cells]) + "\n"


@given(VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(st.text(max_size=5), VALUES), KINDS)
def test_cell_gives_its_value_back(value: Any, kind: Kind) -> None:
    if kind == "text" and not isinstance(value, str):
        return
    if kind == "number" and isinstance(value, list | dict):
        return
    if kind == "boolean" and not isinstance(value, bool):
        return
    cell = encode(value, kind)
    again = decode(cell, kind)
    assert cell
    assert again == value
    assert type(again) is type(value)


@given(VALUES, KINDS)
def test_text_in_a_cell_is_no_formula(value: Any, kind: Kind) -> None:
    cell = encode(value, kind)
    assert not isinstance(value, str) or cell[0] not in "=+-@\t\r"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ROWS, st.sampled_from(FORMS), st.sampled_from(["merge", "overwrite", "abort", "replace-device"]))
def test_export_and_import_of_any_rows_differ_in_nothing(
    tmp_path: Path, rows: list[dict[str, Any]], form: SheetForm, policy: Policy
) -> None:
    lines = "".join(f"  - {flow_row(row)}\n" for row in rows) if rows else "  []\n"
    text = f"variables:\n{lines}"
    assert load_yaml(text.encode()).value == {"variables": rows}
    (tmp_path / "variables.yml").write_text(text, encoding="utf-8", newline="")
    plan = plan_of(tmp_path, export_sheet(tmp_path, PLUGINS, "variables", form)[0], policy)
    assert plan.report == []
    assert plan.data == plan.before


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ROWS, ROWS, st.sampled_from(FORMS))
def test_import_makes_any_table_of_any_sheet(
    tmp_path: Path, before: list[dict[str, Any]], after: list[dict[str, Any]], form: SheetForm
) -> None:
    tables = []
    for rows in (after, before):
        text = "variables:\n" + ("".join(f"  - {flow_row(row)}\n" for row in rows) if rows else "  []\n")
        (tmp_path / "variables.yml").write_text(text, encoding="utf-8", newline="")
        tables.append(export_sheet(tmp_path, PLUGINS, "variables", form)[0])
    known = {key for row in before for key in row}
    if any("no_such_key" in row for row in after) and "no_such_key" not in known:
        return
    plan = plan_of(tmp_path, tables[0], "overwrite")
    assert not plan.changes.rejected
    result = {row["tag"]: row for row in load_yaml(plan.data).value["variables"]}
    for row in after:
        # A column that the sheet does not have leaves its key alone.
        kept = {key: value for key, value in result[row["tag"]].items() if key in row or key != "no_such_key"}
        same = {**row, "address": str(row["address"])} if "address" in row else row
        assert {**kept, **({"address": str(kept["address"])} if "address" in kept else {})} == same
    assert set(result) == {row["tag"] for row in after}


@given(ROWS)
def test_flow_rows_are_read_alike_by_another_reader(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert load_yaml(f"- {flow_row(row)}".encode()).value == [row]
        if "\x00" not in str(row) and not any(isinstance(v, int | float) for v in _leaves(row)):
            assert cast(Any, yaml_rs.loads(f"x: {flow_row(row)}"))["x"] == row


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]


@pytest.mark.parametrize("form", FORMS)
def test_unchanged_table_stays_byte_for_byte(folder: Path, form: SheetForm) -> None:
    data, count = export_sheet(folder, PLUGINS, "variables", form)
    plan = plan_of(folder, data, "overwrite")
    assert (count, plan.report, plan.data) == (5, [], TABLE.encode())


def test_workbook_keeps_text_that_looks_like_a_number(folder: Path) -> None:
    data, _ = export_sheet(folder, PLUGINS, "variables", "xlsx")
    rows = CalamineWorkbook.from_filelike(io.BytesIO(data)).get_sheet_by_index(0).to_python()
    at = {name: number for number, name in enumerate(rows[0])}
    assert [row[at["address"]] for row in rows[1:]] == ["4x1", "40002", "1:20", "", "hr:7"]
    assert rows[1][at["scale"]] == 0.5
    assert rows[3][at["description"]] == "'=SUM(A1)"
    assert [row[at["(template)"]] for row in rows[1:]] == ["", "", "", "", "meter/M1"]


def test_csv_is_for_excel_and_runs_nothing(folder: Path) -> None:
    data, _ = export_sheet(folder, PLUGINS, "variables", "csv")
    assert data.startswith(b"\xef\xbb\xbftag,source,address,type,")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert rows[2]["description"] == "'=SUM(A1)"
    assert rows[3]["enum"] == '{"1": "on", "2": "=off"}'


def test_changed_value_is_the_only_difference(folder: Path) -> None:
    plan = edited(folder, "mb1,4x1,int16", "mb1,4x9,int16")
    assert told(plan) == [("changed", "a", 2, "address")]
    assert (plan.report[0].before, plan.report[0].after) == ("4x1", "4x9")
    assert plan.data.decode() == TABLE.replace('"4x1"', '"4x9"')


def test_changed_added_and_removed_keys_of_a_block_row_keep_its_comments(folder: Path) -> None:
    plan = edited(folder, "c,mb2,1:20,float32,,,'=SUM(A1)", "c,mb2,1:21,float32,RW,,")
    assert plan.data.decode() == TABLE.replace('"1:20"', '"1:21"').replace(
        '    type: float32\n\n    description: "=SUM(A1)"\n', "    type: float32\n    access: RW\n"
    )


def test_key_added_to_and_removed_from_a_flow_row(folder: Path) -> None:
    plan = edited(folder, "a,mb1,4x1,int16,,,,,0.5", "a,mb1,4x1,int16,,bar,,,")
    assert plan.data.decode() == TABLE.replace("type: int16, scale: 0.5}   #", "type: int16, unit: bar}   #")


def test_new_rows_follow_the_last_one(folder: Path) -> None:
    plan = plan_of(folder, shuffled("n1,mb1,4x77,int16", "n2,mb1,0123,bool").encode())
    assert told(plan) == [("added", "n1", 2, ""), ("added", "n2", 3, "")]
    new = '  - {tag: n1, source: mb1, address: "4x77", type: int16}\n'
    new += '  - {tag: n2, source: mb1, address: "0123", type: bool}\n'
    assert plan.data.decode() == TABLE.replace("templates:", f"{new}templates:")


def test_policies_differ_in_what_becomes_of_other_rows(folder: Path) -> None:
    sheet = shuffled("a,mb1,4x5,int16", "n,mb1,4x77,int16").encode()
    assert told(plan_of(folder, sheet, "merge"))[:1] == [("changed", "a", 2, "address")]
    assert told(plan_of(folder, sheet, "abort"))[:1] == [("rejected", "a", 2, "address")]
    removed = [change.tag for change in plan_of(folder, sheet, "overwrite").report if change.action == "removed"]
    assert removed == ["b", "c", "d"]
    plan = plan_of(folder, sheet, "replace-device")
    assert [change.tag for change in plan.report if change.action == "removed"] == ["b"]
    assert "# in block form" in plan.data.decode()
    assert "tag: b" not in plan.data.decode()


def test_all_rows_removed_leave_an_empty_list(folder: Path) -> None:
    plan = plan_of(folder, b"tag\n", "overwrite")
    assert load_yaml(plan.data).value["variables"] == []
    assert b"# the plant\nvariables: []\n" in plan.data


@pytest.mark.parametrize(
    "before", ["variables: []\n", "variables: [{tag: b, type: bool, expr: '1'}]", "\ufeffvariables:\r\n- tag: b\r\n"]
)
def test_row_is_added_to_a_table_of_any_form(tmp_path: Path, before: str) -> None:
    (tmp_path / "variables.yml").write_bytes(before.encode())
    plan = plan_of(tmp_path, shuffled("n,mb1,4x77,int16").encode())
    assert load_yaml(plan.data).value["variables"][-1]["tag"] == "n"
    assert plan.data.startswith(b"\xef\xbb\xbf") is before.startswith("\ufeff")
    assert (b"\r\n- {" in plan.data) is ("\r" in before)


def test_made_row_that_changed_is_rejected_with_its_maker(folder: Path) -> None:
    plan = edited(folder, "M1.p,mb2,hr:7", "M1.p,mb2,hr:8")
    assert told(plan) == [("rejected", "M1.p", 6, "address")]
    assert plan.report[0].reason == "meter/M1 makes this tag; change the template or its instance in variables.yml"
    assert plan.data == plan.before


def test_row_of_a_template_that_makes_it_no_more_is_rejected(folder: Path) -> None:
    assert told(edited(folder, "M1.p,mb2,hr:7", "M2.p,mb2,hr:8")) == [("rejected", "M2.p", 6, "(template)")]


def test_rows_without_a_tag_or_with_one_twice_are_rejected(folder: Path) -> None:
    plan = plan_of(folder, shuffled(",mb1,4x1,int16", "n,mb1,1,bool", "n,mb1,2,bool").encode())
    assert told(plan) == [("rejected", "", 2, "tag"), ("added", "n", 3, ""), ("rejected", "n", 4, "tag")]
    assert plan.report[2].reason == "the tag stands already in row 3"


def test_problem_of_an_imported_row_is_told_at_its_place_in_the_sheet(folder: Path) -> None:
    plan = plan_of(folder, shuffled("n,mb1,4x77,floot").encode())
    others = plan.judge(
        [
            Problem("variables", ("variables", 4, "type"), "E1104", "wrong"),
            Problem("drivers", ("drivers",), "E1107", "x"),
        ]
    )
    assert told(plan)[-1] == ("rejected", "n", 2, "type")
    assert plan.report[-1].reason == "E1104 wrong"
    assert [problem.table for problem in others] == ["drivers"]


@pytest.mark.parametrize(
    ("text", "encoding", "used"),
    [
        ("tag;source;address;type;scale;unit\nn;mb1;4x1;int16;0,25;温度\n", "utf-8-sig", "utf-8"),
        ("tag\tsource\taddress\ttype\tscale\tunit\nn\tmb1\t4x1\tint16\t0,25\t温度\n", "utf-16", "utf-16-le"),
        ("tag,source,address,type,scale,unit\nn,mb1,4x1,int16,0.25,温度\n", "gbk", "gb18030"),
        ("tag,source,address,type,scale,unit\nn,mb1,4x1,int16,0.25,温度\n", "utf-16-be", "utf-16-be"),
        ("tag,source,address,type,scale,unit\r\nn,mb1,4x1,int16,0.25,温度\r\n", "utf-8", "utf-8"),
    ],
)
def test_texts_of_other_programs_are_read(folder: Path, text: str, encoding: str, used: str) -> None:
    plan = plan_of(folder, text.encode(encoding))
    assert plan.encoding == used
    assert plan.changes.edits.added[0] == {
        "tag": "n", "source": "mb1", "address": "4x1", "type": "int16", "scale": 0.25, "unit": "温度",
    }  # fmt: skip


def test_named_encoding_is_taken(folder: Path) -> None:
    plan = plan_of(folder, shuffled("n,°C", header="tag,unit").encode("cp1252"), encoding="cp1252")
    assert plan.changes.edits.added[0]["unit"] == "°C"


def test_workbook_of_another_hand_is_read(folder: Path) -> None:
    stream = io.BytesIO()
    book = xlsxwriter.Workbook(stream)
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, ["tag", "address", "scale", "invert"])
    sheet.write_row(1, 0, ["n", 40001, 2, True])
    sheet.write_row(2, 0, ["m", "40002"])
    sheet.write_datetime(3, 1, __import__("datetime").datetime(2024, 1, 20), book.add_format({"num_format": "d/m"}))
    sheet.write_string(3, 0, "o")
    book.close()
    plan = plan_of(folder, stream.getvalue())
    assert plan.changes.edits.added == [
        {"tag": "n", "address": "40001", "scale": 2, "invert": True},
        {"tag": "m", "address": "40002"},
    ]
    assert told(plan)[-1] == ("rejected", "o", 4, "address")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"tag,colour\n", "E1146 the first row names the column colour, which no tag has"),
        (b"source,address\n", "E1146 the first row names no column tag"),
        (b"tag,unit,unit\n", "E1146 the first row names the column unit twice"),
        (b"", "E1146 the first row names no column tag"),
        (b'tag\n"x', "E1145 sheet: row 2 is no CSV"),
        (b"tag\n" + b"x" * 70_000, "E1145 sheet: row 2 is no CSV"),
        (b"tag\n\xff\xff\xff", "E1145 sheet: is not utf-8 or gb18030"),
        (b"tag" + b",x" * 300 + b"\n", "E1145 sheet: more than 200 columns"),
        (b"PK\x03\x04 and then nothing", "E1145 sheet: is damaged, or no workbook"),
    ],
)
def test_file_that_is_no_sheet_is_refused(folder: Path, data: bytes, says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        plan_of(folder, data)
    assert str(caught.value).startswith(says)


def workbook(sheet: bytes) -> bytes:
    """A workbook whose one sheet has this XML."""
    stream = io.BytesIO()
    book = xlsxwriter.Workbook(stream)
    book.add_worksheet().write_string(0, 0, "tag")
    book.close()
    made = io.BytesIO()
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            new.writestr(part, sheet if part == "xl/worksheets/sheet1.xml" else old.read(part))
    return made.getvalue()


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (b'<row r="1"><c r="XFD1"><v>1</v></c></row>', "reaches to row 1, column 16,384"),
        (b'<row r="1048576"><c r="A1048576"><v>1</v></c></row>', "reaches to row 1,048,576, column 1"),
        (b"<row r='1048576'><c r =\n'A1048576'><v>1</v></c></row>", "reaches to row 1,048,576, column 1"),
        (b'<row r="1"><c r="&#88;FD1"><v>1</v></c></row>', "holds a cell at no place"),
        (b"<!--" + b" " * (300 << 20) + b"-->", "unpacks to more than 256 MiB"),
    ],
)
def test_workbook_that_would_fill_the_memory_is_refused(folder: Path, cells: bytes, says: str) -> None:
    space = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with pytest.raises(Misconfigured, match=rf"^E1145 .*{says}"):
        plan_of(folder, workbook(b"<worksheet " + space + b"><sheetData>" + cells + b"</sheetData></worksheet>"))


def test_anchors_that_an_edit_would_break_are_refused(tmp_path: Path) -> None:
    text = "variables:\n  - {tag: a, unit: &u bar, type: bool}\n  - {tag: b, unit: *u, type: bool}\n"
    (tmp_path / "variables.yml").write_text(text)
    with pytest.raises(Misconfigured, match=r"^E1148 "):
        plan_of(tmp_path, b"tag,unit\na,mbar\n")


def test_write_is_whole_and_keeps_mode_and_link(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.yml"
    (folder / "variables.yml").rename(real)
    real.chmod(0o640)
    (folder / "variables.yml").symlink_to(real)
    plan = edited(folder, "mb1,4x1,int16", "mb1,4x9,int16")
    write_table(folder, plan)
    assert (folder / "variables.yml").is_symlink()
    assert real.read_bytes() == plan.data
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in folder.iterdir()) == ["real.yml", "variables.yml"]


def test_write_over_somebody_elses_edit_is_refused(folder: Path) -> None:
    plan = edited(folder, "mb1,4x1,int16", "mb1,4x9,int16")
    with (folder / "variables.yml").open("a") as file:
        file.write("# mine\n")
    with pytest.raises(Misconfigured, match=r"^E1149 .*changed by somebody else"):
        write_table(folder, plan)
    assert (folder / "variables.yml").read_text().endswith("# mine\n")


def test_write_that_fails_leaves_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    plan = edited(folder, "mb1,4x1,int16", "mb1,4x9,int16")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Misconfigured, match=r"^E1149 .*no space left"):
        write_table(folder, plan)
    assert [path.name for path in folder.iterdir()] == ["variables.yml"]
    assert (folder / "variables.yml").read_text(encoding="utf-8") == TABLE


def test_export_of_other_tables_shows_references_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "endpoints.yml").write_text(
        "endpoints:\n  a: {url: 'tcp://u:pw@h:1', credentials: {username: u, password: '${env:PW}'}}\n"
        "  b: {url: 'tcp://h:1', credentials: {username: u, password: hunter2}}\n"
    )
    (tmp_path / "drivers.yml").write_text("drivers: {d: {plugin: modbus, options: {unit: 3, api_key: k33p}}}\n")
    text = export_sheet(tmp_path, PLUGINS, "endpoints", "csv")[0].decode()
    assert "hunter2" not in text
    assert ":pw@" not in text
    assert "${env:PW}" in text
    text = export_sheet(tmp_path, PLUGINS, "drivers", "csv")[0].decode()
    assert "k33p" not in text
    assert '""unit"": 3' in text


def test_import_is_judged_before_it_is_written(folder: Path) -> None:
    (folder / "endpoints.yml").write_text("endpoints: {e: {url: 'tcp://h:1'}}\n")
    drivers: Mapping[str, str] = dict.fromkeys(("mb1", "mb2"), "{plugin: modbus, endpoint: e}")
    (folder / "drivers.yml").write_text("drivers: {" + ", ".join(f"{k}: {v}" for k, v in drivers.items()) + "}\n")
    plan = plan_of(folder, shuffled("n,mb9,4x77,int16").encode())
    with pytest.raises(Misconfigured) as caught:
        load_tables(folder, PLUGINS, {"variables": plan.data})
    assert plan.judge(caught.value.problems) == []
    assert told(plan)[-1] == ("rejected", "n", 2, "source")
    assert len(read_raw(folder).rows) == 4
