"""Why a line could not be opened, or broke, in an operator's words: what, where, why, next step.

Operating system and TLS errors come in, NotConnected comes out; its code also gives the `reason` label of the
metrics, so that the label stays a bounded set. TLS failures are sorted here too, because whether a handshake
may be tried one step lower depends on the kind of failure (tls.py).
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from enum import Enum, auto, unique

from framegate.contract.errors import NotConnected

_REASONS = {
    "E2020": "refused", "E2021": "unreachable", "E2022": "name", "E2023": "timeout", "E2024": "certificate",
    "E2025": "tls", "E2026": "client_certificate", "E2027": "serial", "E2028": "closed", "E2029": "broken",
    "E2030": "backlog", "E2031": "closed_here", "E2032": "memory", "E2033": "tables",
}  # fmt: skip
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL}
_ERRNO = re.compile(r"\[Errno (\d+)\]|\((\d+), ")
_VERSION_REASONS = {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "VERSION_TOO_LOW"}
_NOT_TLS_REASONS = {
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNEXPECTED_MESSAGE",
    "RECORD_LAYER_FAILURE",
    "BAD_RECORD_TYPE",
}
# OpenSSL x509_vfy.h; the codes a site meets in practice.
_EXPIRED, _NOT_YET_VALID, _HOSTNAME, _IP_ADDRESS = 10, 9, 62, 64
_UNTRUSTED = {2, 18, 19, 20, 21, 27}


@unique
class TlsFailure(Enum):
    """What a failed handshake says about the remote."""

    CERTIFICATE = auto()
    CLIENT_CERTIFICATE = auto()
    VERSION = auto()
    NOT_TLS = auto()
    OTHER = auto()


def reason_of(error: NotConnected) -> str:
    """Label value for metrics; from a bounded set."""
    return _REASONS.get(error.stable_code, "other")


def open_failure(where: str, error: OSError) -> NotConnected:
    """Why no line could be opened."""
    if isinstance(error, socket.gaierror):
        reason = (error.strerror or "unknown").lower()
        return _lost(
            "E2022", where, f"the host name could not be resolved ({reason}); check the name and the DNS server"
        )
    number = _errno_of(error)
    if number == errno.ECONNREFUSED:
        return _lost("E2020", where, "the remote refused the connection; check that it runs and listens on this port")
    if number in _UNREACHABLE:
        return _lost(
            "E2021", where, f"no route to the remote ({_words(error)}); check address, cable, gateway and firewall"
        )
    if number == errno.ETIMEDOUT:
        return _lost("E2021", where, "the remote did not answer at all; check address, power and firewall")
    return _lost(
        "E2029", where, f"the connection broke while it was opened ({_words(error)}); check the remote's own log"
    )


def open_timeout(where: str, seconds: float) -> NotConnected:
    return _lost(
        "E2023", where, f"not connected within {seconds:g} s; check address and firewall, or raise connect_timeout"
    )


def tls_failure(error: OSError) -> TlsFailure:
    """The kind of a failed handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailure.CERTIFICATE
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if reason in _VERSION_REASONS:
            return TlsFailure.VERSION
        if reason in _NOT_TLS_REASONS or isinstance(error, ssl.SSLEOFError):
            return TlsFailure.NOT_TLS
        if "CERTIFICATE" in reason or reason in {"TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_ACCESS_DENIED"}:
            return TlsFailure.CLIENT_CERTIFICATE
        return TlsFailure.OTHER
    # A remote without TLS closes, resets, or waits for what it calls a request.
    return TlsFailure.NOT_TLS


def tls_refusal(where: str, error: OSError, minimum: str) -> NotConnected:
    """Why a TLS handshake failed, and what to change."""
    kind = tls_failure(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _lost("E2024", where, f"the remote's certificate is not accepted: {_certificate_words(error)}")
    if kind is TlsFailure.CLIENT_CERTIFICATE:
        hint = "set tls.cert and tls.key to a pair that it trusts"
        return _lost("E2026", where, f"the remote does not accept the gateway's certificate ({_words(error)}); {hint}")
    if kind is TlsFailure.VERSION:
        hint = "set tls.min to 1.2 or update the remote" if minimum == "1.3" else "update the remote"
        return _lost("E2025", where, f"the remote offers no TLS {minimum} or later; {hint}")
    return _lost("E2025", where, _handshake_words(kind, error))


def _handshake_words(kind: TlsFailure, error: OSError) -> str:
    if isinstance(error, ConnectionAbortedError):  # the loop's word for a handshake over its deadline
        return "the remote did not answer the TLS handshake in time; check that the port speaks TLS"
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError):
        return "the remote hung up during the TLS handshake; it may speak no TLS here, or want a client certificate"
    if kind is TlsFailure.NOT_TLS:
        return f"the remote does not speak TLS on this port ({_words(error)}); check the port, or use tcp://"
    return f"the TLS handshake failed ({_words(error)}); the remote may want a client certificate or other ciphers"


