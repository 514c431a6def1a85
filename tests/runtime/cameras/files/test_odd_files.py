"""Files that programs really write and that look odd: read as they are meant, or refused in words; never guessed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from asperity.runtime.cameras.files.read import ExposureFiles, read_exposure
from asperity.runtime.errors import DataError
from tests.runtime.cameras.files.writers import npy, npz, pcd, ply

RGB = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8)
XYZ = np.random.default_rng(2).normal(0, 300, (6, 5, 3)).astype(np.float32)
HEAD, BODY = ply(RGB, XYZ).split(b"end_header\n", 1)
TEXT_HEAD, TEXT = ply(RGB, XYZ, "ascii").split(b"end_header\n", 1)
PCD = pcd(RGB, XYZ)


def table(order: list[tuple[str, Any]], ply_types: list[str]) -> bytes:
    """A PLY with its properties in another order."""
    rows = np.zeros(30, np.dtype(order))
    for axis, name in enumerate("xyz"):
        rows[name] = XYZ[..., axis].ravel()
    for axis, name in enumerate(("red", "green", "blue")):
        rows[name] = RGB[..., axis].ravel()
    names = "".join(f"property {kind} {name}\n" for kind, (name, _) in zip(ply_types, order, strict=True))
    grid = "obj_info num_cols 5\nobj_info num_rows 6\nelement vertex 30\n"
    return f"ply\nformat binary_little_endian 1.0\n{grid}{names}end_header\n".encode() + rows.tobytes()


def pcd_with_padding() -> bytes:
    """Normals as one field of 3, z before x, and two fields called ``_``, as PCL pads its points."""
    kinds: list[tuple[Any, ...]] = [
        ("normal", "<f4", 3), ("z", "<f4"), ("y", "<f4"), ("x", "<f4"), ("_", "u1", 4), ("rgb", "<u4"),
        ("_2", "u1", 12),
    ]  # fmt: skip
    rows = np.zeros(30, np.dtype(kinds))
    for axis, name in enumerate("xyz"):
        rows[name] = XYZ[..., axis].ravel()
    rows["rgb"] = (RGB.astype("<u4") @ np.array([1 << 16, 1 << 8, 1], "<u4")).ravel()
    head = (
        "VERSION 0.7\nFIELDS normal z y x _ rgb _\nSIZE 4 4 4 4 1 4 1\nTYPE F F F F U U U\nCOUNT 3 1 1 1 4 1 12\n"
        "WIDTH 5\nHEIGHT 6\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 30\nDATA binary\n"
    )
    return head.encode() + rows.tobytes()


BGRA = [("blue", "u1"), ("green", "u1"), ("red", "u1"), ("alpha", "u1"), ("z", "<f4"), ("x", "<f8"), ("y", "<f4")]
READ = {
    "Windows line ends in the header.ply": HEAD.replace(b"\n", b"\r\n") + b"end_header\r\n" + BODY,
    "Windows line ends.ply": (TEXT_HEAD + b"end_header\n" + TEXT).replace(b"\n", b"\r\n"),
    "comments between.ply": HEAD.replace(b"property", b"comment of width 120\nproperty") + b"end_header\n" + BODY,
    "another order, alpha 0.ply": table(BGRA, ["uchar"] * 4 + ["float", "double", "float"]),
    "names of C types.ply": table(BGRA, ["uint8"] * 4 + ["float32", "float64", "float32"]),
    "tabs, blanks at the ends.ply": TEXT_HEAD + b"end_header\n" + TEXT.replace(b" ", b"\t").replace(b"\n", b"  \n"),
    "faces after.ply": HEAD + b"element face 1\nproperty list uchar int i\nend_header\n" + BODY + b"\3" + bytes(12),
    "normals and padding.pcd": pcd_with_padding(),
    "Windows line ends.pcd": PCD[: PCD.index(b"DATA")].replace(b"\n", b"\r\n") + PCD[PCD.index(b"DATA") :],
    "no viewpoint.pcd": PCD.replace(b"VIEWPOINT 0 0 0 1 0 0 0\n", b""),
    "columns first.npz": npz(xyz=np.asfortranarray(XYZ), rgb=np.asfortranarray(RGB)),
    "big-endian doubles.npz": npz(xyz=XYZ.astype(">f8"), rgb=RGB),
}
REFUSED = {
    "list before.ply": (HEAD.replace(b"element", b"element f 1\nproperty list uchar int v\nelement") + b"end_header\n"
                        + b"\3" + bytes(12) + BODY, "a list among its points"),
    "upper case.ply": (HEAD.replace(b"float z", b"float Z") + b"end_header\n" + BODY, "no property z"),
    "comma decimals.ply": (TEXT_HEAD + b"end_header\n" + TEXT.replace(b".", b","), "not 6 numbers"),
    "byte order mark.ply": (b"\xef\xbb\xbf" + TEXT_HEAD + b"end_header\n" + TEXT, "cannot be read as PLY"),
    "names of numpy.npz": (npz(arr_0=XYZ, arr_1=RGB), "must hold either xyz or depth"),
    "channels first.npz": (npz(xyz=XYZ.transpose(2, 0, 1), rgb=RGB), "height x width x 3"),
    "colour as RGBA.npz": (npz(xyz=XYZ, rgb=np.dstack([RGB, RGB[..., :1]])), "height x width x 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_read_as_it_is_meant(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(READ[name])
    frame = read_exposure(ExposureFiles(tmp_path / name))
    np.testing.assert_array_equal(frame.xyz, XYZ)
    np.testing.assert_array_equal(frame.rgb, RGB)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_words(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(REFUSED[name][0])
    with pytest.raises(DataError, match=REFUSED[name][1]):
        read_exposure(ExposureFiles(tmp_path / name))


@pytest.mark.parametrize(
    ("photometric", "picture", "read"),
    [
        ("rgb", RGB, True), ("minisblack", RGB[..., 0], True), ("miniswhite", RGB[..., 0], False),
        ("palette", RGB[..., 0], False), ("ycbcr", RGB, False), ("cielab", RGB, False),
    ],
)  # fmt: skip
def test_colours_of_a_tiff_are_what_its_numbers_say(
    tmp_path: Path, photometric: str, picture: np.ndarray, read: bool
) -> None:
    (tmp_path / "a.npy").write_bytes(npy(XYZ))
    file = io.BytesIO()
    more = {"colormap": np.zeros((3, 256), np.uint16)} if photometric == "palette" else {}
    tifffile.imwrite(file, picture, photometric=photometric, **more)
    (tmp_path / "a.tiff").write_bytes(file.getvalue())
    files = ExposureFiles(tmp_path / "a.npy", tmp_path / "a.tiff")
    if read:
        np.testing.assert_array_equal(read_exposure(files).rgb, np.broadcast_to(picture.reshape(6, 5, -1), RGB.shape))
        return
    with pytest.raises(DataError, match="another way than grey"):
        read_exposure(files)
