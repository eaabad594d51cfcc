"""Bridges: servers of field protocols, each in a process of its own.

host.py      one supervised bridge: its process, what it is told, what it asks
feed.py      rows of the bus on their way to it, merged by tag while it is slow
calls.py     its writes on their way to the desk
wire.py      the messages between the two processes
process.py   the other end: loads the plugin and lets it serve
"""
