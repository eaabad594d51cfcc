"""What runs: the version, its Python, the machine. For people, scripts and bug reports."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from framegate import __version__


def version_facts() -> Mapping[str, str]:
    """One text per fact."""
    machine = os.uname()
    return {
        "framegate": __version__,
        "python": platform.python_version(),
        "machine": f"{machine.sysname} {machine.release} {machine.machine}",
    }
