"""What `edge` says to people: lines on stderr, in colour only on a terminal that wants it. Data is output.py's."""

from __future__ import annotations

import os
import sys

_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


def say(text: str) -> None:
    """A line of talk."""
    print(text, file=sys.stderr)  # noqa: T201 - this is the one place that talks


def complain(text: str) -> None:
    """A line that tells why something did not work."""
    say(_in_colour(text, _RED))


def warn(text: str) -> None:
    """A line about something that works and looks unintended."""
    say(_in_colour(text, _YELLOW))


def _in_colour(text: str, colour: str) -> str:
    wants_colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"{colour}{text}{_PLAIN}" if wants_colour else text
