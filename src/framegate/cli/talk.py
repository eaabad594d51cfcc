"""What `edge` says to people: lines on stderr, in colour only on a terminal that wants it. Data is output.py's."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

QUIET_S = 2.0
"""What takes no longer is not talked about."""
AGAIN_S = 10.0
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


def counted(number: int, noun: str) -> str:
    """2,000 problems."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextlib.contextmanager
def patience(text: str) -> Iterator[None]:
    """While inside: say what takes so long, and every AGAIN_S that it still does."""
    with told_meanwhile(lambda after_s: say(f"{text} ... {after_s:.0f} s"), QUIET_S, AGAIN_S):
        yield


@contextlib.contextmanager
def told_meanwhile(tell: Callable[[float], object], first_s: float, again_s: float) -> Iterator[None]:
    """While inside: call `tell` with the seconds so far, after first_s and then every again_s, in a thread."""
    done, began = threading.Event(), time.monotonic()

    def talk() -> None:
        wait_s = first_s
        while not done.wait(wait_s):
            tell(time.monotonic() - began)
            wait_s = again_s

    talker = threading.Thread(target=talk, name="edge-patience", daemon=True)
    talker.start()
    try:
        yield
    finally:
        done.set()
        talker.join()


def _in_colour(text: str, colour: str) -> str:
    wants_colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"{colour}{text}{_PLAIN}" if wants_colour else text
