"""The REST API and the live channel of a running gateway.

One table of operations (operations.py) makes routes, permission checks, audit entries and the OpenAPI document; what
it serves is asked from `observe.api_face`, `contract.command` and `contract.access`. Limits on the wire: connection.py.
Start here: operation.py, operations.py, app.py.
"""
