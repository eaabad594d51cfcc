"""A deterministic simulation of delivery: a whole gateway between a simulated disk, thread, network, remote and device.

    simulation   runs one seed: `simulate(seed) -> Report`
    swarm        what a seed draws: sizes, policies, kinds of fault
    world        what outlives crashes, and the supervisor; faults: what goes wrong when
    gateway      one life of the product's own parts on simulated ports
    loop         the event loop: one seed decides what asyncio leaves open
    platter, disk, worker, network, remote, device      the simulated outside
    ledger, witness, witness_remote                     what went in and came out, seen from outside
    invariants_log, invariants_remote                   the promises, each a check named by its id

What it cannot see is what it models wrong: tests/unit/bus and tests/flow judge real stores, threads and sockets.
"""
