"""Compression of single messages; each payload stands alone, so that a lost one spoils no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import zstandard

from framegate.contract.errors import Misconfigured

Compress: TypeAlias = Callable[[bytes], bytes]
ZSTD_LEVEL = 1  # 30 ns per tag; higher levels cost more than the bytes they save


def compression(name: str) -> tuple[Compress | None, str]:
    """How to compress, and what to append to the content type.

    raises Misconfigured - name is neither "none" nor "zstd"
    """
    if name == "none":
        return None, ""
    if name == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress, "+zstd"
    raise Misconfigured(f"compress: {name!r} is not known; use none or zstd", code="E2402")
