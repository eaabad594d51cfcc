"""The public kit for tests: examiners that any plugin can be put through, and fakes that were verified.

    check_driver   puts a driver through the driver contract
    exam           puts a driver of any language through vectors and a hostile device: `edge plugin test`
    fakes          clock, sink, lines and log in memory
    scripted       a driver without a protocol, scripted by the test
    loop           an event loop whose time leaps instead of passing
    account        what reached a remote: lost, repeated, out of order
    simulation     a whole gateway in a simulated world, and every promise of delivery as a check
    tally          the same for floods: positions only
    fault_proxy    a bad network between two ports
    mosquitto      a broker that is not ours
    plant          tables of a small plant, and the gateway as a process of its own

Plugins' own tests may import from here; product code never does, apart from the verbs that test: the demo, `edge plugin
test`, and `edge verify-delivery`, which examines the installed gateway.
"""
