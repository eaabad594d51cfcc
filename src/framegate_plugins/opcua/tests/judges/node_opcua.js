// A server made with node-opcua: doubles ns=1;s=t0 on, a matrix, a structure of the standard, a method. Says "ready".
// Users are those of userManager, and those whose certificates lie in users/trusted/certs.
//     node node_opcua.js PORT TAGS MOST_ITEMS_PER_CALL
const path = require("path");
const { OPCUAServer, OPCUACertificateManager, Variant, DataType, VariantArrayType, StatusCodes } = require("node-opcua");

const [port, tags, most] = process.argv.slice(2).map(Number);

async function main() {
  const serverCertificateManager = new OPCUACertificateManager({
    automaticallyAcceptUnknownCertificate: true,
    rootFolder: path.join(process.cwd(), `pki${port}`),
  });
  await serverCertificateManager.initialize();
  const userCertificateManager = new OPCUACertificateManager({ rootFolder: path.join(process.cwd(), "users") });
  await userCertificateManager.initialize();
  const server = new OPCUAServer({
    port,
    hostname: "127.0.0.1",
    serverCertificateManager,
    userCertificateManager,
    userManager: { isValidUser: (name, password) => name === "operator" && password === "secret" },
    serverCapabilities: {
      operationLimits: { maxNodesPerRead: most, maxNodesPerWrite: most, maxMonitoredItemsPerCall: most, maxNodesPerBrowse: most },
    },
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const own = space.getOwnNamespace();
  const folder = own.addFolder(space.rootFolder.objects, { browseName: "tags" });
  for (let number = 0; number < tags; number++) {
    own.addVariable({
      componentOf: folder, browseName: `t${number}`, nodeId: `s=t${number}`, dataType: "Double",
      value: new Variant({ dataType: DataType.Double, value: number }), minimumSamplingInterval: 10,
    });
  }
  own.addVariable({
    componentOf: folder, browseName: "matrix", nodeId: "s=matrix", dataType: "Int32", valueRank: 2, arrayDimensions: [2, 3],
    value: new Variant({
      dataType: DataType.Int32, arrayType: VariantArrayType.Matrix, dimensions: [2, 3], value: new Int32Array([1, 2, 3, 4, 5, 6]),
    }),
  });
  const method = own.addMethod(folder, {
    browseName: "double", nodeId: "s=double",
    inputArguments: [{ name: "from", dataType: DataType.Double }], outputArguments: [{ name: "to", dataType: DataType.Double }],
  });
  method.bindMethod((given, context, answer) => answer(null, {
    statusCode: given[0].value < 0 ? StatusCodes.BadOutOfRange : StatusCodes.Good,
    outputArguments: [{ dataType: DataType.Double, value: 2 * given[0].value }],
  }));
  await server.start();
  console.log("ready");
}

main();
