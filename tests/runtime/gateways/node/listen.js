// Prints what an OPC UA client written by others is told: node listen.js URL COUNT
// A line an event: {"id", "verdict", "accept"} or {"first", "last"}; and {"tag": [Accept, status, ResultId, ResultIdCopy]} between.
"use strict";
// Standard output is for the lines above alone; the library prints its warnings with console.log.
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
console.log = console.error;
const { OPCUAClient, AttributeIds, TimestampsToReturn, constructEventFilter, resolveNodeId } = require("node-opcua-client");

const FIELDS = ["ResultId", "Verdict", "Accept", "FirstId", "LastId"];
const TAGS = ["Accept", "ResultId", "ResultIdCopy"];
const number = (value) => (Array.isArray(value) ? value[0] * 2 ** 32 + value[1] : value);

async function main(url, count) {
  const client = OPCUAClient.create({ endpointMustExist: false, connectionStrategy: { maxRetry: 3 } });
  await client.connect(url);
  const session = await client.createSession();
  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 50, requestedLifetimeCount: 1000, requestedMaxKeepAliveCount: 20,
    maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 1,
  });
  const names = await session.readNamespaceArray();
  const vision = names.indexOf("http://opcfoundation.org/UA/MachineVision");
  const own = names.indexOf("urn:asperity:vision");
  const item = await subscription.monitor(
    { nodeId: resolveNodeId("Server"), attributeId: AttributeIds.EventNotifier },
    { samplingInterval: 0, discardOldest: true, queueSize: 10000, filter: constructEventFilter(FIELDS.map((f) => `${vision}:${f}`)) },
    TimestampsToReturn.Both,
  );
  let told = 0;
  let end;
  const done = new Promise((resolve) => { end = resolve; });
  item.on("changed", (fields) => {
    const [id, verdict, accept, first, last] = fields.map((field) => field.value);
    if (id !== null) {
      told += 1;
      say({ id: number(id), verdict, accept });
    } else if (first !== null) say({ first: number(first), last: number(last) });
    if (told >= count) end();
  });
  say({ ready: true });
  let ended = false;
  const nap = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const reads = (async () => {
    while (!ended) {
      await nap(20);
      await readTags();
    }
  })();
  async function readTags() {
    const nodes = TAGS.map((tag) => ({ nodeId: `ns=${own};s=Tags.${tag}`, attributeId: AttributeIds.Value }));
    const values = await session.read(nodes);
    const [accept, id, copy] = values.map((value) => value.value.value);
    say({ tag: [accept, values[0].statusCode.name, number(id), number(copy)] });
  }
  await done;
  ended = true;
  await reads;
  await session.close();
  await client.disconnect();
}

main(process.argv[2], Number(process.argv[3])).catch((error) => { console.error(error); process.exit(1); });
