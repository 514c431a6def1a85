// A camera: sends COUNT frames of colour and points at RATE per second, one message per exposure.
//
//   node send.mjs [FRAMES] [CAMERA] [COUNT] [RATE] [RESULTS] [STATION]
//
// With RESULTS, the inspector's results socket, each frame answers a trigger of STATION.
// `seq` counts every exposure, including those that could not be sent, so that the station can report what is missing.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Push, Subscriber } from "zeromq";

const [FRAMES = "tcp://127.0.0.1:5560", CAMERA = "cam1", COUNT = "10", RATE = "5", RESULTS = "", STATION = "st1"] =
  process.argv.slice(2);
const [ROWS, COLUMNS] = [24, 32];
const socket = new Push({
  immediate: true, // queue nothing for a station that is not connected
  sendHighWaterMark: 1, // and at most one frame for a station that does not read
  sendTimeout: RESULTS ? 200 : 0, // a trigger's frame is not sent again: it may wait for the previous one
  linger: 5000,
});
const triggers = new Subscriber();
triggers.subscribe(`trigger/${STATION}/`);
if (RESULTS) triggers.connect(RESULTS);
const connected = new Promise((resolve) => socket.events.on("handshake", resolve));
socket.connect(FRAMES);
await connected;
await sleep(100); // the handshake is reported before the queue is ready

const session = randomUUID(); // this run: a new one restarts seq
const xyz = Buffer.alloc(ROWS * COLUMNS * 3 * 4);
for (let n = 0; n < ROWS * COLUMNS; n++) {
  xyz.writeFloatLE((n % COLUMNS) - COLUMNS / 2, n * 12);
  xyz.writeFloatLE(Math.floor(n / COLUMNS) - ROWS / 2, n * 12 + 4);
  xyz.writeFloatLE(500, n * 12 + 8);
}

const nowUs = () => Math.round((performance.timeOrigin + performance.now()) * 1000);
let sent = 0;
const startedMs = performance.now();
for (let seq = 1; seq <= Number(COUNT); seq++) {
  let trigger = { trigger_id: 0, promise: 0, part_id: `P${seq}` }; // free run: every frame is judged
  if (RESULTS) trigger = JSON.parse((await triggers.receive())[1]);
  else await sleep(Math.max(0, startedMs + ((seq - 1) * 1000) / Number(RATE) - performance.now()));
  const exposedUs = nowUs();
  const rgb = Buffer.from({ length: ROWS * COLUMNS * 3 }, () => 0);
  for (let n = 0; n < rgb.length; n++) rgb[n] = (seq * 7 + n * 13) % 256; // no two pictures alike
  const header = {
    v: 1,
    camera: CAMERA,
    camera_session: session,
    seq,
    trigger_id: trigger.trigger_id, // of the trigger that this frame answers; 0: none
    promise: trigger.promise, // copied: it distinguishes this trigger from another with the same id
    part_id: trigger.part_id,
    t_exposure_us: exposedUs,
    t_sent_us: nowUs(),
    clock: "realtime",
    streams: [
      { name: "rgb", dtype: "u1", shape: [ROWS, COLUMNS, 3], buffer: 0, nbytes: rgb.length },
      { name: "xyz", dtype: "f4", shape: [ROWS, COLUMNS, 3], buffer: 1, nbytes: xyz.length, unit: "mm" },
    ],
  };
  try {
    await socket.send([`frame/${CAMERA}/`, JSON.stringify(header), rgb, xyz]);
    sent += 1;
  } catch (error) {
    if (error.code !== "EAGAIN") throw error; // the previous frame is still being sent: this one is lost
  }
}
console.log(JSON.stringify({ camera_session: session, exposures: Number(COUNT), sent }));
socket.close();
triggers.close();
