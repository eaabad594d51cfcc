"""Drivers at work: started, scanned on a grid, supervised and brought back for ever.

    lifecycle   states of a slot, as a table
    schedule    one timer for the whole gateway: scan classes on a grid
    slot        one supervised driver: back-off, quarantine, Bad rows
    shift       one stretch of its service: scans (begun), writes (lane, orders), pauses (standstill)
    swap        another version of a driver, between two of its scans
    runtime     all slots of a gateway: start, add, remove, stop

No protocol and no socket is known here; lines are handed through to drivers.
"""
