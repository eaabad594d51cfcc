"""Where the gateway may call over HTTP: hosts that somebody with the right to change tables can name.

    address = outbound.address_of("mlflow.plant", 443)    resolved once; the connection goes to this address only

Such an address must not become a way into the machine itself, its neighbours on the link, or a cloud's metadata: it is
refused unless `gateway: {outbound: [...]}` lists its host. A name is resolved once and the connection is pinned to what
came back, so a second answer (DNS rebinding) has no effect. Addresses of private networks are a plant's own and pass.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from framegate.contract.errors import Misconfigured, NotConnected

Resolve = Callable[[str, int], Sequence[str]]
REFUSED = "E5071"
METADATA = tuple(map(ip_network, ("100.100.100.200/32", "fd00:ec2::/32", "168.63.129.16/32", "192.0.0.192/32")))
"""What clouds answer metadata from beside the link-local 169.254.0.0/16: Alibaba, AWS over IPv6, Azure, Oracle."""
EMBEDDED = tuple(map(ip_network, ("64:ff9b::/96", "::/96", "2002::/16")))
"""IPv6 that stands for an IPv4 address: NAT64, IPv4-compatible, 6to4."""


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """Every address of a host, as the system's resolver has them; raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, slots=True)
class Outbound:
    """Which hosts may be called.

    listed   hosts, as they stand in addresses, that may be called wherever they lie
    """

    listed: Sequence[str] = ()
    resolve: Resolve = resolve_by_system

    def address_of(self, host: str, port: int) -> str:
        """The one address to connect to.

        raises  Misconfigured E5071 - it leads into this machine, onto its link or to a cloud's metadata, and is not
                listed; NotConnected E5066 - the name cannot be resolved
        """
        try:
            addresses = self.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise NotConnected(f"{host} cannot be resolved: {error}; correct the name, or DNS", code="E5066") from error
        if not addresses:
            raise NotConnected(f"{host} has no address; correct the name, or DNS", code="E5066")
        if host.lower().rstrip(".") not in {name.lower().rstrip(".") for name in self.listed}:
            for address in addresses:
                kind = inner_kind(address)
                if kind:
                    text = f"{host} leads to {address}, {kind}; list it under `gateway: {{outbound: [{host}]}}`"
                    raise Misconfigured(f"{text} if that is meant", code=REFUSED)
        return addresses[0]


OUTSIDE_ONLY = Outbound()
"""Nothing is listed."""


def inner_kind(text: str) -> str:
    """Why an address is none to be called unasked, in words; "" where it is an ordinary one."""
    address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif not (address.is_loopback or address.is_unspecified) and any(address in net for net in EMBEDDED):
            packed = address.sixtofour or IPv4Address(int(address) & 0xFFFF_FFFF)
            return inner_kind(str(packed))
    if address.is_loopback or address.is_unspecified:
        return "this machine"
    if address.is_link_local:
        return "an address of the link"
    if any(address in net for net in METADATA if net.version == address.version):
        return "a cloud's metadata"
    if address.is_multicast or address.is_reserved or str(address) == "255.255.255.255":
        return "no address of a server"
    return ""
