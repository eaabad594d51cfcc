"""Who may do what, and what was done: tokens, JWTs of federated issuers, slow-down of guesses, the audit chain.

    room = open_access(home, gateway_name="gw1", tenant="gas", issuers=(), clock=clock, log=log)     room.py

Everything lies in HOME/access, for the gateway's user only. Doors ask through `contract.access`; what is allowed where
is theirs. Nothing here knows HTTP or MQTT.
"""
