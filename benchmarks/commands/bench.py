"""``asperity bench``: the commands that measure this machine."""

from __future__ import annotations

from asperity.runtime.commands.lazy import LazyTyper

ROOM = "asperity.benchmarks.commands"

app = LazyTyper("bench", "Measure latency, frame rates and robustness of this machine.")
app.add("latency", f"{ROOM}.latency:command", "Measure the latency of a bundle, over sockets and in process.")
app.add("compare", f"{ROOM}.compare:command", "Compare two result files of one benchmark.")
app.add("rates", f"{ROOM}.rates:command", "Find the highest frame rate without a dropped or late frame.")
app.add("wire", f"{ROOM}.wire:command", "Measure the transport of frames from a camera process.")
app.add("knn", f"{ROOM}.parts:knn", "Measure the nearest-neighbour search.")
app.add("points", f"{ROOM}.parts:points", "Measure each step of the point branch.")
app.add(
    "calibrate",
    f"{ROOM}.parts:calibrate",
    "`asperity calibrate` as a process: seconds, processor seconds, largest memory.",
)
app.add(
    "engines",
    f"{ROOM}.engines:engines",
    "Build real engines of every network in fp32, fp16 and int8, and compare the graphs layer by layer.",
)
app.add(
    "precision",
    f"{ROOM}.engines:precision",
    "What fp16 and int8 do to a bundle's scores and verdicts, on the CPU by graphs that round where they round.",
)
app.add(
    "published",
    f"{ROOM}.published:command",
    "Time the published form and ours in turn on the same frames; the ratio and the counted one as JSON on stdout.",
)
app.add("paired", f"{ROOM}.paired:command", "Time the CPU engine of this checkout against another checkout.")
app.add("rubbish", f"{ROOM}.rubbish:command", "Send mutated messages to an inspector and check every answer.")
app.add("soak", f"{ROOM}.soak:command", "Run a line for a long time and check that nothing grows.")
app.add(
    "honesty",
    f"{ROOM}.honesty:command",
    "Calibrate again and again on 200 of many normal frames and count how many of the others are rejected.",
)
