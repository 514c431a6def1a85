"""Reading, writing and listing the MVTec 3D-AD layout."""

from __future__ import annotations

import os
import resource
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from asperity.runtime.cameras import mvtec_files as mvtec
from asperity.runtime.cameras.files import folders, parts, pictures
from asperity.runtime.errors import DataError
from tests.deflated import deflated_zeros


def arrays(seed: int = 0, height: int = 5, width: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        rng.normal(size=(height, width, 3)).astype(np.float32),
        rng.random((height, width)) > 0.5,
    )


def write(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        rgb, xyz, _ = arrays(seed)
        mvtec.write_frame(folder, name, rgb, xyz)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    rgb, xyz, mask = arrays()
    mvtec.write_frame(tmp_path, "000", rgb, xyz, mask)
    frame = mvtec.read_frame(tmp_path / "rgb/000.png", tmp_path / "xyz/000.tiff", seq=3, part_id="p", unit="m")
    assert frame.xyz is not None
    np.testing.assert_array_equal(frame.rgb, rgb)
    np.testing.assert_array_equal(frame.xyz, xyz)
    np.testing.assert_array_equal(pictures.read_mask(tmp_path / "gt/000.png"), mask)
    assert (frame.seq, frame.part_id, frame.unit, frame.depth) == (3, "p", "m", None)
    assert frame.rgb.flags.c_contiguous and frame.xyz.flags.c_contiguous


def test_nan_and_zero_points_survive(tmp_path: Path) -> None:
    rgb, xyz, _ = arrays()
    xyz[0, 0], xyz[1, 1] = 0.0, np.nan
    mvtec.write_frame(tmp_path, "0", rgb, xyz)
    np.testing.assert_array_equal(pictures.read_xyz(tmp_path / "xyz/0.tiff"), xyz)


def test_tiff_written_by_another_program(tmp_path: Path) -> None:
    _, xyz, _ = arrays()
    tifffile.imwrite(tmp_path / "a.tiff", xyz, photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tiff", xyz, photometric="minisblack", compression="zlib")
    np.testing.assert_array_equal(pictures.read_xyz(tmp_path / "a.tiff"), xyz)
    np.testing.assert_array_equal(pictures.read_xyz(tmp_path / "b.tiff"), xyz)


def test_grey_and_opaque_alpha_are_converted(tmp_path: Path) -> None:
    rgb, _, _ = arrays()
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(rgb).convert("RGBA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(pictures.read_rgb(tmp_path / "grey.png"), np.repeat(rgb[..., :1], 3, axis=2))
    np.testing.assert_array_equal(pictures.read_rgb(tmp_path / "alpha.png"), rgb)


def test_colour_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    rgb, _, _ = arrays()
    clear = np.dstack([rgb, np.full(rgb.shape[:2], 200, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    Image.fromarray(rgb).save(tmp_path / "jpeg.png", format="JPEG")
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((400, 400, 3), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    for name, word in (
        ("clear", "transparent"), ("deep", "8-bit"), ("jpeg", "PNG picture"), ("text", "cannot be read"),
        ("cut", "cannot be read"), ("absent", "does not exist"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=word):
            pictures.read_rgb(tmp_path / f"{name}.png")


def test_clouds_that_cannot_be_used(tmp_path: Path) -> None:
    _, xyz, _ = arrays()
    tifffile.imwrite(tmp_path / "double.tiff", xyz.astype(np.float64), photometric="rgb")
    tifffile.imwrite(tmp_path / "planar.tiff", np.moveaxis(xyz, 2, 0).copy(), photometric="minisblack")
    tifffile.imwrite(tmp_path / "depth.tiff", xyz[..., 2])
    (tmp_path / "text.tiff").write_text("no cloud")
    tifffile.imwrite(tmp_path / "cut.tiff", xyz, photometric="rgb")
    (tmp_path / "cut.tiff").write_bytes((tmp_path / "cut.tiff").read_bytes()[:100])
    for name, word in (
        ("double", "float64"), ("planar", r"\(3, 5, 7\)"), ("depth", r"\(5, 7\)"), ("text", "cannot be read"),
        ("cut", "cannot be read|shape"), ("absent", "does not exist"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=word):
            pictures.read_xyz(tmp_path / f"{name}.tiff")


def test_pair_of_different_sizes_is_refused(tmp_path: Path) -> None:
    rgb, _, _ = arrays()
    _, other, _ = arrays(height=6)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tiff", other, photometric="rgb")
    with pytest.raises(DataError, match=r"5 x 7 pixels but .* is 6 x 7"):
        mvtec.read_frame(tmp_path / "a.png", tmp_path / "a.tiff")


def test_arrays_that_do_not_belong_together_are_not_written(tmp_path: Path) -> None:
    rgb, xyz, mask = arrays()
    for bad in (
        (rgb.astype(np.float32), xyz, mask), (rgb, xyz.astype(np.float64), mask), (rgb, xyz[:-1], mask),
        (rgb, xyz, mask[:-1]), (rgb, xyz, mask.astype(np.uint8)),
    ):  # fmt: skip
        with pytest.raises(DataError):
            mvtec.write_frame(tmp_path, "0", *bad)
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    rgb, xyz, _ = arrays()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        mvtec.write_frame(tmp_path / "file", "0", rgb, xyz)


def test_listing_a_product(tmp_path: Path) -> None:
    write(tmp_path / "test/hole", "000")
    write(tmp_path / "train/good", "10", "9", "2")
    write(tmp_path / "validation/good", "0")
    write(tmp_path / "test/bump", "1")
    rgb, xyz, mask = arrays()
    mvtec.write_frame(tmp_path / "test/good", "7", rgb, xyz, mask)
    (tmp_path / "calibration").mkdir()
    samples = folders.list_samples(tmp_path)
    assert [s.name for s in samples] == [
        "train/good/2", "train/good/9", "train/good/10", "validation/good/0", "test/good/7", "test/bump/1",
        "test/hole/000",
    ]  # fmt: skip
    assert [(s.split, s.defect) for s in samples[2:6]] == [
        ("train", "good"), ("validation", "good"), ("test", "good"), ("test", "bump")
    ]  # fmt: skip
    assert samples[4].gt == tmp_path / "test/good/gt/7.png" and samples[5].gt is None


def test_listing_a_split_and_a_bare_folder(tmp_path: Path) -> None:
    write(tmp_path / "p/test/bump", "1", "0")
    write(tmp_path / "bare", "b2", "b10")
    assert [(s.name, s.split, s.defect) for s in folders.list_samples(tmp_path / "p/test")] == [
        ("bump/0", "test", "bump"), ("bump/1", "test", "bump")
    ]  # fmt: skip
    assert [(s.name, s.split, s.defect) for s in folders.list_samples(tmp_path / "p/test/bump")] == [
        ("0", "test", "bump"), ("1", "test", "bump")
    ]  # fmt: skip
    assert [(s.name, s.split, s.defect) for s in folders.list_samples(tmp_path / "bare")] == [
        ("b2", "", ""),
        ("b10", "", ""),
    ]


def test_half_pairs_are_named(tmp_path: Path) -> None:
    write(tmp_path / "train/good", "0", "1", "2")
    (tmp_path / "train/good/xyz/1.tiff").unlink()
    with pytest.raises(DataError, match=r"1 frame\(s\) lack their xyz.*: 1;"):
        folders.list_samples(tmp_path)
    (tmp_path / "train/good/rgb/1.png").unlink()
    (tmp_path / "train/good/rgb/2.png").unlink()
    with pytest.raises(DataError, match=r"lack their rgb.*: 2;"):
        folders.list_samples(tmp_path)


def test_folders_that_hold_no_product(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        folders.list_samples(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no frames"):
        folders.list_samples(tmp_path)
    write(tmp_path / "bagel/train/good", "0")
    write(tmp_path / "tire/train/good", "0")
    with pytest.raises(DataError, match=r"several products \(bagel, tire\)"):
        folders.list_samples(tmp_path)


def test_parts_beside_the_frames(tmp_path: Path) -> None:
    write(tmp_path / "p/train/good", "0", "1")
    write(tmp_path / "p/test/bump", "0")
    table = tmp_path / "p/parts.csv"
    assert parts.read_parts(tmp_path / "p", folders.list_samples(tmp_path / "p")) == {}
    table.write_text("name,part_id,defect\ntrain/good/0,A7,\ntrain/good/1,A8,\ntest/bump/0,A7,bump\n")
    for folder, expected in (
        ("p", {"train/good/0": "A7", "train/good/1": "A8", "test/bump/0": "A7"}),
        ("p/test", {"bump/0": "A7"}),
        ("p/train/good", {"0": "A7", "1": "A8"}),
    ):
        assert parts.read_parts(tmp_path / folder, folders.list_samples(tmp_path / folder)) == expected
    table.write_text("name,part_id\ntrain/good/0,A7\ntest/bump/0,A7\n")
    with pytest.raises(DataError, match="names no part for train/good/1"):
        parts.read_parts(tmp_path / "p", folders.list_samples(tmp_path / "p"))
    table.write_text("frame;part\n0;1\n")
    with pytest.raises(DataError, match="columns name and part_id"):
        parts.read_parts(tmp_path / "p", folders.list_samples(tmp_path / "p"))


def png_of(side: int) -> bytes:
    """A PNG that says that it is ``side`` x ``side`` pixels, and is a few hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [5000, 17_000, 100_000, 2**31 - 1])
def test_a_picture_larger_than_a_frame_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of(side))
    for read in (pictures.read_rgb, pictures.read_mask):
        with pytest.raises(DataError, match=rf"bomb\.png (is {side} x {side} pixels|has more than \d+ pixels)"):
            read(tmp_path / "bomb.png")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


@pytest.mark.parametrize("tiled", [False, True])
def test_a_cloud_that_inflates_beyond_its_size_is_refused_in_little_memory(tmp_path: Path, tiled: bool) -> None:
    path = tmp_path / "bomb.tiff"
    shape = {"tile": (16, 16)} if tiled else {}
    tifffile.imwrite(path, np.zeros((16, 16, 3), np.float32), photometric="rgb", compression="zlib", **shape)
    with tifffile.TiffFile(path) as tiff:
        names = (324, 325) if tiled else (273, 279)  # offsets and byte counts of the tiles or strips
        tags = [tiff.pages.first.tags[name] for name in names]
        places = [(tag.valueoffset, {3: 2, 4: 4, 16: 8}[int(tag.dtype)]) for tag in tags]
    bomb = deflated_zeros(60)
    data = bytearray(path.read_bytes())
    for (at, width), value in zip(places, (len(data), len(bomb)), strict=True):
        data[at : at + width] = value.to_bytes(width, "little")
    path.write_bytes(bytes(data) + bomb)
    before_mb = peak_mb()
    with pytest.raises(DataError, match="decompresses to more than its declared size"):
        pictures.read_xyz(path)
    assert peak_mb() - before_mb < 200


def test_a_cloud_of_a_shape_beyond_a_frame_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tiff"
    tifffile.imwrite(path, np.zeros((5, 7, 3), np.float32), photometric="rgb")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        for tag in (256, 257, 278):  # width, length, rows a strip
            found = tiff.pages.first.tags[tag]
            width = 2 if int(found.dtype) == 3 else 4
            data[found.valueoffset : found.valueoffset + width] = (65_000).to_bytes(width, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"bomb\.tiff has shape \(65000, 65000, 3\)"):
        pictures.read_xyz(path)


def test_a_compression_that_nothing_bounds_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", np.zeros((5, 7, 3), np.float32), photometric="rgb", compression="lzma")
    with pytest.raises(DataError, match="has compression 34925; write it without compression, or with zlib"):
        pictures.read_xyz(tmp_path / "a.tiff")


@pytest.mark.parametrize("name", ["rgb.png", "xyz.tiff"])
def test_a_pipe_a_device_and_a_huge_file_in_a_data_set_are_refused(tmp_path: Path, name: str) -> None:
    read = pictures.read_rgb if name.endswith("png") else pictures.read_xyz
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(DataError, match="it is a pipe"):
        read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is a device"):
        read(path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="larger than"):
        read(path)


def test_a_link_to_a_frame_in_a_data_set_is_followed(tmp_path: Path) -> None:
    rgb, xyz, _ = arrays()
    mvtec.write_frame(tmp_path / "real", "0", rgb, xyz)
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "0.png").symlink_to(tmp_path / "real/rgb/0.png")
    np.testing.assert_array_equal(pictures.read_rgb(tmp_path / "0.png"), rgb)
    np.testing.assert_array_equal(pictures.read_xyz(tmp_path / "linked/xyz/0.tiff"), xyz)
