"""What an error of the gateway becomes at the edge of the process: a line on stderr and an exit code."""

from __future__ import annotations

import os
import traceback
from difflib import get_close_matches

from cyclopts import CycloptsError, UnknownCommandError

from framegate.cli import exits
from framegate.cli.app import GROUPS, VERBS
from framegate.cli.talk import complain, say
from framegate.contract.errors import Busy, GatewayError, Misconfigured, NoReply, NotConnected

PROBLEMS_SHOWN_MAX = 1_001  # config keeps 1,000 and one line that counts the rest

_BY_CODE = {
    "E1119": exits.FAILED,  # init: files exist already; nothing is wrong with them
    "E1172": exits.NOT_PERMITTED,
    "E1173": exits.NOT_PERMITTED,
    "E1177": exits.FAILED,
    "E1178": exits.FAILED,
    "E1183": exits.NOT_PERMITTED,
    "E1144": exits.FAILED,
    "E1149": exits.FAILED,
    "E4002": exits.NOT_PERMITTED,
    "E4003": exits.TRY_AGAIN,
    "E4024": exits.FAILED,
    "E4025": exits.USAGE,
    "E4011": exits.NOT_PERMITTED,
    "E4030": exits.FAILED,
    "E4304": exits.USAGE,
    "E4307": exits.FAILED,
    "E4308": exits.FAILED,
    "E5035": exits.FAILED,
    "E5040": exits.FAILED,
    "E4032": exits.FAILED,
    "E4033": exits.USAGE,
    "E4623": exits.MISCONFIGURED,
    "E4624": exits.FAILED,
    "E4626": exits.MISCONFIGURED,
    "E4627": exits.NOT_PERMITTED,
    "E4680": exits.USAGE,
    "E4681": exits.FAILED,
    "E4682": exits.MISCONFIGURED,
    "E4683": exits.MISCONFIGURED,
    "E4685": exits.MISCONFIGURED,
    "E4686": exits.MISCONFIGURED,
    "E4684": exits.FAILED,
}
_REFUSED_PACKAGE = "E46"
_BY_KIND = (
    (Misconfigured, exits.MISCONFIGURED),
    (Busy, exits.TRY_AGAIN),
    (NotConnected, exits.UNREACHABLE),
    (NoReply, exits.TIMED_OUT),
)


def explain(error: Exception) -> int | None:
    """Tell the error and return its exit code; None for what is neither the user's nor the gateway's own, a bug."""
    if isinstance(error, CycloptsError):
        complain(f"edge: {_misuse(error)}")
        say("`edge --help` lists the commands, `edge COMMAND --help` their options")
        return exits.USAGE
    if not isinstance(error, GatewayError):
        return None
    if os.environ.get("EDGE_DEBUG") == "1":
        traceback.print_exception(error)
    complain(str(error))
    if isinstance(error, Misconfigured):
        for problem in error.problems[:PROBLEMS_SHOWN_MAX]:
            complain(f"  {problem.code} {problem.table}.yml: {problem.text}")
        for of_tag in error.tag_problems[:PROBLEMS_SHOWN_MAX]:
            complain(f"  {of_tag.code} tag {of_tag.tag}: {of_tag.text}")
    return exit_code(error)


def exit_code(error: GatewayError) -> int:
    """The code for an error that reached the process's edge."""
    known = _BY_CODE.get(error.stable_code)
    if known is not None:
        return known
    if error.stable_code.startswith(_REFUSED_PACKAGE) and not isinstance(error, Busy):
        return exits.FAILED
    return next((code for kind, code in _BY_KIND if isinstance(error, kind)), exits.FAILED)


def _misuse(error: CycloptsError) -> str:
    """What is wrong with the command line; an unknown verb is explained here: cyclopts would import every verb."""
    if not isinstance(error, UnknownCommandError) or not error.unused_tokens:
        return str(error)
    chain, word = list(error.command_chain or ()), error.unused_tokens[0]
    verbs = GROUPS.get(" ".join(chain), VERBS)
    near = get_close_matches(word, verbs, n=1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    return f"no command {' '.join((*chain, word))}{guess}; one of {', '.join(verbs)}"
