"""A registry is called at the address that was looked at, and nowhere else."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from framegate.contract.errors import Misconfigured
from framegate.endpoint.outbound import Outbound
from framegate.mapper.rules.registry import Registry, model_name


class Calls(ThreadingHTTPServer):
    """Notes the Host of each request; answers as a registry, or with what a test says."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.hosts: list[str] = []
        self.redirect = ""
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Calls)
        self.server.hosts.append(self.headers["Host"])
        body = b'{"model_version": {"version": "3"}}'
        self.send_response(302 if self.server.redirect else 200)
        if self.server.redirect:
            self.send_header("Location", self.server.redirect)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def calls(authority: trustme.CA) -> Iterator[Calls]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mlflow.plant").configure_cert(tls)
    yield from served(Calls(tls))


@pytest.fixture
def plain() -> Iterator[Calls]:
    yield from served(Calls(None))


def served(server: Calls) -> Iterator[Calls]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_connection_goes_to_the_address_that_was_looked_at_and_trusts_the_name(
    calls: Calls, authority: trustme.CA, tmp_path: Path
) -> None:
    """A resolver that changes its mind is asked once; the certificate is still that of the host."""
    asked = 0

    def rebinding(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return ["127.0.0.1"] if asked == 1 else ["192.0.2.1"]

    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    outbound = Outbound(("mlflow.plant",), rebinding)
    url = f"https://mlflow.plant:{calls.server_port}"
    assert Registry(url, "", tmp_path / "ca.pem", tmp_path, outbound).version(model_name("models:/wear@live")) == "3"
    assert (asked, calls.hosts) == (1, [f"mlflow.plant:{calls.server_port}"])


def test_redirect_into_the_machine_is_not_followed(plain: Calls, tmp_path: Path) -> None:
    plain.redirect = f"http://127.0.0.1:{plain.server_port}/latest/meta-data"
    registry = Registry(f"http://localhost:{plain.server_port}", "", None, tmp_path, Outbound(("localhost",)))
    with pytest.raises(Exception, match=r"^E5067 .*status 302"):
        registry.version(model_name("models:/wear@live"))
    assert len(plain.hosts) == 1


def test_nothing_is_sent_to_a_refused_address(plain: Calls, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"^E5071 "):
        Registry(f"http://127.0.0.1:{plain.server_port}", "", None, tmp_path).version(model_name("models:/wear@live"))
    assert plain.hosts == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1:6379/_x", "ftp://mlflow.plant", "//x", "x"])
def test_other_schemes_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"^E5069 "):
        Registry(url, "", None, tmp_path).check()
