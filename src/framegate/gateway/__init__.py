"""The gateway as a whole: the only layer that knows all the others.

`home` is the folder on disk, `wiring` connects the layers, `health` answers what is going on, `letters` serves dead
letters, `rewind` has a connector deliver again.
"""
