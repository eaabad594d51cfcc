"""Bugs: what is no GatewayError and came out of a connector or encoder, as one that the outbox can book and outlive."""

from __future__ import annotations

from framegate.contract.errors import GatewayError

TEXT_MAX = 300  # characters of a bug's own words in logs and health


class BugError(GatewayError):
    """Something that is no GatewayError."""


def as_gateway_error(connector: str, error: Exception) -> GatewayError:
    """The error itself, or the first of a group, or a BugError around what it says."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, GatewayError):
        return error
    words = f"{type(error).__name__}: {error}"[:TEXT_MAX]
    return BugError(f"connector {connector}: {words}; delivery is tried again, please report this", code="E2404")
