// modbus-serial as a client of our simulator: node client.js tcp|udp|rtu|serial PORT-OR-PATH. Prints what it read as JSON.
const ModbusRTU = require("modbus-serial");

const [kind, where] = process.argv.slice(2);
const client = new ModbusRTU();

async function connect() {
  const port = { port: Number(where) };
  if (kind === "tcp") return client.connectTCP("127.0.0.1", port);
  if (kind === "udp") return client.connectUDP("127.0.0.1", port);
  // What the library calls telnet is plain RTU over TCP.
  if (kind === "rtu") return client.connectTelnet("127.0.0.1", port);
  return client.connectRTUBuffered(where, { baudRate: 19200 });
}

async function main() {
  await connect();
  client.setID(1);
  client.setTimeout(2000);
  await client.writeCoil(3, true);
  await client.writeCoils(10, [true, false, true]);
  await client.writeRegister(5, 0x1234);
  await client.writeRegisters(20, [1, 2, 65535]);
  // Its RTU ports do not know how long the answers of functions 22 and 23 are, and wait for ever.
  const hasAll = kind === "tcp" || kind === "udp";
  if (hasAll) await client.maskWriteRegister(5, 0x00f2, 0x0025);
  const both = hasAll ? await client.readWriteRegisters(20, 3, 30, 2, [7, 8]) : { data: null };
  const refused = await client.readHoldingRegisters(999, 2).then(() => null, (error) => error.modbusCode);
  console.log(JSON.stringify({
    coils: (await client.readCoils(0, 16)).data,
    discrete: (await client.readDiscreteInputs(0, 8)).data,
    hold: (await client.readHoldingRegisters(0, 125)).data,
    input: (await client.readInputRegisters(0, 10)).data,
    both: both.data,
    refused,
  }));
  client.close(() => process.exit(0));
}

main().catch((error) => { console.error(error); process.exit(1); });
