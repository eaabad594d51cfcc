"""A Modbus TCP server of pymodbus that tells what it was given: one line for each register written.

python pymodbus_server.py PORT      "ready", then "write 40 1234", until standard input ends
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from pymodbus.pdu.register_message import WriteMultipleRegistersRequest, WriteSingleRegisterRequest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

REGISTERS = 1_000


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the answer of this process


def tell(sending: bool, pdu: Any) -> Any:
    if not sending and isinstance(pdu, WriteSingleRegisterRequest | WriteMultipleRegistersRequest):
        for offset, value in enumerate(pdu.registers):
            say(f"write {pdu.address + offset} {value}")
    return pdu


async def main(port: int) -> None:
    registers = [SimData(0, count=REGISTERS, values=0, datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False] * 64, datatype=DataType.BITS)]
    device = SimDevice(1, (bits, bits, registers, registers))
    server: Any = ModbusTcpServer(device, address=("127.0.0.1", port), trace_pdu=tell)
    await server.serve_forever(background=True)
    say("ready")
    await asyncio.to_thread(sys.stdin.read)
    await server.shutdown()


asyncio.run(main(int(sys.argv[1])))
