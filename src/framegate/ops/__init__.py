"""What others see of a running gateway: the control socket for the command line, HTTP for probes and Prometheus.

Everything here asks the gateway through `observe.face.GatewayFace` and answers with bounds: bytes, clients, time.
"""
