"""Dead letters: messages that a remote refused for good, with all it takes to send them again.

A record and its name, nothing more. The outbox makes them, the log keeps them (ports.DeadLetters), `edge dlq` shows
them and sends them again.
"""

from __future__ import annotations

from dataclasses import dataclass

from framegate.contract.frame import Position


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of one connector.

    position  first position it holds; rows: how many rows it holds, 0 for a notice of a gap
    key       rendered route, as in a Window
    reason    why the remote did not take it, the last time
    since_ns  when it was set aside;  tried_ns  when it was last sent; ns UTC
    tries     how often it was sent
    """

    connector: str
    position: Position
    rows: int
    key: bytes
    payload: bytes
    encoding: str
    reason: str
    since_ns: int
    tried_ns: int
    tries: int

    @property
    def id(self) -> str:
        """What operators call it; a position is given out once, so it names one message for ever."""
        return letter_id(self.connector, self.position)


def letter_id(connector: str, position: int) -> str:
    """Such as cloud/1234; names of connectors have no slash."""
    return f"{connector}/{position}"
