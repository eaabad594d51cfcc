"""The front door of `edge`: one command line in, one exit code out, and what an error becomes at the process's edge.

An error is one line on stderr with its code and the next step, never a traceback; EDGE_DEBUG=1 shows where it was
raised. A bug keeps its traceback. Imports wait for their use: `edge version` needs none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from framegate.cli import exits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: not worth a word
        return exits.OK
    except Exception as error:
        from framegate.cli.refusal import explain  # noqa: PLC0415 - needed for errors only

        refused = explain(error)
        if refused is None:
            raise  # a bug, with its traceback
        return refused
    return code


def cfg_main() -> int:
    """`edge-cfg ...` is `edge cfg ...`."""
    return main(["cfg", *sys.argv[1:]])


def _run(words: list[str]) -> int:
    if words == ["version"]:
        from framegate.cli.facts import version_facts  # noqa: PLC0415 - asked for often, by scripts
        from framegate.cli.output import write_record  # noqa: PLC0415

        write_record(version_facts(), None)
        return exits.OK
    if len(words) == 3 and words[:2] == ["run", "--home"] and "EDGE_CONFIG_CENTRE" not in os.environ:
        from pathlib import Path  # noqa: PLC0415

        from framegate.cli.service import serve  # noqa: PLC0415 - supervisors say just this; saves 0.2 s and 12 MiB

        return serve(Path(words[2]))
    from framegate.cli.app import make_app  # noqa: PLC0415 - 0.2 s
    from framegate.cli.plugin_verb import mount_plugin  # noqa: PLC0415

    app = make_app()
    mount_plugin(app, words)
    code = app(words, exit_on_error=False, print_error=False, help_on_error=False, result_action="return_value")
    return code if isinstance(code, int) else exits.OK
