"""Prototype, measured and not used (docs/decisions/frame-transport.md): a frame's buffers as sealed memory.

The camera's process writes colour and 3D into a memory file, seals it against any further write, and passes its handle
over a local socket with the header. The receiver checks the seals and maps it: nothing is copied on that side, and the
kernel lets nobody change it any more, not even the sender. ``ring`` is the usual form, one shared block
that is used again and again: the receiver has to copy out of it, and cannot know that it was not overwritten meanwhile.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import multiprocessing
import os
import socket
import struct
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asperity.benchmarks.line.wire import SILENCE_MS, Form, WireBenchmark, pictures_of
from asperity.runtime.frame import Frame
from asperity.runtime.wire import decode_frame, encode_frame

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
SIZES = struct.Struct("<dQQQ")
"""When the frame was encoded, and the bytes of header, colour and 3D."""
MAX_HEADER_NBYTES = 20_000
SLOTS = 4


def measure(options: WireBenchmark, form: Form, *, ring: bool, folder: Path) -> tuple[list[int], int]:
    """Latencies in microseconds from before encoding to a decoded frame, each page of it read; and a frame's bytes."""
    path = folder / "frames"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(SILENCE_MS / 1000)
        camera = multiprocessing.get_context("spawn").Process(target=_camera, args=(options, form, ring, str(path)))
        camera.start()
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(SILENCE_MS / 1000)
                return _receive(connection, options, ring)
        finally:
            camera.join(SILENCE_MS / 1000)
            if camera.is_alive():
                camera.kill()
                camera.join()


def read_pages(frame: Frame) -> int:
    """Read one byte per page: a mapping costs when it is read, not when it is made."""
    total = 0
    for array in (frame.rgb, frame.xyz, frame.depth):
        if array is not None:
            total += int(array.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE].sum())
    return total


def _receive(connection: socket.socket, options: WireBenchmark, ring: bool) -> tuple[list[int], int]:
    latencies_us: list[int] = []
    nbytes = 0
    block: mmap.mmap | None = None
    for index in range(options.warm_up + options.frames):
        message, handles, _, _ = socket.recv_fds(connection, SIZES.size + MAX_HEADER_NBYTES, 1)
        sent_s, header_nbytes, *sizes = SIZES.unpack_from(message)
        header = message[SIZES.size :][:header_nbytes]
        if not ring:
            whole = memoryview(_mapped(handles[0], sum(sizes), SEALS))
        else:
            block = block or _mapped(handles[0], SLOTS * sum(sizes), 0)
            first = (index % SLOTS) * sum(sizes)
            whole = memoryview(block[first : first + sum(sizes)])  # a copy: the next frames are written there
        frame = decode_frame([b"frame/bench/", header, whole[: sizes[0]], whole[sizes[0] :]])
        read_pages(frame)
        now_s = time.monotonic()
        if index >= options.warm_up:
            latencies_us.append(round(1e6 * (now_s - sent_s)))
            nbytes = sum(sizes) + header_nbytes
        del frame, whole
    return latencies_us, nbytes


def _mapped(handle: int, nbytes: int, seals: int) -> mmap.mmap:
    """The memory, for reading; closes the handle. Raises ValueError unless it has the seals and the size."""
    try:
        if os.fstat(handle).st_size != nbytes or fcntl.fcntl(handle, fcntl.F_GET_SEALS) & seals != seals:
            raise ValueError("the memory is not sealed, or not of the stated size")
        return mmap.mmap(handle, nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(handle)


def _camera(options: WireBenchmark, form: Form, ring: bool, path: str) -> None:
    session = str(uuid.uuid4())
    pictures = [replace(one, camera_session=session, seq=1) for one in pictures_of(options, form)]
    nbytes = sum(memoryview(part).nbytes for part in encode_frame(pictures[0])[2:])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        block, handles = None, list[int]()
        if ring:
            handles = [os.memfd_create("ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)]
            os.ftruncate(handles[0], SLOTS * nbytes)
            block = mmap.mmap(handles[0], SLOTS * nbytes)
        due_s = time.monotonic()
        frames = itertools.islice(itertools.cycle(pictures), options.warm_up + options.frames)
        for index, picture in enumerate(frames):
            time.sleep(max(0.0, due_s - time.monotonic()))
            sent_s = time.monotonic()
            _, header, *buffers = encode_frame(picture)
            if block is not None:
                block.seek((index % SLOTS) * nbytes)
                for buffer in buffers:
                    block.write(buffer)
            else:
                handles = [os.memfd_create("frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)]
                _write(handles[0], buffers)
                fcntl.fcntl(handles[0], fcntl.F_ADD_SEALS, SEALS)
            sizes = [memoryview(buffer).nbytes for buffer in buffers]
            message = SIZES.pack(sent_s, len(header), *sizes) + bytes(header)
            socket.send_fds(connection, [message], handles if index == 0 or not ring else [])
            if not ring:
                os.close(handles[0])
            due_s += 1 / options.rate_hz
        connection.recv(1)  # until the receiver has them all


def _write(handle: int, buffers: list[Any]) -> None:
    for buffer in buffers:
        left = memoryview(buffer)
        while left.nbytes:
            left = left[os.write(handle, left) :]
