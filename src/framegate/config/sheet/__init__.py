"""Tables as spreadsheets: CSV and XLSX out, and tags back in, without loss.

Cells: columns, cells. Files: sheet, text_file, workbook. Out: export. In: changes compares, splice edits the text by
character (marks, flow), importing puts it together. Start here: importing.py.
"""

from __future__ import annotations

from framegate.config.sheet.changes import Action, Change, Policy
from framegate.config.sheet.export import SheetForm, export_sheet
from framegate.config.sheet.importing import ImportPlan, plan_import, write_table
from framegate.config.sheet.sheet import SHEET_BYTES_MAX

__all__ = [
    "SHEET_BYTES_MAX",
    "Action",
    "Change",
    "ImportPlan",
    "Policy",
    "SheetForm",
    "export_sheet",
    "plan_import",
    "write_table",
]
