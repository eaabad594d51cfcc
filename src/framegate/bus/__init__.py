"""The bus and the durable log: rows enter, get their place, survive, and wait for every connector.

Bus takes batches and serves them; Wal makes them durable in groups; Store holds what lies on disk. The logic sees
storage only through contract.ports.Disk; threads, files and child processes live in commit.py, rocks.py, probe.py,
highwater.py, ballast.py and salvage.py.
"""
