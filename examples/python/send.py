"""A camera: sends COUNT frames of colour and points at RATE per second, one message per exposure.

    python send.py [FRAMES] [CAMERA] [COUNT] [RATE] [RESULTS] [STATION]

With RESULTS, the inspector's results socket, each frame answers a trigger of STATION.
Needs only pyzmq; if Asperity is installed, asperity.client.FrameSender does more.
`seq` counts every exposure, including those that could not be sent, so that the station can report what is missing.
"""

import array
import json
import sys
import time
import uuid

import zmq

DEFAULTS = ["tcp://127.0.0.1:5560", "cam1", "10", "5", "", "st1"]
FRAMES, CAMERA, COUNT, RATE, RESULTS, STATION = [*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :]]
ROWS, COLUMNS = 24, 32
context = zmq.Context()
socket = context.socket(zmq.PUSH)
socket.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing for a station that is not connected
socket.setsockopt(zmq.SNDHWM, 1)  # and at most one frame for a station that does not read
socket.setsockopt(zmq.LINGER, 5000)
socket.connect(FRAMES)
if RESULTS:
    triggers = context.socket(zmq.SUB)
    triggers.subscribe(f"trigger/{STATION}/")
    triggers.connect(RESULTS)
socket.poll(30_000, zmq.POLLOUT)

session = str(uuid.uuid4())  # this run: a new one restarts seq
points = array.array("f")
for row in range(ROWS):
    for column in range(COLUMNS):
        points.extend((column - COLUMNS / 2, row - ROWS / 2, 500.0))
if sys.byteorder == "big":
    points.byteswap()
xyz = points.tobytes()

sent = 0
started_s = time.monotonic()
for seq in range(1, int(COUNT) + 1):
    if RESULTS:
        trigger = json.loads(triggers.recv_multipart()[1])
        socket.poll(200, zmq.POLLOUT)  # this part's frame is not sent again: wait for the previous one
    else:
        trigger = {"part_id": f"P{seq}"}  # free run: every frame is judged
        time.sleep(max(0.0, started_s + (seq - 1) / float(RATE) - time.monotonic()))
    exposed_us = time.time_ns() // 1000
    rgb = bytes((seq * 7 + n * 13) % 256 for n in range(ROWS * COLUMNS * 3))  # no two pictures alike
    header = {
        "v": 1,
        "camera": CAMERA,
        "camera_session": session,
        "seq": seq,
        "trigger_id": trigger.get("trigger_id", 0),  # of the trigger that this frame answers; 0: none
        "promise": trigger.get("promise", 0),  # copied: it distinguishes this trigger from another with the same id
        "part_id": trigger["part_id"],
        "t_exposure_us": exposed_us,
        "t_sent_us": time.time_ns() // 1000,
        "clock": "realtime",
        "streams": [
            {"name": "rgb", "dtype": "u1", "shape": [ROWS, COLUMNS, 3], "buffer": 0, "nbytes": len(rgb)},
            {"name": "xyz", "dtype": "f4", "shape": [ROWS, COLUMNS, 3], "buffer": 1, "nbytes": len(xyz), "unit": "mm"},
        ],
    }
    try:
        socket.send_multipart([f"frame/{CAMERA}/".encode(), json.dumps(header).encode(), rgb, xyz], zmq.NOBLOCK)
        sent += 1
    except zmq.Again:
        pass  # the previous frame is still being sent: this one is lost, as its seq will show
print(json.dumps({"camera_session": session, "exposures": int(COUNT), "sent": sent}), flush=True)
