"""The plugins of a home as `edge plugin` changes them: every change is noted in the audit log before it is made."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from framegate.access.audit_file import AuditFile
from framegate.access.chain import note_of
from framegate.cli.talk import say
from framegate.contract.access import AuditEntry
from framegate.contract.errors import GatewayError, Misconfigured, NotConnected
from framegate.endpoint.clock import SystemClock
from framegate.gateway.home import Home, existing_home
from framegate.observe.log import make_log
from framegate.ops.client import ControlClient
from framegate.package.store import PluginStore

T = TypeVar("T")
NOTE_FAILED = "E4306"
NOT_RUNNING = "E4010"


class PluginHome:
    """A home whose folder exists. Raises Misconfigured E4002 - it does not."""

    def __init__(self, home: Path) -> None:
        self.home = existing_home(home)
        self.clock = SystemClock()
        self.store = PluginStore(self.home.plugins, self.clock)
        self._audit = AuditFile(self.home.access, self.clock, make_log(level="warning"))

    def change(self, action: str, target: str, work: Callable[[Callable[[], None]], T], **details: Any) -> T:
        """Do what is asked, noted right before anything changes; what cannot be done is noted with its code.

        work  takes a function that it calls as soon as everything else is in order
        """
        noted = False

        def approve() -> None:
            nonlocal noted
            self._note(action, target, "ok", details)
            noted = True

        try:
            return work(approve)
        except GatewayError as error:
            if noted or error.stable_code != NOTE_FAILED:
                self._note(action, target, error.stable_code, details)
            raise

    def _note(self, action: str, target: str, outcome: str, details: Mapping[str, Any]) -> None:
        entry = AuditEntry(f"local:uid {os.getuid()}", action, target, outcome, details=details)
        self._audit.append([note_of(entry, self.clock.now_ns())])


def running_gateway(home: Home) -> ControlClient | None:
    """The gateway that runs in a home; None where none does. Raises as ControlClient, but for E4010."""
    try:
        return ControlClient(home.socket)
    except NotConnected as error:
        if error.stable_code != NOT_RUNNING:
            raise
        return None


def agrees(question: str, *, yes: bool) -> bool:
    """Ask a person; raises Misconfigured E4025 where nobody is there to answer."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Misconfigured("this is asked before it is done, and nobody is here to answer; add --yes", code="E4025")
    say(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
