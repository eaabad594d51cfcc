"""The public kit for tests: examiners that any plugin can be put through, and fakes that were verified.

    check_driver   puts a driver through the driver contract
    fakes          clock, sink, lines and log in memory
    scripted       a driver without a protocol, scripted by the test
    loop           an event loop whose time leaps instead of passing

Plugins' own tests may import from here; product code never does.
"""
