"""Results of a station, one JSON line each with `pass`; what PUB lost comes from the journal or is reported as a gap.

    python subscribe.py [RESULTS] [CONTROL] [STATION] [COUNT] [simulated]
Needs only pyzmq; asperity.client.StationClient does more. Lines are in order of arrival, not of result_id; every id
occurs once. What the journal brought back never passes: nothing here proves who answers on the control socket.
"""

import json
import os
import sys
import time
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).parent.parent / "generated"))
from asperity_constants import READY_STATES, REASON, VERDICT, WIRE_VERSION

FOLDER = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/asperity-{os.getuid()}"
DEFAULTS = ["tcp://127.0.0.1:5561", f"ipc://{FOLDER}/asperity/st1.control", "st1", "0", ""]
RESULTS, CONTROL, STATION, COUNT, SIMULATED = [*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :]]


class Subscriber:
    def __init__(self):
        self.sub, self.control = zmq.Context.instance().socket(zmq.SUB), zmq.Context.instance().socket(zmq.DEALER)
        self.sub.subscribe(f"result/{STATION}/")
        self.sub.subscribe(f"state/{STATION}/")
        self.sub.connect(RESULTS)
        self.control.connect(CONTROL)
        self.state, self.next_id, self.missing, self.lines = {}, 0, set(), 0  # next_id 0: not joined yet
        self.beat_s = None  # earliest time at which its heartbeat can have advanced
        self.empty_s = time.monotonic()  # the queue was last seen empty: what is read later may be that old
        self.asked, self.settled_id = "", 0  # pending request; up to this id nothing was in work when it was sent

    def trusted(self):
        """Ready, and the heartbeat advances: anything missing, unknown or old means no."""
        ready = self.state.get("ready") is True and self.state.get("state") in READY_STATES
        return ready and self.beat_s and (time.monotonic() - self.beat_s) * 1000 <= self.state["beat_timeout_ms"]

    def may_pass(self, result):
        """Energise to pass: every field must confirm it."""
        score, threshold, state = result.get("score"), result.get("threshold"), self.state
        said = result.get("verdict") == VERDICT["OK"] and result.get("accept") is True
        proven = result.get("reason_code") == REASON["GOOD"] and None not in (score, threshold) and score <= threshold
        real = result.get("simulated") is False or SIMULATED == "simulated"
        asked = result.get("trigger_id") or state.get("triggers") == "free_run"
        return bool(said and proven and real and asked and result["session"] == state.get("session") and self.trusted())

    def show(self, line):
        self.lines += 1
        print(json.dumps(line), flush=True)

    def take(self, result, heard=True):
        number = result["result_id"]
        if number not in self.missing and not 0 < self.next_id <= number:
            return  # seen before, or before this program joined
        self.missing.update(range(self.next_id, number))
        self.missing.discard(number)
        self.next_id = max(self.next_id, number + 1)
        self.show({**result, "pass": heard and self.may_pass(result)})

    def observe(self, state):
        if state["session"] != self.state.get("session"):
            self.beat_s = None
        elif state["beat"] > self.state["beat"]:
            self.beat_s = self.empty_s
        self.state, last_id = state, state["last_result_id"]
        self.next_id = self.next_id or max(1, last_id + 1 - state["in_flight"])
        self.missing.update(range(self.next_id, last_id + 1))
        self.next_id = max(self.next_id, last_id + 1)
        if self.missing:
            self.asked, self.settled_id = os.urandom(16).hex(), 0 if state["in_flight"] else last_id
            request = {"v": WIRE_VERSION, "id": self.asked, "op": "get_result", "station": STATION}
            self.control.send_json({**request, "from": min(self.missing)})

    def hear(self, reply):
        if reply["id"] != self.asked or not reply["ok"]:
            return
        for result in reply["results"]:
            if result["result_id"] in self.missing:
                self.take(result, heard=False)
        looked_to = max(reply["first_result_id"] - 1, min(self.settled_id, (reply["next_result_id"] or 2**53) - 1))
        for number in sorted(n for n in self.missing if n <= looked_to):
            self.missing.discard(number)
            self.show({"gap": number})

    def run(self):
        while int(COUNT) == 0 or self.lines < int(COUNT):
            if self.control.poll(0):
                self.hear(self.control.recv_json())
            if not self.sub.poll(0):
                self.empty_s = time.monotonic()
            if self.sub.poll(50):
                topic, message = self.sub.recv(), self.sub.recv_json()
                if message.get("v") == WIRE_VERSION:  # nothing in another version can be trusted
                    (self.take if topic.startswith(b"result/") else self.observe)(message)


Subscriber().run()
