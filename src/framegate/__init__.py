"""Framegate: every field protocol in, one canonical frame, every system out.

The layers and what each may import are drawn in ARCHITECTURE.md and enforced by import-linter.
"""

__version__ = "0.1.0"
