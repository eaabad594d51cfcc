"""Drivers at work: found, started, scanned on a grid, supervised and brought back for ever.

    discover    which plugins there are, and how a role of one is loaded
    lifecycle   states of a slot, as a table
    schedule    one timer for the whole gateway: scan classes on a grid
    slot        one supervised driver: scans, Bad rows, back-off, quarantine, writes
    runtime     all slots of a gateway: start, add, remove, stop

No protocol and no socket is known here; lines are handed through to drivers.
"""
