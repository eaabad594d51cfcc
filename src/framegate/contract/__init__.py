"""The law every layer and every plugin obeys, as Python sees it.

Language-neutral sources live in `contract/` at the root of the repository; `_generated/` is made from them.
Nothing here performs I/O, reads a clock or knows a protocol.
"""
