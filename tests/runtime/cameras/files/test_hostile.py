"""Damaged and hostile files: each is refused by name, with the reason, before memory is taken for what it declares."""

from __future__ import annotations

import io
import json
import re
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asperity.runtime.cameras.files import read
from asperity.runtime.cameras.files.lzf import decompress
from asperity.runtime.cameras.files.read import ExposureFiles, FileOptions, read_exposure
from asperity.runtime.errors import DataError
from tests.runtime.cameras.files import writers
from tests.runtime.cameras.files.writers import exr, npy, npz, pcd, ply, rgb_planes, xyz_planes

RGB = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8)
XYZ = np.random.default_rng(2).normal(0, 300, (6, 5, 3)).astype(np.float32)
DEPTH = np.arange(30, dtype=np.uint16).reshape(6, 5)
MOST_BYTES = 16 * 2**20
PLY, PLY_TEXT, PCD, PCD_TEXT = (
    ply(RGB, XYZ),
    ply(RGB, XYZ, "ascii"),
    pcd(RGB, XYZ),
    pcd(RGB, XYZ, "ascii", colour="rgb U"),
)
PACKED = pcd(RGB, XYZ, "binary_compressed")
NUMBERS = re.sub(rb"[0-9.]+e-[0-9]+", b"4.2108e+06", pcd(RGB, XYZ, "ascii"))
EXR = exr(rgb_planes(RGB) | xyz_planes(XYZ))


def swapped(content: bytes, old: str, new: str) -> bytes:
    assert content.count(old.encode()) >= 1, old
    return content.replace(old.encode(), new.encode(), 1)


