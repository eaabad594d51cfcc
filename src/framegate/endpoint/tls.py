"""TLS: contexts for both sides, and how far a line may step down.

Policy. 1. The first attempt offers TLS 1.3 and whatever `tls.min` allows below it; the handshake itself then picks
the highest common version, protected against downgrade. 2. A handshake that the remote refuses *for its version*
is tried again at once with 1.2 only, if `tls.min` allows 1.2: some old devices reject the mere offer of 1.3.
3. A remote that speaks no TLS at all (it answers something else, hangs up, or stays silent for half of
`connect_timeout`) is used in plaintext only where the row says `plaintext: allowed`, with a warning and a metric
each time. 4. A certificate that is not accepted never steps down. 5. Every other failure is the caller's to retry,
with back-off. Verification of chain and name is always on; the way to trust a self-signed device is to name its
certificate as `ca`. Source: RFC 8446, 4.1.3 and D.5; NIST SP 800-52r2, 3.1.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path

from framegate.contract.errors import Misconfigured, Problem
from framegate.contract.ports import Clock
from framegate.endpoint.endpoint import Endpoint, Plaintext, TlsOptions, TlsVersion, tls_file_problems
from framegate.endpoint.line import LineSetup
from framegate.endpoint.loss import TlsFailure, tls_failure, tls_refusal
from framegate.endpoint.secret import resolve
from framegate.endpoint.tcp import StreamLine, open_stream
from framegate.endpoint.thread import in_thread

HANDSHAKE_SHARE = 0.9
"""Part of connect_timeout a handshake may take: it ends before the open does, so that the error names TLS."""
HANDSHAKE_SHARE_PLAINTEXT = 0.5
"""The same where plaintext is allowed: a silent remote may be waiting for a request, and needs time to get it."""

_VERSIONS = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}


@unique
class Step(Enum):
    """How far an attempt steps down from the best."""

    BEST = ""
    TLS_1_2 = "tls_1_2"
    PLAINTEXT = "plaintext"


def client_context(options: TlsOptions, base: Path, highest: TlsVersion = TlsVersion.TLS_1_3) -> ssl.SSLContext:
    """Context for a line that we open. Reads files: not for the loop thread.

    raises OSError, ValueError - a file is missing or unusable; Misconfigured E2010 - key_password leads nowhere
    """
    context = ssl.create_default_context(cafile=options.ca)
    # A trusted certificate is an anchor even if it is no root: so a device's own certificate can be pinned.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = _VERSIONS[options.minimum]
    context.maximum_version = _VERSIONS[highest]
    if options.cert is not None:
        # Without a callback OpenSSL would ask for the password on the terminal.
        context.load_cert_chain(options.cert, options.key, lambda: resolve(options.key_password or "", base))
    if options.alpn:
        context.set_alpn_protocols(options.alpn)
    return context


def server_context(
    cert: Path,
    key: Path | None = None,
    *,
    ca: Path | None = None,
    password: str = "",
    minimum: TlsVersion = TlsVersion.TLS_1_2,
    highest: TlsVersion = TlsVersion.TLS_1_3,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """Context for a listener. With `ca`, clients must show a certificate that it has signed.

    raises OSError, ValueError - a file is missing or unusable
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[minimum]
    context.maximum_version = _VERSIONS[highest]
    context.load_cert_chain(cert, key, lambda: password)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(ca)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@dataclass(frozen=True, slots=True)
class _Loaded:
    stamp: tuple[tuple[int, int], ...]
    context: ssl.SSLContext


class ClientContexts:
    """Contexts of one endpoint; made again when a certificate file has changed, so that renewal needs no restart."""

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        assert endpoint.tls is not None
        self._name = endpoint.name
        self._options = endpoint.tls
        self._base = endpoint.base
        self._clock = clock
        self._loaded: dict[TlsVersion, _Loaded] = {}

    async def get(self, highest: TlsVersion) -> ssl.SSLContext:
        """The context that offers versions up to `highest`.

        raises Misconfigured E2010-E2014 - with one Problem per file
        """
        loaded = await in_thread("tls-files", lambda: self._fresh(highest))
        self._loaded[highest] = loaded
        return loaded.context

    def _fresh(self, highest: TlsVersion) -> _Loaded:
        try:
            stamp = tuple(_stamp(path) for path in (self._options.ca, self._options.cert, self._options.key) if path)
            known = self._loaded.get(highest)
            if known is not None and known.stamp == stamp:
                return known
            return _Loaded(stamp, client_context(self._options, self._base, highest))
        except (OSError, ValueError) as error:
            raise self._misconfigured(error) from error

    def _misconfigured(self, error: Exception) -> Misconfigured:
        problems = [
            Problem("endpoints", ("endpoints", self._name, "tls", found.key), found.code, found.text)
            for found in tls_file_problems(self._options, self._base, self._clock.now_ns())
        ]
        text = problems[0].text if problems else f"the certificate files cannot be used ({error}); check them"
        code = problems[0].code if problems else "E2012"
        return Misconfigured(f"endpoint {self._name}: {text}", code=code, problems=problems)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


async def open_tls(endpoint: Endpoint, setup: LineSetup, contexts: ClientContexts) -> tuple[StreamLine, Step]:
    """A line at the best step the remote and the row allow; see the policy above.

    raises OSError - no TCP connection; NotConnected E2024-E2026 - the handshake failed; Misconfigured
    """
    options = endpoint.tls
    assert options is not None
    try:
        return await _attempt(endpoint, setup, await contexts.get(TlsVersion.TLS_1_3)), Step.BEST
    except _HandshakeFailed as failed:
        error = failed.error
    if tls_failure(error) is TlsFailure.VERSION and options.minimum is TlsVersion.TLS_1_2:
        try:
            return await _attempt(endpoint, setup, await contexts.get(TlsVersion.TLS_1_2)), Step.TLS_1_2
        except _HandshakeFailed as failed:
            error = failed.error
    if tls_failure(error) is TlsFailure.NOT_TLS and options.plaintext is Plaintext.ALLOWED:
        return await open_stream(setup, endpoint.url.host, endpoint.url.port or 0), Step.PLAINTEXT
    raise tls_refusal(setup.where, error, options.minimum.value) from error


class _HandshakeFailed(Exception):
    """TCP stood, TLS did not."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


async def _attempt(endpoint: Endpoint, setup: LineSetup, context: ssl.SSLContext) -> StreamLine:
    options = endpoint.tls
    assert options is not None
    share = HANDSHAKE_SHARE_PLAINTEXT if options.plaintext is Plaintext.ALLOWED else HANDSHAKE_SHARE
    try:
        return await open_stream(
            setup,
            endpoint.url.host,
            endpoint.url.port or 0,
            context=context,
            server_name=options.server_name or "",
            handshake_s=endpoint.connect_timeout_s * share,
        )
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
        raise _HandshakeFailed(error) from error
