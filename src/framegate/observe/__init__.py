"""Instruments only: metrics as plain numbers and log lines as events. No HTTP, no files of its own.

What may be emitted is listed in contract/telemetry.toml before it is emitted.
"""
