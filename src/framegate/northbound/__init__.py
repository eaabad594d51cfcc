"""The way out: durable rows become encoded windows, and a connector delivers them.

`encoder` turns placed batches into windows; `outbox` reads the log behind one cursor, hands windows to one connector
and moves the cursor when the remote has answered. `lanes` says what leaves next, also where live rows go ahead of a
backlog. Protocols live in plugins; storage lives in `bus`.
"""