def line_loss(where: str, error: Exception | None) -> NotConnected:
    """Why an open line broke; None: the remote closed it."""
    if error is None:
        return _lost("E2028", where, "the remote closed the connection; its own log may say why")
    if isinstance(error, ssl.SSLError) and tls_failure(error) is TlsFailure.CLIENT_CERTIFICATE:
        return tls_refusal(where, error, "")
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return _lost("E2029", where, "the remote reset the connection; its own log may say why")
    if isinstance(error, OSError) and _errno_of(error) == errno.ETIMEDOUT:
        return _lost("E2029", where, "the remote stopped answering; check cable, power and firewall")
    if isinstance(error, OSError):
        return _lost("E2029", where, f"the connection broke ({_words(error)}); check cable and power")
    return _lost(
        "E2029", where, f"the protocol's session failed ({type(error).__name__}: {error}); this is a bug, report it"
    )


def backlog(where: str, bytes_max: int) -> NotConnected:
    return _lost(
        "E2030",
        where,
        f"the remote reads too slowly: more than {bytes_max} bytes wait for it; check its load and the link",
    )


def over_rate(where: str, bytes_max: int) -> NotConnected:
    text = f"rate_limit holds back more than {bytes_max} bytes; raise rate_limit, or send less over this endpoint"
    return _lost("E2030", where, text)


def closed_here(where: str) -> NotConnected:
    return _lost("E2031", where, "the gateway closed the connection; it opens again on demand")


def serial_failure(where: str, error: OSError) -> NotConnected:
    """Why a serial port could not be opened, or broke."""
    number = _errno_of(error)
    if number == errno.ENOENT:
        hint = "the device does not exist; check the plug, or use a stable name from /dev/serial/by-id"
    elif number == errno.EACCES:
        hint = "no permission; add the gateway's user to the group that owns the device (often dialout)"
    elif number in {errno.EAGAIN, errno.EBUSY}:
        hint = "another program, or another row of endpoints.yml, holds the port; give it one owner"
    elif number in {errno.ENOTTY, errno.EINVAL}:
        hint = f"the device is no serial port, or cannot work with these settings ({_words(error)})"
    else:
        hint = f"the adapter is gone or broken ({_words(error)}); check plug and cable"
    return _lost("E2027", where, hint)


def memory_refused(where: str, reason: str) -> NotConnected:
    return _lost("E2032", where, reason)


def tables_changed(where: str, reason: str) -> NotConnected:
    return _lost("E2033", where, reason)


def _certificate_words(error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "it has expired; renew it at the remote (and check the gateway's clock)"
    if code == _NOT_YET_VALID:
        return "it is not valid yet; check the gateway's clock"
    if code in {_HOSTNAME, _IP_ADDRESS}:
        words = error.verify_message.rstrip(".")
        return f"{words[:1].lower()}{words[1:]}; set tls.server_name to a name the certificate carries"
    if code in _UNTRUSTED:
        return "no CA that the gateway trusts has signed it; name its issuer's certificate, or its own, as tls.ca"
    return f"{error.verify_message}; check the chain that the remote sends"


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    number = _errno_of(error)
    if number and not isinstance(error, ssl.SSLError):
        return os.strerror(number).lower()
    return str(error).lower() or type(error).__name__


def _errno_of(error: OSError) -> int:
    """Event loops fold several failed addresses into one error, pyserial wraps errors: then the text has the number."""
    if error.errno:
        return error.errno
    match = _ERRNO.search(str(error))
    return int(match[1] or match[2]) if match else 0


def _lost(code: str, where: str, text: str) -> NotConnected:
    return NotConnected(f"{where}: {text}", code=code)
