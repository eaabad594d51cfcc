"""From the path of a request to the operations it has. Pure.

    paths.find("/api/v1/tags/line%2F4")   ({"GET": ..., "PUT": ...}, {"tag": "line/4"})

Paths are matched as they were sent, undecoded: a / inside a tag's name is %2F there, and separates nothing. A path
without parameters comes before one with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias
from urllib.parse import unquote

from framegate.api.operation import Operation

Methods: TypeAlias = Mapping[str, Operation]
NOTHING: Final[tuple[Methods, Mapping[str, str]]] = ({}, {})


class Paths:
    """The paths of a table of operations."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        by_path: dict[str, dict[str, Operation]] = {}
        for one in operations:
            for path in filter(None, (one.full_path, one.alias)):
                by_path.setdefault(path, {})[one.method] = one
        self._fixed = {path: methods for path, methods in by_path.items() if "{" not in path}
        self._open: dict[int, list[tuple[Sequence[str], Methods]]] = {}  # by the number of segments
        for path, methods in by_path.items():
            if path not in self._fixed:
                segments = path.split("/")
                self._open.setdefault(len(segments), []).append((segments, methods))

    def find(self, path: str) -> tuple[Methods, Mapping[str, str]]:
        """Operations by method, and the parameters in the path, decoded; NOTHING where there is no such path."""
        methods = self._fixed.get(path)
        if methods is not None:
            return methods, {}
        sent = path.split("/")
        for segments, found in self._open.get(len(sent), ()):
            values: dict[str, str] = {}
            for segment, given in zip(segments, sent, strict=True):
                if segment[:1] == "{" and given:
                    values[segment[1:-1]] = unquote(given)
                elif segment != given:
                    break
            else:
                return found, values
        return NOTHING