def header_bomb(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zip_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def with_packed_size(packed: int, inflated: int) -> bytes:
    at = PACKED.index(b"DATA binary_compressed\n") + 23
    return PACKED[:at] + struct.pack("<II", packed, inflated) + PACKED[at + 8 :]


def without_last(content: bytes, nbytes: int = 1) -> bytes:
    return content[:-nbytes]


def first_offset(content: bytes, value: int) -> bytes:
    """An EXR whose table leads its first block elsewhere."""
    at = content.index(b"screenWindowWidth\0") + 18 + 6 + 4 + 4 + 1
    return content[:at] + struct.pack("<Q", value) + content[at + 8 :]


def exr_bomb() -> bytes:
    """A block that inflates to far more than its rows have: made when it is needed, as ``zip_bomb`` is."""
    planes = {"Z": np.zeros((16, 4096), np.float32)}
    whole = exr(planes)
    bomb = zlib.compress(bytes(64 * 2**20), 9)
    start = len(whole) - len(writers.zipped(bytes(16 * 4096 * 4))) - 8
    return whole[:start] + struct.pack("<ii", 0, len(bomb)) + bomb


def zip_bomb() -> bytes:
    """200 MB of zeros: made when they are needed, not each time that tests are collected."""
    return zip_of(xyz=header_bomb("(5, 5, 3)") + bytes(300), rgb=bytes(200 * 2**20))


HOSTILE: list[tuple[str, str, bytes | Callable[[], bytes], str]] = [
    ("no header", "ply", b"ply\nformat ascii 1.0\n", "no header"),
    ("not ply", "ply", b"PLY\n" + PLY[4:], "cannot be read as PLY"),
    ("endless header", "ply", b"ply\n" + b"comment x\n" * 100_000 + PLY[4:], "no header of at most"),
    ("point bomb", "ply", swapped(PLY, "vertex 30", "vertex 999999999999"), "declares 999999999999 points"),
    ("negative points", "ply", swapped(PLY, "vertex 30", "vertex -30"), "with the count '-30'"),
    ("no points", "ply", swapped(PLY, "vertex 30", "vertex 0"), "declares 0 points"),
    ("points of another grid", "ply",
     swapped(PLY, "num_rows 6", "num_rows 7"), "not those of 7 rows of 5; export the org"),
    ("two sizes", "ply", swapped(PLY, "obj_info num_rows 6", "obj_info num_rows 6\nobj_info num_rows 5"), "twice"),
    ("a grid too large", "ply", swapped(PLY, "num_rows 6", "num_rows 999999"), "999999 x 5 pixels"),
    ("cut off", "ply", without_last(PLY), "cut off or damaged"),
    ("something behind", "ply", PLY + b"\0", "cut off or damaged"),
    ("a list bomb", "ply",
     swapped(PLY, "property float x", "property list uint float q\nproperty float x"), "a list among"),
    ("a list before", "ply",
     swapped(PLY, "element vertex", "element q 1\nproperty list uchar int i\nelement vertex"), "list"),
    ("an element bomb", "ply",
     swapped(PLY, "element vertex", "element q 99999999999\nproperty int i\nelement vertex"), "cut"),
    ("many elements", "ply",
     swapped(PLY, "end_header", "\n".join(f"element e{i} 0" for i in range(99)) + "\nend_header"), "e15"),
    ("an unknown type", "ply", swapped(PLY, "property float x", "property float128 x"), "float128"),
    ("x twice", "ply", swapped(PLY, "property float y", "property float x"), "property 'float x'"),
    ("whole coordinates", "ply", swapped(PLY, "property float x", "property int x"), "no property x of type float"),
    ("colour as floats", "ply", swapped(PLY, "uchar red", "float red"), "not uchar"),
    ("no colour", "ply", ply(None, XYZ), "holds no colour"),
    ("text cut off", "ply", PLY_TEXT[: PLY_TEXT.rindex(b"\n", 0, -1) + 1], "29 of 30 points are there"),
    ("text with long lines", "ply",
     PLY_TEXT[: PLY_TEXT.index(b"end_header")] + b"end_header\n" + (b"1 " * 900 + b"\n") * 999,
     "has 900 numbers in a line, but its header names 6"),
    ("text cut off in a number", "ply", without_last(PLY_TEXT, 2), "its last line does not end"),
    ("text with a short line", "ply", PLY_TEXT[: PLY_TEXT.rindex(b" ")] + b"\n", "not 6 numbers"),
    ("text with words", "ply", PLY_TEXT.replace(b"\n", b"\nx ", 40), "cannot be read as PLY"),
    ("text with more lines", "ply", PLY_TEXT + b"1 2 3 4 5 6\n", "more lines than the 30"),
    ("text with an endless line", "ply",
     PLY_TEXT[: PLY_TEXT.index(b"end_header")] + b"end_header\n" + b"1 " * 9000, "more than 16384"),
    ("text with a wrong colour", "ply",
     ply(np.zeros_like(RGB), XYZ, "ascii").replace(b" 0\n", b" 256\n", 1), "not a whole number of 0"),
    ("unorganised", "pcd", pcd(RGB, XYZ, height=1), "not organised: 30 points in one row"),
    ("point bomb", "pcd",
     swapped(swapped(PCD, "POINTS 30", "POINTS 999999995"), "WIDTH 5\nHEIGHT 6", "WIDTH 5\nHEIGHT 199999999"),
     "999999995 points"),
    ("points that are not the grid's", "pcd", swapped(PCD, "POINTS 30", "POINTS 31"), "declares 31 points"),
    ("a negative size", "pcd", swapped(PCD, "WIDTH 5", "WIDTH -5"), "WIDTH -5"),
    ("no width", "pcd", swapped(PCD, "WIDTH 5\n", ""), "has no WIDTH"),
    ("a moved camera", "pcd", swapped(PCD, "0 0 0 1 0 0 0", "0 0 0.5 1 0 0 0"), "viewpoint 0 0 0.5"),
    ("a viewpoint of words", "pcd", swapped(PCD, "0 0 0 1 0 0 0", "0 0 0 one 0 0 0"), "viewpoint"),
    ("an old version", "pcd", swapped(PCD, "VERSION 0.7", "VERSION 0.4"), "version 0.4"),
    ("an unknown form", "pcd", swapped(PCD, "DATA binary", "DATA zstd"), "has data as 'zstd'"),
    ("fields without sizes", "pcd", swapped(PCD, "SIZE 2 4", "SIZE 4"), "differ in length"),
    ("a field of 3 bytes", "pcd", swapped(PCD, "SIZE 2 4", "SIZE 3 4"), "SIZE 3"),
    ("a field of many numbers", "pcd", swapped(PCD, "COUNT 1", "COUNT 99999999"), "COUNT 99999999"),
    ("a field twice", "pcd", swapped(PCD, "FIELDS label x y", "FIELDS x x y"), "two fields of one name"),
    ("no z", "pcd", swapped(PCD, "FIELDS label x y z", "FIELDS label x y q"), "no field z"),
    ("whole z", "pcd", swapped(PCD, "TYPE U F F F", "TYPE U F F I"), "no field z of type F"),
    ("an endless header", "pcd", b"# x\n" * 9000 + PCD, "no header of at most"),
    ("binary cut off", "pcd", without_last(PCD), "cut off or damaged"),
    ("something behind", "pcd", PCD + b"x", "cut off or damaged"),
    ("text cut off", "pcd", PCD_TEXT[: PCD_TEXT.rindex(b"\n", 0, -1) + 1], "29 of 30 points"),
    ("text with colour as nan", "pcd",
     swapped(pcd(RGB * 0, XYZ, "ascii"), " 0.0\n", " nan\n"), "no three bytes"),
    ("text with numbers as colours", "pcd", NUMBERS, "no three bytes"),
    ("text with half a colour", "pcd",
     pcd(RGB * 0, XYZ, "ascii", colour="rgb U").replace(b" 0\n0", b" 0.5\n0", 1), "whole numbers"),
    ("compressed cut off", "pcd", without_last(PACKED), "is cut off"),
    ("inflates to more", "pcd", with_packed_size(len(PACKED), 2**31), "declares 2147483648 bytes"),
    ("no sizes", "pcd", PACKED[: PACKED.index(b"compressed\n") + 14], "declares 0 bytes"),
    ("not exr", "exr", b"\0" + EXR[1:], "signature"),
    ("tiles", "exr", exr({"Z": XYZ[..., 0]}, flags=0x200), "in tiles"),
    ("deep", "exr", exr({"Z": XYZ[..., 0]}, flags=0x800), "deep"),
    ("several parts", "exr", exr({"Z": XYZ[..., 0]}, flags=0x1000), "several parts"),
    ("PIZ", "exr", exr({"Z": XYZ[..., 0]}, 4), "compression PIZ; write it with ZIP"),
    ("DWAB", "exr", exr({"Z": XYZ[..., 0]}, 9), "compression DWAB"),
    ("no such compression", "exr", exr({"Z": XYZ[..., 0]}, 77), "compression 77"),
    ("half a channel group", "exr", exr({"X": XYZ[..., 0], "Z": XYZ[..., 0]}), "0 channels Y"),
    ("nothing to read", "exr", exr({"A": XYZ[..., 0]}), "has the channels A"),
    ("normals alone", "exr", exr({f"View.Normal.{name}": XYZ[..., 0] for name in "XYZ"}), "has the channels View."),
    ("colour alone", "exr", exr(rgb_planes(RGB)), "colour alone"),
    ("colour that is nan", "exr",
     exr(rgb_planes(RGB) | {"R": XYZ[..., 0] * np.float32("nan")} | xyz_planes(XYZ)), "nan"),
    ("two of a channel", "exr", exr({"a.Depth.Z": XYZ[..., 0], "b.Depth.Z": XYZ[..., 0]}), "2 channels Z"),
    ("cut off", "exr", without_last(EXR), "incomplete"),
    ("cut in the header", "exr", EXR[:60], "OpenEXR"),
    ("block elsewhere", "exr", first_offset(EXR, 2**60), "outside the file"),
    ("block in the header", "exr", first_offset(EXR, 8), "outside the file"),
    ("an endless block", "exr", exr_bomb, "do not decompress to"),
    ("picture bomb", "exr", EXR.replace(struct.pack("<4i", 0, 0, 4, 5), struct.pack("<4i", 0, 0, 2**30, 5)), "pixels"),
    ("negative window", "exr", EXR.replace(struct.pack("<4i", 0, 0, 4, 5), struct.pack("<4i", 0, 9, 4, 5)), "pixels"),
    ("a part of the picture", "exr",
     EXR.replace(struct.pack("<4i", 0, 0, 4, 5), struct.pack("<4i", 0, 0, 4, 3), 1), "a part of"),
    ("a value of -1 bytes", "exr", EXR.replace(struct.pack("<i", 16), struct.pack("<i", -1), 1), "of -1 bytes"),
    ("header bomb", "npy", header_bomb("(100000, 100000, 3)"), "more than the file or a frame"),
    ("negative shape", "npy", header_bomb("(-1, 5, 3)"), "holds an array of"),
    ("objects", "npy", header_bomb("(5, 5)", "|O"), "holds an array of object"),
    ("code in the header", "npy", header_bomb("__import__('os').getcwd()"), "cannot be read"),
    ("deep header", "npy", header_bomb("(" * 900 + ")" * 900), "cannot be read"),
    ("long header", "npy", header_bomb("(5, 5)" + " " * 20_000), "cannot be read"),
    ("cut off", "npy", without_last(npy(XYZ)), "an array has 359 bytes"),
    ("text", "npy", npy(np.array([["a"]])), "holds an array of"),
    ("one axis", "npy", npy(XYZ.ravel()), "height x width"),
    ("no zip", "npz", b"PK\3\4" + bytes(50), "cannot be read as NPZ"),
    ("zip bomb", "npz", zip_bomb, "cannot be read"),
    ("array bomb in a zip", "npz",
     zip_of(xyz=header_bomb("(16384, 1024, 3)") + bytes(1000)), "more than the file"),
    ("objects in a zip", "npz", zip_of(xyz=header_bomb("(5, 5)", "|O") + bytes(300)), "array of object"),
    ("many members", "npz", zip_of(**{f"a{at}": b"" for at in range(100)}), "more than 64"),
    ("points and depth", "npz", npz(xyz=XYZ, depth=DEPTH, rgb=RGB), "either xyz or depth"),
    ("neither", "npz", npz(points=XYZ, rgb=RGB), "either xyz or depth"),
    ("colour as floats", "npz", npz(xyz=XYZ, rgb=RGB / 255), "holds rgb as float64"),
    ("colour of another size", "npz", npz(xyz=XYZ, rgb=RGB[1:]), "pixel-aligned"),
    ("whole numbers", "npz", npz(xyz=XYZ.astype(np.int32), rgb=RGB), "holds xyz as int32"),
    ("a lens that is none", "npz", npz(depth=DEPTH, rgb=RGB, intrinsics=np.ones((3, 3))), "a matrix that is not"),
    ("a lens of two numbers", "npz", npz(depth=DEPTH, rgb=RGB, intrinsics=np.ones(2)), "shape (2,)"),
    ("depth without a lens", "npz", npz(depth=DEPTH, rgb=RGB), "nothing says through which lens"),
    ("a picture of one byte", "png", b"\x89", "signature is wrong"),
    ("an unknown format", "stl", b"solid", "points come as"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "content", "words"), [one[1:] for one in HOSTILE], ids=[f"{one[1]}: {one[0]}" for one in HOSTILE]
)
def test_refused_by_name_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, content: bytes | Callable[[], bytes], words: str
) -> None:
    if not isinstance(content, bytes):
        content = content()
    path = tmp_path / f"made.{suffix}"
    path.write_bytes(content)
    monkeypatch.setattr(read, "read_file", lambda path, limit, follow: content)  # which asks for memory up to its limit
    tracemalloc.start()
    with pytest.raises(DataError) as refused:
        read_exposure(ExposureFiles(path))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words in str(refused.value) and str(path) in str(refused.value)
    assert most < MOST_BYTES + len(content) or suffix == "png"


