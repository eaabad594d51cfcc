"""Kinds of rules, and where each is made; a kind is imported when a row asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from framegate.mapper.rules.rule import MakeRule

KINDS: Mapping[str, str] = {
    "window": "framegate.mapper.rules.window:make",
    "alarm": "framegate.mapper.rules.alarm:make",
    "lua": "framegate.mapper.rules.script:make",
    "wasm": "framegate.mapper.rules.module:make",
    "onnx": "framegate.mapper.rules.model:make",
}


def maker_of(kind: str) -> MakeRule:
    """The constructor of a kind; the tables know no other kinds."""
    module, _, name = KINDS[kind].partition(":")
    return cast(MakeRule, getattr(import_module(module), name))
