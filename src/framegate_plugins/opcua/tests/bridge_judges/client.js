// Judge: node-opcua as the client of a bridge. One line of JSON in: {url, secure, tags: [{name, type, write}]}.
// One line of JSON out: what it found by browsing, reading, subscribing and writing.
const {
  AttributeIds, BrowseDirection, DataType, MessageSecurityMode, OPCUAClient, SecurityPolicy, TimestampsToReturn,
  VariantArrayType,
} = require("node-opcua-client");

async function browseAll(session, root) {
  const names = [];
  const ahead = [root];
  while (ahead.length) {
    const nodeId = ahead.pop();
    let result = await session.browse({ nodeId, browseDirection: BrowseDirection.Forward, resultMask: 63 });
    let references = result.references || [];
    while (result.continuationPoint) {
      result = await session.browseNext(result.continuationPoint, false);
      references = references.concat(result.references || []);
    }
    for (const reference of references) {
      if (reference.nodeId.namespace === 2) names.push(reference.nodeId.value);
      else if (reference.nodeId.namespace === 3 && reference.nodeClass === 1) ahead.push(reference.nodeId.toString());
    }
  }
  return names;
}

const plain = (variant) => {
  if (variant.value === null || variant.value === undefined) return null;
  if (Buffer.isBuffer(variant.value)) return variant.value.toString("hex");
  if (Array.isArray(variant.value)) { // 64 bits: high and low word
    const bits = (BigInt(variant.value[0]) << 32n) | BigInt(variant.value[1]);
    return String(variant.dataType === DataType.Int64 ? BigInt.asIntN(64, bits) : bits);
  }
  return variant.value;
};

const described = (value) => ({
  type: DataType[value.value.dataType],
  value: plain(value.value),
  status: value.statusCode.value,
  source: value.sourceTimestamp ? value.sourceTimestamp.toISOString() : "",
});

function written(tag) {
  if (tag.type === "ByteString") return Buffer.from(tag.write, "hex");
  if (tag.type === "Int64" || tag.type === "UInt64") {
    const bits = BigInt.asUintN(64, BigInt(tag.write));
    return [Number(bits >> 32n), Number(bits & 0xffffffffn)];
  }
  return tag.write;
}

async function subscribe(session, tags) {
  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 50, requestedLifetimeCount: 1000, requestedMaxKeepAliveCount: 10,
    maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 1,
  });
  const items = tags.map((tag) => ({ nodeId: `ns=2;s=${tag.name}`, attributeId: AttributeIds.Value }));
  const got = {};
  const group = await subscription.monitorItems(
    items, { samplingInterval: 0, queueSize: 10, discardOldest: true }, TimestampsToReturn.Both);
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, 10000);
    group.on("changed", (item, value) => {
      got[item.itemToMonitor.nodeId.value] = described(value);
      if (Object.keys(got).length === tags.length) { clearTimeout(timer); resolve(); }
    });
  });
  await subscription.terminate();
  return got;
}

async function main(asked) {
  const options = { endpointMustExist: false, connectionStrategy: { maxRetry: 0 } };
  if (asked.secure) {
    options.securityMode = MessageSecurityMode.SignAndEncrypt;
    options.securityPolicy = SecurityPolicy[asked.secure];
  }
  const client = OPCUAClient.create(options);
  client.on("backoff", () => {});
  await client.connect(asked.url);
  const user = asked.user ? { type: 1, userName: asked.user, password: asked.password } : undefined;
  const session = await client.createSession(user);
  const names = await browseAll(session, "ns=3;s=/");
  const nodes = asked.tags.map((tag) => ({ nodeId: `ns=2;s=${tag.name}`, attributeId: AttributeIds.Value }));
  const values = (await session.read(nodes)).map(described);
  const notified = await subscribe(session, asked.tags);
  const writes = asked.tags.map((tag) => ({
    nodeId: `ns=2;s=${tag.name}`, attributeId: AttributeIds.Value,
    value: { value: { dataType: DataType[tag.type], arrayType: VariantArrayType.Scalar, value: written(tag) } },
  }));
  const results = (await session.write(writes)).map((status) => status.name);
  await session.close();
  await client.disconnect();
  return { names, values, notified, results };
}

let line = "";
process.stdin.on("data", (data) => { line += data; });
process.stdin.on("end", () => {
  main(JSON.parse(line)).then(
    (found) => process.stdout.write("FOUND " + JSON.stringify(found) + "\n", () => process.exit(0)),
    (error) => { console.log("FAILED " + error.message); process.exit(1); });
});
