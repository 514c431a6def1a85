"""A camera: sends COUNT frames of colour and points at RATE a second, one exposure one message.

    python send.py [FRAMES] [CAMERA] [COUNT] [RATE]

Needs pyzmq alone. `seq` counts every exposure, also one that could not be sent: so the station names what is missing.
"""

import array
import json
import sys
import time
import uuid

import zmq

FRAMES, CAMERA, COUNT, RATE = [*sys.argv[1:], *["tcp://127.0.0.1:5560", "cam1", "10", "5"][len(sys.argv) - 1 :]]
ROWS, COLUMNS = 24, 32
socket = zmq.Context().socket(zmq.PUSH)
socket.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing for a station that is not there
socket.setsockopt(zmq.SNDHWM, 1)  # nor more than one frame for one that does not read
socket.setsockopt(zmq.LINGER, 5000)
socket.connect(FRAMES)
socket.poll(30_000, zmq.POLLOUT)

session = str(uuid.uuid4())  # this run: a new one starts seq anew
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
    time.sleep(max(0.0, started_s + (seq - 1) / float(RATE) - time.monotonic()))
    exposed_us = time.time_ns() // 1000
    rgb = bytes((seq * 7 + n * 13) % 256 for n in range(ROWS * COLUMNS * 3))  # no two pictures alike
    header = {
        "v": 1,
        "camera": CAMERA,
        "camera_session": session,
        "seq": seq,
        "trigger_id": 0,  # of the trigger that this frame answers; 0: none
        "part_id": f"P{seq}",
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
        pass  # the frame before is still under way: this one is lost, and its seq says so
print(json.dumps({"camera_session": session, "exposures": int(COUNT), "sent": sent}), flush=True)
