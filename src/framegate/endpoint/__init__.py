"""Lines to the outside: addresses, the pool that shares them, and one module per kind of transport.

    url, endpoint, secret   what a row of endpoints.yml says, checked
    pool                    one line per endpoint, shared by all who lease it
    tcp, tls, udp, serial, memory   how a line is opened
    listen                  the other side: servers for bridges, simulators and tests

No protocol lives here: a line carries bytes, a plugin's session gives them meaning.
"""
