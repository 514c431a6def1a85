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
app.add("paired", f"{ROOM}.paired:command", "Time the CPU engine of this checkout against another checkout.")
app.add("rubbish", f"{ROOM}.rubbish:command", "Send mutated messages to an inspector and check every answer.")
app.add("soak", f"{ROOM}.soak:command", "Run a line for a long time and check that nothing grows.")
