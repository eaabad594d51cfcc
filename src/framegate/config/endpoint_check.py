"""Endpoint rows as the endpoint layer judges them: URLs, certificates, keys, references to secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath

from framegate.config.rows import EndpointRow
from framegate.contract.errors import Misconfigured, Problem
from framegate.endpoint.endpoint import check_endpoint, endpoint_from_row


def endpoint_problems(row: EndpointRow, base: FilePath) -> Iterator[Problem]:
    """Everything wrong with one row that passed its schema. `base` is the folder that relative paths begin at."""
    try:
        endpoint = endpoint_from_row(row.name, row.row, base)
    except Misconfigured as error:
        found = error.problems or (Problem("endpoints", ("endpoints", row.name), error.stable_code, error.text),)
    else:
        found = tuple(check_endpoint(endpoint))
    for problem in found:
        # A rendered line names the key in front of the text already.
        yield replace(problem, text=problem.text.removeprefix(f"{problem.path[-1]} "))
