"""Drivers of other shapes, each made to satisfy contract.driver.Driver: native, WASM, and Python in a child process.

native   a shared library, looked at as a file first; in a process, or in a thread where it is trusted by name
python   a Python driver in a process
remote   what those two share: the process as the gateway sees it, its calls, its columns
child    what runs in that process, and what it gives up before it loads a driver
wasm     modules and components in a sandbox; rules as well
crashes  when a driver has crashed too often
"""
