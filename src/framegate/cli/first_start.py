"""The first start of a gateway with an API: how the first admin comes in.

The set-up token is a secret, so it is shown on a terminal only. Where stderr goes to a journal or a file, the way
without it is named instead.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from framegate.cli.talk import say


class DrawsSetupToken(Protocol):
    """The access room, as far as it matters here."""

    def setup_token(self) -> str: ...

    def has_tokens(self) -> bool: ...


def tell_first_start(room: DrawsSetupToken, home: Path) -> None:
    """Say how to make the first token, if there is none; nothing otherwise."""
    if room.has_tokens():
        return
    first = f"`edge token add NAME --role admin --home {home}` makes the first token"
    say(f"nobody can use the API yet: {first}; `edge` on this machine needs none")
    if sys.stderr.isatty():
        text = room.setup_token()
        if text:
            say(f"or, for the console within 15 minutes, once: {text}")
