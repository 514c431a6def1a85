// What an OPC UA client written by others makes of the companion's types, events, methods and alarms: node companion.js URL
// A line a finding. It acknowledges each alarm that it hears of, once, and ends when it has heard of one that is gone.
"use strict";
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
console.log = console.error;
const opcua = require("node-opcua-client");
const { OPCUAClient, AttributeIds, DataType, TimestampsToReturn, Variant, constructEventFilter, ofType } = opcua;

const plain = (value) => (Array.isArray(value) && value.length === 2 && typeof value[0] === "number" ? value[0] * 2 ** 32 + value[1] : value);
const contents = (variants) => variants.map((each) => plain(each.value));

async function main(url) {
  const client = OPCUAClient.create({ endpointMustExist: false, connectionStrategy: { maxRetry: 3 } });
  await client.connect(url);
  const session = await client.createSession();
  const names = await session.readNamespaceArray();
  const vision = names.indexOf("http://opcfoundation.org/UA/MachineVision");
  const own = names.indexOf("urn:asperity:vision");
  const node = (path) => `ns=${own};s=MachineVision${path ? `.${path}` : ""}`;
  const read = async (path) => (await session.read({ nodeId: node(path), attributeId: AttributeIds.Value })).value.value;
  const structure = async (number, fields) => session.constructExtensionObject(opcua.coerceNodeId(`ns=${vision};i=${number}`), fields);
  const argument = (dataType, value) => new Variant({ dataType, value });
  const object = (value) => argument(DataType.ExtensionObject, value);
  const call = async (path, name, inputArguments) => {
    const answer = await session.call({ objectId: node(path), methodId: node(`${path}.${name}`), inputArguments });
    return { status: answer.statusCode.name, outputs: (answer.outputArguments || []).map((each) => each.value) };
  };

  const browsed = await session.browse({ nodeId: "ObjectsFolder", resultMask: 63, includeSubtypes: true, browseDirection: 0 });
  const systems = browsed.references.filter((each) => each.typeDefinition.toString() === `ns=${vision};i=1003`);
  const below = await session.browse({ nodeId: systems[0].nodeId, resultMask: 63, includeSubtypes: true, browseDirection: 0 });
  say({ systems: systems.map((each) => each.nodeId.toString()), below: below.references.map((each) => each.browseName.name) });

  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 20, requestedLifetimeCount: 1000, requestedMaxKeepAliveCount: 20,
    maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 1,
  });
  const events = await subscription.monitor(
    { nodeId: node(""), attributeId: AttributeIds.EventNotifier },
    {
      samplingInterval: 0, discardOldest: true, queueSize: 100,
      filter: constructEventFilter([`${vision}:ResultId`, `${vision}:ResultState`, `${vision}:ResultContent`, `${vision}:JobId`],
        ofType(opcua.coerceNodeId(`ns=${vision};i=1024`))),
    },
    TimestampsToReturn.Both,
  );
  events.on("changed", ([id, state, content, job]) => say({
    result: id.value.id, state: state.value, content: contents(content.value), session: job.value.id,
  }));

  const alarms = await opcua.installAlarmMonitoring(session);
  const told = new Set();
  let end;
  const done = new Promise((resolve) => { end = resolve; });
  const heard = async (alarm) => {
    const fields = alarm.fields;
    const [active, acked] = [fields.activeState.id.value, fields.ackedState.id.value];
    const name = fields.conditionName.value;
    say({ alarm: name, active, acked, retain: alarm.getRetain(), message: fields.message.value.text, severity: fields.severity.value });
    if (!acked && !told.has(name)) {
      told.add(name);
      say({ acknowledged: (await opcua.acknowledgeCondition(session, alarm.conditionId, alarm.eventId, "seen")).name });
      say({ again: (await opcua.acknowledgeCondition(session, alarm.conditionId, alarm.eventId, "seen")).name });
      say({ unknown: (await opcua.acknowledgeCondition(session, alarm.conditionId, Buffer.from("no"), "seen")).name });
      say({ refreshed: (await opcua.callConditionRefresh(session, subscription.subscriptionId)).name });
      say({ foreign: (await opcua.callConditionRefresh(session, 9999)).name });
    }
    if (!active) end();
  };
  alarms.on("newAlarm", heard);
  alarms.on("alarmChanged", heard);
  say({ ready: true });

  await done;
  const latest = await read("ResultManagement.Results.Latest");
  say({ latest: latest.resultId.id, part: latest.partId.id, recipe: latest.internalRecipeId.id, content: contents(latest.resultContent) });
  const timeout = argument(DataType.Int32, 0);
  const found = await call("ResultManagement", "GetResultById", [object(await structure(3021, { id: latest.resultId.id })), timeout]);
  say({ found: found.outputs[1].resultId.id, error: found.outputs[2], status: found.status });
  const missing = await call("ResultManagement", "GetResultById", [object(await structure(3021, { id: "77" })), timeout]);
  say({ missing: missing.outputs[2], undefined: missing.outputs[1].resultState });
  const recipe = await call("RecipeManagement", "PrepareRecipe", [object(await structure(3002, { id: "lid" })), object(null)]);
  say({ prepared: recipe.outputs[0].id, completed: recipe.outputs[1], error: recipe.outputs[2] });
  const none = [object(null), object(null), object(null), object(null)];
  const parameters = new Variant({ dataType: DataType.UInt32, arrayType: opcua.VariantArrayType.Array, value: [7, 300] });
  const machine = "VisionStateMachine.AutomaticModeStateMachine";
  const job = await call(machine, "StartSingleJob", [...none, parameters]);
  say({ job: job.outputs[0].id, error: job.outputs[1] });
  say({ few: (await call(machine, "Stop", [])).status });
  await session.close();
  await client.disconnect();
}

main(process.argv[2]).catch((error) => { console.error(error); process.exit(1); });
