"""A package that comes over the network in pieces: kept in a file without a name until it was looked at."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from framegate.contract.errors import FrameBroken, StoreFailed
from framegate.endpoint.thread import in_thread

UPLOAD_BYTES_MAX = 48 << 20
FOLDER = ".staging"
THREAD = "edge-upload"


@contextlib.asynccontextmanager
async def received(chunks: AsyncIterator[bytes], plugins: Path) -> AsyncIterator[BinaryIO]:
    """Inside, all of it is in a file on the disk of HOME/plugins, to be read from its beginning.

    raises FrameBroken E4658 - more than UPLOAD_BYTES_MAX; StoreFailed E4665 - the disk does not take it
    """
    folder = plugins / FOLDER
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(await in_thread(THREAD, partial(_make, folder)))
            await _fill(file, chunks)
        except OSError as error:
            text = f"{folder}: the package cannot be kept ({error.strerror or error}); make room, or it writable"
            raise StoreFailed(text, code="E4665") from error
        yield file


async def _fill(file: BinaryIO, chunks: AsyncIterator[bytes]) -> None:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > UPLOAD_BYTES_MAX:
            text = f"package: more than {UPLOAD_BYTES_MAX:,} bytes; copy it to the gateway and install it there"
            raise FrameBroken(text, code="E4658")
        await in_thread(THREAD, partial(file.write, chunk))
    file.seek(0)


def _make(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder, buffering=0))
