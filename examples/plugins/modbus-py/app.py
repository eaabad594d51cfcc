"""Modbus TCP as a sandboxed driver in Python.

The gateway owns the connection, the schedule and retries; here is one scan after the other.
"""

import struct

import modbus_tcp as modbus
from edgeguest import Err, Errc, Problems, Refused, emit, guest_of, log, recv, send

RECV_BYTES = 512
REPLY_MS = 1000
# What an exception response means, as OPC UA StatusCodes: illegal function, address, value, device failure, busy
BAD_STATUS = {1: 0x803D0000, 2: 0x80340000, 3: 0x803C0000, 4: 0x808B0000, 6: 0x80040000}
BAD_DEVICE_FAILURE = 0x808B0000
ILLEGAL, BUSY = (1, 2, 3), 6


class Modbus:
    def __init__(self, options):
        self.unit = options.get("unit", 1)
        if not isinstance(self.unit, int) or not 0 <= self.unit <= 255:
            raise Refused(f"unit: {self.unit!r} is not between 0 and 255")
        self.transaction = 0
        self.buffer = b""

    def plan(self, tags):
        """{(function, first, count): [tag]}: merged reads, and the tags that lie in each."""
        problems = []
        for tag in tags:
            try:
                tag.place = (*modbus.address_of(tag.address, tag.type), modbus.width(tag.type))
            except ValueError as error:
                problems.append((tag, str(error)))
        if problems:
            raise Problems(problems)
        reads = {read: [] for read in modbus.merged(tag.place for tag in tags)}
        for tag in tags:
            function, first, count = tag.place
            covering = next(r for r in reads if r[0] == function and r[1] <= first and first + count <= r[1] + r[2])
            reads[covering].append(tag)
        return reads

    def connect(self, channels):
        if channels != 1:
            raise Refused("an endpoint is needed: `endpoint: NAME` in the row of drivers.yml")
        self.buffer = b""

    def poll(self, planned, budget_ms):
        for read, tags in planned.items():
            function, begin, count = read
            try:
                data = modbus.data_of(self.ask(modbus.read_request(*read)), function, count)
            except modbus.Refused as refused:
                emit(tags, [0] * len(tags), BAD_STATUS.get(refused.code, BAD_DEVICE_FAILURE))
            except modbus.Broken as broken:
                raise lost(broken) from None
            else:
                emit(tags, [modbus.value_of(function, data, tag.place[1] - begin, tag.type) for tag in tags])

    def write(self, tag, value):
        function, first, _ = tag.place
        if function not in (modbus.READ_COILS, modbus.READ_HOLDING):
            raise Err(Errc.UNSUPPORTED)
        try:
            request = modbus.write_request(function, first, tag.type, value)
        except struct.error:
            raise Err(Errc.INVALID) from None
        pdu = self.ask(request)
        if pdu[0] & 0x7F != request[0]:
            raise lost("the answer to another request")
        if pdu[0] & 0x80:
            raise Err(Errc.REFUSED if pdu[1] in ILLEGAL else Errc.BUSY if pdu[1] == BUSY else Errc.INTERNAL)

    def disconnect(self):
        self.buffer = b""

    def ask(self, pdu):
        """The answer to a request. Raises Err."""
        self.transaction = self.transaction % 0xFFFF + 1
        send(modbus.frame(self.transaction, self.unit, pdu))
        try:
            while (found := modbus.pdu_of(self.buffer, self.transaction, self.unit)) is None:
                self.buffer += recv(RECV_BYTES, REPLY_MS)
        except modbus.Broken as broken:
            raise lost(broken) from None
        pdu, self.buffer = found
        return pdu


def lost(why):
    """What comes behind bytes that make no sense belongs to nothing: begin with a fresh connection."""
    log(str(why), level=2)
    return Err(Errc.CLOSED)


Guest = guest_of(Modbus, "modbus-py", "1.0.0")
