"""The gateway as a whole: the only layer that knows all the others.

`home` is the folder on disk, `wiring` connects the layers, `health` answers what is going on, `clock_watch` tells of a
wall clock that was set, `rewind` has a connector deliver again.
"""
