"""Serial lines: pyserial sets the port up, the loop watches its file descriptor.

Works on UARTs, USB adapters and pseudo terminals. The port is locked for us alone. Framing is the session's:
it takes `line.silence_s`, the pause that ends a frame, and keeps half-duplex order. A pulled adapter ends the line.
Opening runs in a thread, because some drivers block in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
from functools import partial

import serial
from serial.rs485 import RS485Settings

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.endpoint.line import BaseLine, LineSetup
from framegate.endpoint.loss import backlog, serial_failure
from framegate.endpoint.serial_settings import SerialSettings, settings_from_query
from framegate.endpoint.thread import in_thread
from framegate.endpoint.url import EndpointUrl

READ_BYTES_MAX = 4096
"""One buffer of the kernel's tty layer."""


class SerialLine(BaseLine):
    """One open port."""

    def __init__(self, setup: LineSetup, port: serial.Serial, settings: SerialSettings) -> None:
        super().__init__(setup)
        self._port = port
        self._fd = port.fileno()
        self._loop = asyncio.get_running_loop()
        self._queue = bytearray()
        self._is_open = True
        self.silence_s = settings.silence_s
        setup.owner.line_made(self)
        self.resume_reading()

    def write(self, data: bytes) -> None:
        if self._error is not None:
            raise self._gone()
        taken = 0 if self._queue else self._hand_over(data)
        self._sent.value += len(data)
        if taken < len(data) and self._is_open:
            if not self._queue:
                self._loop.add_writer(self._fd, self._on_writable)
            self._queue += data[taken:]
            if len(self._queue) > self._setup.write_buffer_bytes_max:
                self.abort(backlog(self._setup.where, self._setup.write_buffer_bytes_max))

    def write_pending(self) -> int:
        return len(self._queue)

    def pause_reading(self) -> None:
        if self._is_open:
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        if self._close_reason():
            self._let_go()

    def abort(self, error: NotConnected) -> None:
        if self._error is None:
            self._error = error
        self._let_go()

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self.abort(serial_failure(self._setup.where, error))
            return
        if not data:  # VMIN is 1: readable without bytes means hung up
            self.abort(serial_failure(self._setup.where, OSError("hung up")))
            return
        self._setup.received.value += len(data)
        self._setup.deliver(data)

    def _on_writable(self) -> None:
        del self._queue[: self._hand_over(self._queue)]
        if not self._queue and self._is_open:
            self._loop.remove_writer(self._fd)

    def _hand_over(self, data: bytes | bytearray) -> int:
        """Bytes the kernel took; 0 when it is full or the port is gone."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.abort(serial_failure(self._setup.where, error))
            return 0

    def _let_go(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._queue.clear()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        give_back(self._port)
        # _error is set by now, and it is the reason that is reported.
        self._loop.call_soon(self._finish, self, self._gone())


async def open_serial(setup: LineSetup, url: EndpointUrl) -> SerialLine:
    """A line on a port of our own.

    raises OSError - no such port, no rights, held by another; Misconfigured E2006 - the port cannot do RS-485
    """
    settings = settings_from_query(url.query)
    port = await in_thread(f"open-{url.path.rpartition('/')[2]}", partial(open_port, url.path, settings), give_back)
    return SerialLine(setup, port, settings)


def open_port(device: str, settings: SerialSettings) -> serial.Serial:
    """The port, locked and set up. Blocks."""
    port = serial.Serial(
        device,
        baudrate=settings.baud,
        bytesize=settings.bytesize,
        parity=settings.parity,
        stopbits=settings.stopbits,
        timeout=0,
        exclusive=True,
    )
    try:
        _switch_to_rs485(port, settings)
        # FTDI adapters hold bytes back for 16 ms otherwise, on every turn of a half-duplex line.
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            port.set_low_latency_mode(True)
        attributes = termios.tcgetattr(port.fileno())
        attributes[6][termios.VMIN] = 1
        termios.tcsetattr(port.fileno(), termios.TCSANOW, attributes)
        os.set_blocking(port.fileno(), False)
    except (OSError, termios.error, Misconfigured) as error:
        give_back(port)
        if isinstance(error, termios.error):
            raise OSError(*error.args) from error
        raise
    return port


def give_back(port: serial.Serial) -> None:
    """Close a port without waiting for its output, which the kernel would do for up to 30 s."""
    with contextlib.suppress(OSError, termios.error):
        termios.tcflush(port.fileno(), termios.TCOFLUSH)
    with contextlib.suppress(OSError):
        port.close()


def _switch_to_rs485(port: serial.Serial, settings: SerialSettings) -> None:
    wanted = settings.rs485
    if wanted is None:
        return
    try:
        port.rs485_mode = RS485Settings(
            rts_level_for_tx=wanted.rts_on_send,
            rts_level_for_rx=wanted.rts_after_send,
            delay_before_tx=wanted.delay_before_send_s or None,
            delay_before_rx=wanted.delay_after_send_s or None,
        )
    except (OSError, ValueError) as error:
        raise Misconfigured(
            f"serial port {port.port}: its driver cannot switch an RS-485 transmitter; remove rs485=on from the url "
            "if the adapter switches by itself, as most USB adapters do",
            code="E2006",
        ) from error
