"""Addresses that lead inside are refused in every spelling, unless their host is listed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import pytest

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.endpoint.outbound import Outbound

INSIDE = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254",
    "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "100.100.100.200", "168.63.129.16", "fd00:ec2::254",
    "192.0.0.192", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::127.0.0.1", "224.0.0.1", "ff02::1",
    "240.0.0.1", "255.255.255.255",
)  # fmt: skip
OUTSIDE = (
    "192.0.2.10",
    "10.1.2.3",
    "172.16.0.9",
    "192.168.7.7",
    "2001:4860::8888",
    "fd12:3456::7",
    "64:ff9b::c000:20a",
)
SPELLINGS = ("localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1")
"""Of this machine, as the system's resolver takes them."""


def answering(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.parametrize("address", INSIDE)
def test_address_that_leads_inside_is_refused_unless_its_host_is_listed(address: str) -> None:
    with pytest.raises(Misconfigured, match=r"^E5071 mlflow\.plant leads to .*outbound: \[mlflow\.plant\]"):
        Outbound((), answering(address)).address_of("mlflow.plant", 443)
    assert Outbound(("MLflow.plant.",), answering(address)).address_of("mlflow.plant", 443) == address


@pytest.mark.parametrize("address", OUTSIDE)
def test_ordinary_address_passes(address: str) -> None:
    assert Outbound((), answering(address)).address_of("mlflow.plant", 443) == address


@pytest.mark.parametrize("host", SPELLINGS)
def test_spelling_of_this_machine_is_refused(host: str) -> None:
    try:
        socket.getaddrinfo(host, 80)
    except OSError:
        pytest.skip("this system's resolver does not take it")
    with pytest.raises(Misconfigured, match=r"^E5071 "):
        Outbound().address_of(host, 80)


def test_one_inner_address_among_others_is_enough() -> None:
    with pytest.raises(Misconfigured, match=r"^E5071 "):
        Outbound((), answering("192.0.2.10", "169.254.169.254")).address_of("mlflow.plant", 443)


@pytest.mark.parametrize("addresses", [(), None])
def test_name_without_address_is_told(addresses: Sequence[str] | None) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        if addresses is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return addresses

    with pytest.raises(NotConnected, match=r"^E5066 mlflow\.plant "):
        Outbound((), resolve).address_of("mlflow.plant", 443)
