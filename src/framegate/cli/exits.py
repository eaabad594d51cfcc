"""Exit codes of `edge`. Scripts and service managers rely on them; which error ends in which is in refusal.py.

Source: sysexits.h for 69 to 78, timeout(1) for 124, 128 + SIGINT for 130.
"""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 69
TRY_AGAIN = 75
NOT_PERMITTED = 77
MISCONFIGURED = 78
TIMED_OUT = 124
INTERRUPTED = 130