def test_the_same_files_are_read_when_nothing_is_wrong(tmp_path: Path) -> None:
    """The control of the table above."""
    for suffix, contents in {
        "ply": (PLY, PLY_TEXT),
        "pcd": (PCD, PCD_TEXT, PACKED, PCD + bytes(99), swapped(PCD, "0 0 0 1 0 0 0", "0 0 0 0 1 0 0")),
        "exr": (EXR,),
    }.items():
        for content in contents:
            frame = read_exposure(writers.one(tmp_path, f"a.{suffix}", content))
            np.testing.assert_array_equal(frame.xyz, XYZ)


def test_a_depth_picture_larger_than_a_frame(tmp_path: Path) -> None:
    """The table of a TIFF allows three times as many numbers, for points."""
    (tmp_path / "a.tiff").write_bytes(writers.tiff(np.zeros((16_384, 1_100), np.uint16), compression="zlib"))
    with pytest.raises(DataError, match="16384 x 1100 pixels"):
        read_exposure(ExposureFiles(tmp_path / "a.tiff"))


@pytest.mark.parametrize("suffix", ["ply", "pcd", "exr", "npz", "npy"])
def test_any_damage_gives_a_frame_or_a_clear_refusal(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(7)
    path = tmp_path / f"a.{suffix}"
    (tmp_path / "c.png").write_bytes(writers.png(RGB))
    whole = {
        "ply": (PLY, PLY_TEXT), "pcd": (PCD, PCD_TEXT, PACKED), "exr": (EXR,), "npz": (npz(True, xyz=XYZ, rgb=RGB),),
        "npy": (npy(XYZ),),
    }[suffix]  # fmt: skip
    outcomes = {"frame": 0, "refused": 0}
    for content in whole:
        for _ in range(120):
            damaged = bytearray(content[: rng.integers(1, len(content) + 1)] if rng.random() < 0.3 else content)
            for at in rng.integers(0, min(len(damaged), 700), rng.integers(0, 4)):
                damaged[at] = rng.integers(0, 256)
            path.write_bytes(damaged)
            try:
                frame = read_exposure(ExposureFiles(path, tmp_path / "c.png"))
                assert frame.xyz is not None and frame.rgb.shape == frame.xyz.shape
                outcomes["frame"] += 1
            except DataError as error:
                assert str(path) in str(error)
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize(
    ("stream", "whole"),
    [
        (b"\x02abc", b"abc"),
        (b"\x00a\xe0\x03\x00", b"a" * 13),  # a copy of a byte, over itself
        (b"\x01ab\x60\x01", b"abababa"),
        (b"\x04abcde\x20\x04", b"abcdeabc"),
        (b"", b""),
    ],
)
def test_lzf(stream: bytes, whole: bytes) -> None:
    assert decompress(stream, len(whole)) == whole


@pytest.mark.parametrize(
    ("stream", "nbytes"),
    [
        (b"\x02ab", 3),  # fewer literals than declared
        (b"\x20\x00", 3),  # a copy from before the beginning
        (b"\x00a\x20\x01", 4),
        (b"\x00a\x3f\xff", 4),
        (b"\x00a\xe0", 10),  # no length
        (b"\x00a\xe0\x05", 15),  # no distance
        (b"\x00a\x20", 4),
        (b"\x00a\xe0\xff\x00" * 1000, 4),  # more than declared
        (b"\x02abc", 4),  # less than declared
    ],
)
def test_lzf_that_is_damaged(stream: bytes, nbytes: int) -> None:
    with pytest.raises(DataError, match="cannot be decompressed"):
        decompress(stream, nbytes)


LENS = {"fx": 20.0, "fy": 21.0, "cx": 2.0, "cy": 2.5}
K = [20.0, 0, 2.0, 0, 21.0, 2.5, 0, 0, 1]


def depth_frame(folder: Path, said: dict[str, Any] | str) -> Any:
    (folder / "lens.json").write_text(said if isinstance(said, str) else json.dumps(said))
    files = writers.two(folder, "a.npy", npy(DEPTH), RGB)
    return read_exposure(files, FileOptions(intrinsics=folder / "lens.json")).intrinsics


def test_lenses_as_programs_write_them(tmp_path: Path) -> None:
    plain = depth_frame(tmp_path, LENS)
    by_columns = [K[3 * column + row] for row in range(3) for column in range(3)]
    for said in (
        {"K": K, "D": [0.0] * 5, "distortion_model": "plumb_bob", "width": 5, "height": 6, "R": [], "binning_x": 0},
        {"k": K, "d": [], "roi": {"x_offset": 0, "y_offset": 0, "width": 5, "height": 6}},
        {"intrinsic_matrix": by_columns, "width": 5, "height": 6},
        {"camera_matrix": [K[:3], K[3:6], K[6:]]},
        {f"_{key}": number for key, number in LENS.items()} | {"_skew": 0.0, "_width": 5, "_height": 6, "_K": 0},
        {"fx": 20, "fy": 21, "ppx": 2, "ppy": 2.5, "model": "distortion.inverse_brown_conrady", "coeffs": [0.0] * 5},
    ):
        assert depth_frame(tmp_path, said) == plain
    bent = depth_frame(tmp_path, LENS | {"model": "plumb_bob", "coefficients": [0.1, 0, 0, 0, 0.2]})
    assert (bent.model, bent.dist) == ("brown_conrady", (0.1, 0, 0, 0, 0.2))
    same = depth_frame(tmp_path, LENS | {"distortion_model": "rational_polynomial", "D": [0.1, 0, 0, 0, 0.2, 0, 0, 0]})
    assert same == bent


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{", "is not JSON"),
        ('{"fx": 1, "fx": 2}', "twice"),
        ('{"fx": NaN}', "NaN"),
        ("[1]", "does not hold what it should"),
        ({}, "nothing says through which lens"),
        ({"fx": 20.0}, "lacks one of fx, fy, cx and cy"),
        (LENS | {"fx": 0}, "above 0"),
        (LENS | {"fx": "20"}, "not a number"),
        (LENS | {"fx": True}, "not a number"),
        (LENS | {"fx": 10**400}, "out of range"),
        (LENS | {"cx": 1e9}, "give pixels"),
        (LENS | {"ppx": 1.0}, "is there twice"),
        (LENS | {"K": K}, "gives the lens twice"),
        ({"K": K[:8]}, "a matrix that is not"),
        ({"K": [20, 1, *K[2:]]}, "without skew"),
        ({"K": "none"}, "not a number"),
        ({"K": [[0] * 99] * 99}, "more than 9"),
        (LENS | {"skew": 0.1}, "skew"),
        (LENS | {"width": 6, "height": 5}, "holds for pictures of 5 x 6"),
        (LENS | {"width": 5}, "give both"),
        (LENS | {"width": 5.5, "height": 6}, "give pixels"),
        (LENS | {"binning_x": 2}, "binning_x above 1"),
        (LENS | {"roi": {"x_offset": 3}}, "part of the sensor"),
        (LENS | {"coeffs": [0.1] * 5, "model": "distortion.inverse_brown_conrady"}, "inverse_brown_conrady' with 5"),
        (LENS | {"coeffs": [0.1] * 8, "model": "rational_polynomial"}, "with 8 coefficients"),
        (LENS | {"coeffs": [0.1] * 4, "model": "equidistant"}, "equidistant"),
        (LENS | {"coeffs": [0.1] * 4}, "distortion model ''"),
        (LENS | {"coeffs": [0.0] * 99}, "more than 16"),
        (LENS | {"coeffs": [0.0], "D": [0.0]}, "distortion twice"),
        (LENS | {"unit": "inch"}, "give m, mm or um"),
        (LENS | {"scale": 0}, "above 0"),
        (LENS | {"depth_scale": 1000}, "write scale"),
        (LENS | {"white_level": 70_000}, "1 to 65535"),
    ],
)  # fmt: skip
def test_lenses_that_are_refused(tmp_path: Path, said: dict[str, Any] | str, words: str) -> None:
    with pytest.raises(DataError) as refused:
        depth_frame(tmp_path, said)
    assert (words in str(refused.value) and "lens.json" in str(refused.value)) or not said
