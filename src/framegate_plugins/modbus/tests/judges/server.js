// modbus-serial as a server for our driver. Prints its port; ends when stdin closes.
const net = require("net");
const ModbusRTU = require("modbus-serial");

const hold = new Uint16Array(65536);
const input = Uint16Array.from({ length: 65536 }, (_, i) => i);
const coils = new Array(65536).fill(false);
const vector = {
  getInputRegister: (address) => input[address],
  getHoldingRegister: (address) => hold[address],
  getCoil: (address) => coils[address],
  getDiscreteInput: (address) => address % 3 === 0,
  setRegister: (address, value) => { hold[address] = value; },
  setCoil: (address, value) => { coils[address] = value; },
};

// The library takes port 0 for "the default", so that a free one is looked up first.
const probe = net.createServer().listen(0, "127.0.0.1", () => {
  const { port } = probe.address();
  probe.close(() => {
    const server = new ModbusRTU.ServerTCP(vector, { host: "127.0.0.1", port, unitID: 1 });
    server.on("initialized", () => console.log(port));
  });
});
process.stdin.resume().on("end", () => process.exit(0));
