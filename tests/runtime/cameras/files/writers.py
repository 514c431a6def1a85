"""Writers of every format that is read, after the formats' own descriptions."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from asperity.runtime.cameras.files.read import ExposureFiles

Array = NDArray[Any]
SCALAR = {"f4": "float", "f8": "double", "u1": "uchar", "i4": "int"}


def ply(
    rgb: Array | None, xyz: Array, form: str = "binary_little_endian", kind: str = "f4", size: str = "info",
    extra: bool = False, after: str = "",
) -> bytes:  # fmt: skip
    rows, columns = xyz.shape[:2]
    fields = [*([("quality", "i4")] if extra else []), *((name, kind) for name in "xyz")]
    fields += [(name, "u1") for name in ("red", "green", "blue")] if rgb is not None else []
    fields += [("nx", "f4")] if extra else []
    table = np.zeros(rows * columns, dtype=fields)
    for axis, name in enumerate("xyz"):
        table[name] = xyz[..., axis].ravel()
    for axis, name in enumerate(("red", "green", "blue") if rgb is not None else ()):
        table[name] = rgb[..., axis].ravel()  # type: ignore[index]
    said = {
        "info": f"obj_info num_cols {columns}\nobj_info num_rows {rows}\n",
        "comment": f"comment made for a test\ncomment width {columns}\ncomment height: {rows}\n",
        "photoneo": f"obj_info Photoneo PLY PointCloud (Width = {columns}; Height = {rows}; Ordered)\n",
        "": "",
    }[size]
    head = f"ply\nformat {form} 1.0\n{said}element vertex {rows * columns}\n"
    head += "".join(f"property {SCALAR[kind]} {name}\n" for name, kind in fields) + after + "end_header\n"
    if form == "ascii":
        body = "".join(" ".join(map(repr_of, row)) + "\n" for row in table).encode()
    else:
        order = ">" if form.endswith("big_endian") else "<"
        body = table.astype(table.dtype.newbyteorder(order)).tobytes()
    return head.encode() + body


def repr_of(number: Any) -> str:
    return str(number)


def pcd(
    rgb: Array | None, xyz: Array, form: str = "binary", kind: str = "f4", colour: str = "rgb F",
    height: int | None = None,
) -> bytes:  # fmt: skip
    rows, columns = xyz.shape[:2]
    points = rows * columns
    size = int(kind[1])
    fields: list[tuple[str, str, int, Array]] = [("label", "U", 2, np.zeros(points, "<u2"))]
    fields += [(name, "F", size, xyz[..., axis].ravel().astype(f"<{kind}")) for axis, name in enumerate("xyz")]
    if rgb is not None and colour == "r g b":
        fields += [(name, "U", 1, rgb[..., axis].ravel()) for axis, name in enumerate("rgb")]
    elif rgb is not None:
        name, letter = colour.split()
        red, green, blue = (rgb[..., axis].ravel().astype("<u4") for axis in range(3))
        packed = (red << 16 | green << 8 | blue).astype("<u4")
        fields.append((name, letter, 4, packed.view("<f4") if letter == "F" else packed))
    height = rows if height is None else height
    lines = {
        "VERSION": "0.7", "FIELDS": " ".join(one[0] for one in fields), "SIZE": " ".join(str(one[2]) for one in fields),
        "TYPE": " ".join(one[1] for one in fields), "COUNT": " ".join("1" for _ in fields),
        "WIDTH": str(points // height), "HEIGHT": str(height), "VIEWPOINT": "0 0 0 1 0 0 0", "POINTS": str(points),
        "DATA": form,
    }  # fmt: skip
    head = "# .PCD v0.7 - Point Cloud Data file format\n" + "".join(f"{key} {text}\n" for key, text in lines.items())
    if form == "ascii":
        body = "".join(" ".join(map(str, row)) + "\n" for row in zip(*(one[3] for one in fields), strict=True)).encode()
    elif form == "binary":
        body = np.rec.fromarrays([one[3] for one in fields]).tobytes()
    else:
        whole = b"".join(one[3].tobytes() for one in fields)
        packed_bytes = lzf_literal(whole)
        body = struct.pack("<II", len(packed_bytes), len(whole)) + packed_bytes
    return head.encode() + body


def lzf_literal(data: bytes) -> bytes:
    """A stream of LZF without a single copy."""
    pieces = (data[at : at + 32] for at in range(0, len(data), 32))
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def exr(planes: dict[str, Array], compression: int = 3, window: tuple[int, int] = (0, 0), flags: int = 0) -> bytes:
    """``planes``: H x W of f2, f4 or u4 by channel. ``window``: smallest x and y."""
    rows, columns = next(iter(planes.values())).shape
    kinds = {"<u4": 0, "<f2": 1, "<f4": 2}
    names = sorted(planes)
    stored = {name: planes[name].astype(planes[name].dtype.newbyteorder("<")) for name in names}
    listed = b"".join(
        name.encode() + b"\0" + struct.pack("<iB3xii", kinds[stored[name].dtype.str], 0, 1, 1) for name in names
    )
    x, y = window
    box = struct.pack("<4i", x, y, x + columns - 1, y + rows - 1)
    head = struct.pack("<II", 20000630, 2 | flags)
    for name, kind, value in (
        ("channels", "chlist", listed + b"\0"), ("compression", "compression", bytes([compression])),
        ("dataWindow", "box2i", box), ("displayWindow", "box2i", box), ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)), ("screenWindowCenter", "v2f", bytes(8)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
    ):  # fmt: skip
        head += name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value
    head += b"\0"
    at_once = {0: 1, 2: 1, 3: 16}.get(compression, 16)
    blocks = []
    for first in range(0, rows, at_once):
        lines = range(first, min(first + at_once, rows))
        raw = b"".join(stored[name][line].tobytes() for line in lines for name in names)
        packed = raw if compression == 0 else zipped(raw)
        body = packed if len(packed) < len(raw) else raw
        blocks.append(struct.pack("<ii", y + first, len(body)) + body)
    at = len(head) + 8 * len(blocks)
    offsets = []
    for block in blocks:
        offsets.append(at)
        at += len(block)
    return head + struct.pack(f"<{len(offsets)}Q", *offsets) + b"".join(blocks)


def zipped(raw: bytes) -> bytes:
    """As OpenEXR does: even bytes, then odd ones; each as the difference to the one before, plus 128; then zlib."""
    whole = np.frombuffer(raw, np.uint8)
    halves = np.concatenate([whole[0::2], whole[1::2]]).astype(np.int32)
    halves[1:] = (halves[1:] - halves[:-1] + 128 + 256) % 256
    return zlib.compress(halves.astype(np.uint8).tobytes())


def rgb_planes(rgb: Array) -> dict[str, Array]:
    return {name: (rgb[..., axis] / np.float32(255)).astype(np.float32) for axis, name in enumerate("RGB")}


def xyz_planes(xyz: Array) -> dict[str, Array]:
    return {name: xyz[..., axis] for axis, name in enumerate("XYZ")}


def npz(compressed: bool = False, **arrays: Array) -> bytes:
    file = BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npy(array: Array) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def tiff(array: Array, **options: Any) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, array, photometric="rgb" if array.ndim == 3 else "minisblack", **options)
    return file.getvalue()


def png(array: Array) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def one(folder: Path, name: str, points: bytes) -> ExposureFiles:
    (folder / name).write_bytes(points)
    return ExposureFiles(folder / name)


def two(folder: Path, name: str, points: bytes, rgb: Array) -> ExposureFiles:
    (folder / name).write_bytes(points)
    (folder / "colour.png").write_bytes(png(rgb))
    return ExposureFiles(folder / name, folder / "colour.png")


FACES = "element face 1\nproperty list uchar int vertex_indices\n"
Writer = Callable[[Path, Array, Array], ExposureFiles]
CLOUDS: dict[str, Writer] = {
    "tiff": lambda folder, rgb, xyz: two(folder, "a.tiff", tiff(xyz), rgb),
    "npy": lambda folder, rgb, xyz: two(folder, "a.npy", npy(xyz), rgb),
    "npy by columns": lambda folder, rgb, xyz: two(folder, "a.npy", npy(np.asfortranarray(xyz)), rgb),
    "npz": lambda folder, rgb, xyz: one(folder, "a.npz", npz(xyz=xyz, rgb=rgb)),
    "npz compressed": lambda folder, rgb, xyz: one(folder, "a.npz", npz(True, xyz=xyz, rgb=rgb)),
    "npz big endian": lambda folder, rgb, xyz: one(folder, "a.npz", npz(xyz=xyz.astype(">f8"), rgb=rgb)),
    "ply text": lambda folder, rgb, xyz: one(folder, "a.ply", ply(rgb, xyz, "ascii", extra=True)),
    "ply little": lambda folder, rgb, xyz: one(folder, "a.ply", ply(rgb, xyz, size="photoneo")),
    "ply big": lambda folder, rgb, xyz: one(folder, "a.ply", ply(rgb, xyz, "binary_big_endian", "f8", "comment", True)),
    "ply and picture": lambda folder, rgb, xyz: two(folder, "a.ply", ply(None, xyz, size=""), rgb),
    "ply with faces": lambda folder, rgb, xyz: one(
        folder,
        "a.ply",
        ply(rgb, xyz, after=FACES) + b"\3" + bytes(12),
    ),
    "pcd text": lambda folder, rgb, xyz: one(folder, "a.pcd", pcd(rgb, xyz, "ascii", colour="rgb U")),
    "pcd text, colour as float": lambda folder, rgb, xyz: one(folder, "a.pcd", pcd(rgb, xyz, "ascii")),
    "pcd": lambda folder, rgb, xyz: one(folder, "a.pcd", pcd(rgb, xyz)),
    "pcd f8 rgba": lambda folder, rgb, xyz: one(folder, "a.pcd", pcd(rgb, xyz, kind="f8", colour="rgba U")),
    "pcd r g b": lambda folder, rgb, xyz: one(folder, "a.pcd", pcd(rgb, xyz, colour="r g b")),
    "pcd compressed": lambda folder, rgb, xyz: one(folder, "a.pcd", pcd(rgb, xyz, "binary_compressed")),
    "pcd and picture": lambda folder, rgb, xyz: two(folder, "a.pcd", pcd(None, xyz), rgb),
    "exr": lambda folder, rgb, xyz: one(folder, "a.exr", exr(rgb_planes(rgb) | xyz_planes(xyz), 0)),
    "exr zips": lambda folder, rgb, xyz: one(folder, "a.exr", exr(rgb_planes(rgb) | xyz_planes(xyz), 2, (-3, 7))),
    "exr zip": lambda folder, rgb, xyz: one(folder, "a.exr", exr(rgb_planes(rgb) | xyz_planes(xyz), 3)),
    "exr and picture": lambda folder, rgb, xyz: two(folder, "a.exr", exr(xyz_planes(xyz)), rgb),
}
"""By format: colour and points of a frame as its files."""
DEPTHS: dict[str, Callable[[Array], tuple[str, bytes]]] = {
    "png": lambda depth: ("a.png", png(depth)),
    "tiff": lambda depth: ("a.tiff", tiff(depth, compression="zlib")),
    "tiff big endian": lambda depth: ("a.tif", tiff(depth, byteorder=">")),
    "tiff f4": lambda depth: ("a.tiff", tiff(depth.astype(np.float32))),
    "npy": lambda depth: ("a.npy", npy(depth)),
    "npy f8 with an axis of one": lambda depth: ("a.npy", npy(depth[..., None].astype(np.float64))),
    "npz": lambda depth: ("a.npz", npz(depth=depth)),
    "exr": lambda depth: ("a.exr", exr({"Z": depth.astype(np.float32)})),
    "exr of layers": lambda depth: (
        "a.exr",
        exr(
            {
                "View.Depth.Z": depth.astype(np.float32),
                "View.Normal.X": np.ones_like(depth, np.float32),
                "View.Normal.Z": np.ones_like(depth, np.float32),
            },
            2,
        ),
    ),
    "exr of OpenCV": lambda depth: ("a.exr", exr({"Y": depth.astype(np.float32)}, 0)),
}
"""By format: depth (u2) as a file's name and content."""
