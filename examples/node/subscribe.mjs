// Results of a station, one JSON line each with `pass`; what PUB lost comes from the journal or is reported as a gap.
//
//   node subscribe.mjs [RESULTS] [CONTROL] [STATION] [COUNT] [simulated]
// Lines come as they arrive, not in order of result_id; every id occurs once, as a result or as a gap.
// What the journal brought back never passes: nothing here proves who answers on the control socket.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Dealer, Subscriber } from "zeromq";
import { READY_STATES, REASON, VERDICT, WIRE_VERSION } from "../generated/asperity.mjs";

const USUAL = `ipc://${process.env.XDG_RUNTIME_DIR || `/tmp/asperity-${process.getuid()}`}/asperity/st1.control`;
const [RESULTS = "tcp://127.0.0.1:5561", CONTROL = USUAL, STATION = "st1", COUNT = "0", SIMULATED] =
  process.argv.slice(2);
const sub = new Subscriber({ receiveTimeout: 0, receiveHighWaterMark: 10000 });
sub.subscribe(`result/${STATION}/`, `state/${STATION}/`);
sub.connect(RESULTS);
const control = new Dealer({ receiveTimeout: 0, sendTimeout: 0, linger: 0 });
control.connect(CONTROL);

let [state, beatMs] = [{}, null]; // the last one; earliest time at which its heartbeat can have advanced
let emptyMs = performance.now(); // when the queue was last seen empty: what is read later may be that old
let [nextId, printed] = [0, 0]; // nextId 0: not joined yet
let [asked, settledId] = ["", 0]; // pending request; up to this id nothing was in work when it was sent
const missing = new Set();

// Ready, and the heartbeat advances: anything missing, unknown or old means no.
const trusted = () =>
  state.ready === true && READY_STATES.includes(state.state) && beatMs !== null &&
  performance.now() - beatMs <= state.beat_timeout_ms;

// Energise to pass: every field must confirm it.
const mayPass = (result) =>
  result.verdict === VERDICT.OK && result.accept === true && result.reason_code === REASON.GOOD &&
  typeof result.score === "number" && typeof result.threshold === "number" && result.score <= result.threshold &&
  (result.simulated === false || SIMULATED === "simulated") && result.session === state.session && trusted() &&
  (result.trigger_id > 0 || state.triggers === "free_run");

const show = (line) => {
  printed += 1;
  console.log(JSON.stringify(line));
};

const addMissing = (from, to) => {
  for (let id = from; id < to; id++) missing.add(id);
};
const take = (result, heard = true) => {
  const id = result.result_id;
  if (!missing.delete(id)) {
    if (!nextId || id < nextId) return; // seen before, or from before this program joined
    addMissing(nextId, id);
    nextId = id + 1;
  }
  show({ ...result, pass: heard && mayPass(result) });
};

const observe = async (message) => {
  if (message.session !== state.session) beatMs = null;
  else if (message.beat > state.beat) beatMs = emptyMs;
  state = message;
  nextId ||= Math.max(1, state.last_result_id + 1 - state.in_flight);
  addMissing(nextId, state.last_result_id + 1);
  nextId = Math.max(nextId, state.last_result_id + 1);
  if (missing.size) {
    [asked, settledId] = [randomUUID(), state.in_flight ? 0 : state.last_result_id];
    const request = { v: WIRE_VERSION, id: asked, op: "get_result", station: state.station, from: Math.min(...missing) };
    await control.send(JSON.stringify(request)).catch(() => {}); // the next state asks again
  }
};

const receive = (socket) =>
  socket.receive().catch((error) => {
    if (error.code !== "EAGAIN") throw error;
    return null;
  });

while (COUNT === "0" || printed < Number(COUNT)) {
  const answer = await receive(control);
  if (answer !== null) {
    const reply = JSON.parse(answer.at(-1));
    if (reply.id === asked && reply.ok) {
      for (const result of reply.results) if (missing.has(result.result_id)) take(result, false);
      const lookedTo = Math.max(reply.first_result_id - 1, Math.min(settledId, (reply.next_result_id ?? 2 ** 53) - 1));
      for (const id of [...missing].filter((n) => n <= lookedTo)) {
        missing.delete(id);
        show({ gap: id });
      }
    }
  }
  const parts = await receive(sub);
  if (parts === null) {
    emptyMs = performance.now();
    await sleep(2);
    continue;
  }
  const message = JSON.parse(parts[1]);
  if (message.v !== WIRE_VERSION) continue; // another version: cannot be trusted
  if (parts[0].toString().startsWith("result/")) take(message);
  else await observe(message);
}
process.exit(0);
