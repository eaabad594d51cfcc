from __future__ import annotations

import errno
import os
import ssl

import pytest

from framegate.endpoint.loss import line_loss, open_failure, reason_of, serial_failure


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (system(errno.ECONNREFUSED), "refused", "check that it runs and listens"),
        (system(errno.EHOSTUNREACH), "unreachable", "no route to host"),
        (system(errno.ENETUNREACH), "unreachable", "network is unreachable"),
        (system(errno.ETIMEDOUT), "unreachable", "did not answer at all"),
        (system(errno.ECONNRESET), "broken", "connection reset by peer"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 113] ..."), "refused", "listens"),
        (OSError("something new"), "broken", "something new"),
    ],
)
def test_open_failure_has_reason_and_next_step(error: OSError, reason: str, words: str) -> None:
    loss = open_failure("endpoint plc: tcp://h:1", error)
    assert loss.text.startswith("endpoint plc: tcp://h:1: ")
    assert reason_of(loss) == reason
    assert words in loss.text


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (None, "closed", "the remote closed the connection"),
        (system(errno.ECONNRESET), "broken", "reset"),
        (system(errno.EPIPE), "broken", "reset"),
        (system(errno.ETIMEDOUT), "broken", "stopped answering"),
        (system(errno.EIO), "broken", "input/output error"),
        (tls("DECRYPTION_FAILED_OR_BAD_RECORD_MAC"), "broken", "bad record mac"),
        (KeyError("x"), "broken", "this is a bug"),
    ],
)
def test_line_loss_has_reason_and_next_step(error: Exception | None, reason: str, words: str) -> None:
    loss = line_loss("endpoint plc: tcp://h:1", error)
    assert reason_of(loss) == reason
    assert words in loss.text


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "/dev/serial/by-id"),
        (errno.EACCES, "dialout"),
        (errno.EBUSY, "one owner"),
        (errno.EINVAL, "no serial port"),
        (errno.EIO, "plug and cable"),
    ],
)
def test_serial_failure_has_next_step(number: int, words: str) -> None:
    loss = serial_failure("endpoint bus: serial:///dev/ttyUSB0", system(number))
    assert reason_of(loss) == "serial"
    assert words in loss.text
