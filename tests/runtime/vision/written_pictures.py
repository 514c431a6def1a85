"""PNG and TIFF files of every form, written by hand where no program does, with what is to be read from each."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import tifffile

from asperity.runtime.vision.picture_files import ADAM7

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
NOISE = np.random.default_rng(3)


def chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def packed(values: np.ndarray, bits: int) -> bytes:
    """One row of a pass: the highest bits first, the last byte filled up."""
    if bits == 16:
        return values.astype(">u2").tobytes()
    levels = (values.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(levels.astype(np.uint8)).tobytes()


def rows_of(values: np.ndarray, bits: int, interlaced: bool = False) -> bytes:
    """The pixels before they are deflated: H x W x C values, each row behind its filter's number, which is none."""
    rows = b""
    for row0, column0, down, right in ADAM7 if interlaced else ((0, 0, 1, 1),):
        one = values[row0::down, column0::right]
        rows += b"".join(b"\0" + packed(row, bits) for row in one) if one.size else b""
    return rows


def png(
    values: np.ndarray, colour: int, bits: int, *extra: bytes, interlaced: bool = False, pixels: bytes | None = None,
    after: bytes = b"",
) -> bytes:  # fmt: skip
    """A PNG written by hand. ``values``: H x W x C, ``extra`` and ``after``: chunks around the pixels."""
    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    raw = rows_of(values, bits, interlaced) if pixels is None else pixels
    body = b"".join(extra) + chunk(b"IDAT", zlib.compress(raw)) + after
    return SIGNATURE + chunk(b"IHDR", head) + body + chunk(b"IEND")


def stored(colour: int, bits: int, height: int = 5, width: int = 7) -> np.ndarray:
    """Random values of that form, opaque where there is an alpha channel."""
    values = NOISE.integers(0, 2**bits, (height, width, CHANNELS[colour]), dtype=np.uint16)
    if colour in (GREY_ALPHA, RGB_ALPHA):
        values[..., -1] = 2**bits - 1
    return values


def as_rgb(values: np.ndarray, colour: int, bits: int) -> np.ndarray:
    """What a frame gets by the stated rule: 255 for the highest value of fewer bits, and 8 bits as they are."""
    colours = values[..., : -1 if colour in (GREY_ALPHA, RGB_ALPHA) else None].astype(int) * 255 // (2**bits - 1)
    return np.broadcast_to(colours, (*colours.shape[:2], 3)).astype(np.uint8)


COLOURS = NOISE.integers(0, 256, (256, 3), dtype=np.uint8)


def palette(bits: int, count: int | None = None) -> bytes:
    return chunk(b"PLTE", COLOURS[: count or 2**bits].tobytes())


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 274, 3, 1, orientation, 0)
    return chunk(b"eXIf", b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4))


RGB8 = stored(RGB, 8).astype(np.uint8)
GREY8, DEEP = stored(GREY, 8), "has 16 bits per channel, and a frame has 8"
PALETTE4 = np.minimum(stored(PALETTE, 4), 9)

Row = tuple[str, bytes, "np.ndarray | str"]
PNG_ROWS: list[Row] = [
    *[(f"grey {n}", png(v := stored(GREY, n), GREY, n), as_rgb(v, GREY, n)) for n in (1, 2, 4, 8)],
    *[(f"palette {n}", png(v := stored(PALETTE, n), PALETTE, n, palette(n)), COLOURS[v[..., 0]]) for n in (1, 2, 4, 8)],
    ("RGB 8", png(RGB8, RGB, 8), RGB8),
    ("grey with alpha 8", png(v := stored(GREY_ALPHA, 8), GREY_ALPHA, 8), as_rgb(v, GREY_ALPHA, 8)),
    ("RGB with alpha 8", png(v := stored(RGB_ALPHA, 8), RGB_ALPHA, 8), as_rgb(v, RGB_ALPHA, 8)),
    *[
        (f"colour type {c}, 16 bits", png(stored(c, 16), c, 16), DEEP)
        for c in (GREY, RGB, GREY_ALPHA, RGB_ALPHA)
    ],
    ("12 bits in 16", png(stored(RGB, 12), RGB, 16, chunk(b"sBIT", b"\x0c\x0c\x0c")), DEEP),
    ("8 bits in 16", png(stored(RGB, 8), RGB, 16, chunk(b"sBIT", b"\x08\x08\x08")), DEEP),
    *[
        (f"interlaced {c} {n}", png(v := stored(c, n, *size), c, n, interlaced=True), as_rgb(v, c, n))
        for c, n in ((GREY, 1), (GREY, 4), (RGB, 8), (RGB_ALPHA, 8))
        for size in ((1, 1), (2, 3), (9, 17))
    ],
    ("interlaced 16", png(stored(RGB, 16), RGB, 16, interlaced=True), DEEP),
    *[
        (f"{n} wide", png(v := stored(c, bits, 3, n), c, bits), as_rgb(v, c, bits))
        for n in (1, 3, 9) for c, bits in ((GREY, 1), (GREY, 2), (GREY, 4), (RGB, 8))
    ],
    # What says how to show a picture changes none of its values: a camera's message has none of it.
    ("gamma", png(RGB8, RGB, 8, chunk(b"gAMA", struct.pack(">I", 100_000))), RGB8),
    ("sRGB", png(RGB8, RGB, 8, chunk(b"sRGB", b"\0")), RGB8),
    ("profile", png(RGB8, RGB, 8, chunk(b"iCCP", b"p\0\0" + zlib.compress(b"profile"))), RGB8),
    ("chromaticities", png(RGB8, RGB, 8, chunk(b"cHRM", bytes(32))), RGB8),
    ("5 significant bits", png(RGB8, RGB, 8, chunk(b"sBIT", b"\x05\x06\x05")), RGB8),
    ("background", png(RGB8, RGB, 8, chunk(b"bKGD", bytes(6))), RGB8),
    ("suggested palette", png(RGB8, RGB, 8, palette(8)), RGB8),
    ("text", png(RGB8, RGB, 8, chunk(b"tEXt", b"Title\0part")), RGB8),
    ("a colour that no pixel has is transparent", png(GREY8 | 1, GREY, 8, chunk(b"tRNS", b"\0\0")),
     as_rgb(GREY8 | 1, GREY, 8)),
    ("transparent grey", png(GREY8 * 0 + 4, GREY, 8, chunk(b"tRNS", b"\0\x04")), "transparent pixels"),
    ("transparent RGB", png(RGB8 * 0, RGB, 8, chunk(b"tRNS", bytes(6))), "transparent pixels"),
    ("transparent palette", png(PALETTE4, PALETTE, 4, palette(4), chunk(b"tRNS", bytes(16))), "transparent pixels"),
    ("opaque palette", png(PALETTE4, PALETTE, 4, palette(4), chunk(b"tRNS", b"\xff" * 16)), COLOURS[PALETTE4[..., 0]]),
    ("transparent alpha", png(RGB8.repeat(2, 2)[..., :4] & 0x7F, RGB_ALPHA, 8), "transparent pixels"),
    ("palette whole", png(PALETTE4, PALETTE, 4, palette(4, 10)), COLOURS[PALETTE4[..., 0]]),
    ("palette too short", png(PALETTE4 * 0 + 5, PALETTE, 4, palette(4, 5)), "colours that its palette does not have"),
    ("palette missing", png(PALETTE4, PALETTE, 4), "palette is missing or there twice"),
    ("palette twice", png(PALETTE4, PALETTE, 4, palette(4), palette(4)), "palette is missing or there twice"),
    ("palette of 16 bits", png(stored(PALETTE, 8), PALETTE, 16, palette(8)), "colour type 3 with 16 bits"),
    ("RGB of 4 bits", png(RGB8 & 15, RGB, 4), "colour type 2 with 4 bits"),
    ("colour type 5", png(GREY8, 5, 8), "colour type 5 with 8 bits"),
    ("as stored", png(RGB8, RGB, 8, exif(1)), RGB8),
    *[(f"turned {n}", png(RGB8, RGB, 8, exif(n)), f"EXIF orientation {n}") for n in (2, 3, 6, 8)],
    ("turned, behind the pixels", png(RGB8, RGB, 8, after=exif(6)), "EXIF orientation 6"),
    ("animation", png(RGB8, RGB, 8, chunk(b"acTL", struct.pack(">II", 1, 0))), "an animation"),
    ("CgBI", SIGNATURE + chunk(b"CgBI", b"\x50\0\x20\2") + png(RGB8, RGB, 8)[8:], "does not begin with its header"),
    ("unknown critical chunk", png(RGB8, RGB, 8, chunk(b"QQQQ")), "without which it must not be read"),
    ("header twice", png(RGB8, RGB, 8, png(RGB8, RGB, 8)[8:33]), "does not begin with its header"),
    ("zero rows", png(RGB8[:0], RGB, 8), "is 0 x 7 pixels"),
    ("zero columns", png(RGB8[:, :0], RGB, 8), "is 5 x 0 pixels"),
    ("a row missing", png(RGB8, RGB, 8, pixels=rows_of(RGB8, 8)[:-22]), "its pixels have 88 bytes, not 110"),
    ("a row too much", png(RGB8, RGB, 8, pixels=rows_of(RGB8, 8) + bytes(22)), "have more than 110 bytes"),
    ("unknown filter", png(RGB8, RGB, 8, pixels=b"\x07" + rows_of(RGB8, 8)[1:]), "cannot be read as a PNG"),
    ("no pixels", png(RGB8, RGB, 8).replace(b"IDAT", b"tEXt"), "wrong checksum of its chunk b'tEXt'"),
    ("pixels in two places", png(RGB8, RGB, 8, chunk(b"IDAT"), chunk(b"tEXt", b"a\0b")), "not in one piece"),
    ("cut off", png(RGB8, RGB, 8)[:-20], "it is cut off"),
    ("end missing", png(RGB8, RGB, 8)[:-12], "it is cut off"),
    ("something behind it", png(RGB8, RGB, 8) + b"more", RGB8),
]  # fmt: skip


CLOUD = NOISE.normal(size=(5, 7, 3)).astype(np.float32)
CLOUD[1, 2] = np.nan


def tiff(array: np.ndarray = CLOUD, *more: np.ndarray, tags: dict[int, int] | None = None, **how: Any) -> bytes:
    """A TIFF of these arrays; ``tags``: numbers that are put in place of those of its first page."""
    how = {"photometric": "rgb", "metadata": None} | how
    file = BytesIO()
    with tifffile.TiffWriter(file, byteorder=how.pop("byteorder", "<"), bigtiff=how.pop("bigtiff", False)) as writer:
        writer.write(array, **how)
        for other in more:
            writer.write(other, photometric="rgb" if other.ndim == 3 else "minisblack", metadata=None)
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(BytesIO(data)) as written:
        for code, value in (tags or {}).items():
            tag = written.pages.first.tags[code]
            width = {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
            for at in range(tag.count):
                place = tag.valueoffset + at * width
                data[place : place + width] = value.to_bytes(width, "little")
    return bytes(data)


def planes(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 2, 0).copy()


def tagged(code: int, value: int, **how: Any) -> bytes:
    """A TIFF with a tag that tifffile does not write: it is written under the next number."""
    data = tiff(extratags=[(code + 1, 3, 1, value, True)], **how)
    assert data.count(struct.pack("<HHI", code + 1, 3, 1)) == 1
    return data.replace(struct.pack("<HHI", code + 1, 3, 1), struct.pack("<HHI", code, 3, 1))


PLANES = "stores x, y and z in separate planes"
TIFF_ROWS: list[Row] = [
    ("float32", tiff(), CLOUD),
    ("described by tifffile", tiff(metadata={}), CLOUD),
    ("grey of three samples", tiff(photometric="minisblack", metadata={}), CLOUD),
    ("a page for each row", tiff(photometric="minisblack"), CLOUD),
    ("big endian", tiff(byteorder=">"), CLOUD),
    ("BigTIFF", tiff(bigtiff=True), CLOUD),
    ("big endian BigTIFF", tiff(bigtiff=True, byteorder=">"), CLOUD),
    ("tiles", tiff(tile=(16, 16)), CLOUD),
    ("strips", tiff(rowsperstrip=2), CLOUD),
    ("zlib", tiff(compression="zlib"), CLOUD),
    ("zlib, strips", tiff(compression="zlib", rowsperstrip=2), CLOUD),
    ("zlib, tiles, big endian", tiff(compression="zlib", tile=(16, 16), byteorder=">"), CLOUD),
    ("one pixel", tiff(CLOUD[:1, :1]), CLOUD[:1, :1]),
    *[
        (kind, tiff(np.nan_to_num(CLOUD).astype(kind)), f"holds {np.dtype(kind)} values; the point cloud")
        for kind in ("u1", "u2", "i2", "u4", "i4", "f2", "f8", "u8", "c8")
    ],
    ("float24", tiff(tags={258: 24}), "has values of 24 bits"),
    ("no multiple of 8 bits", tiff(tags={258: 12}), "cannot be read|has values of 12 bits"),
    ("reversed bits", tagged(266, 2), "in reversed order of bits"),
    ("separate planes", tiff(planes(CLOUD), planarconfig="separate"), PLANES),
    ("separate planes, 3 wide", tiff(planes(CLOUD[:, :3]), planarconfig="separate"), PLANES),
    ("x, y and z as pages", tiff(planes(CLOUD), photometric="minisblack"), r"has shape \(3, 5, 7\)"),
    ("depth only", tiff(CLOUD[..., 2], photometric="minisblack"), r"has shape \(5, 7\)"),
    ("two values", tiff(CLOUD[..., :2].copy(), photometric="minisblack", planarconfig="contig"), r"shape \(5, 7, 2\)"),
    ("with intensity", tiff(np.dstack([CLOUD, CLOUD[..., 2]]), extrasamples=["unspecified"]), r"shape \(5, 7, 4\)"),
    ("two clouds", tiff(CLOUD, CLOUD), r"has shape \(2, 5, 7, 3\)"),
    ("a cloud and its depth", tiff(CLOUD, CLOUD[..., 2]), r"holds 2 arrays \(\(5, 7, 3\), \(5, 7\)\)"),
    *[
        (f"compression {n}", tiff(tags={259: n}), f"has compression {n}; write it without compression, or with zlib")
        for n in (5, 7, 32773, 34925, 50000)
    ],
    *[
        (f"predictor {n}", tagged(317, n, compression="zlib"), f"has predictor {n}")
        for n in (2, 3)
    ],
    ("as stored", tiff(extratags=[(274, 3, 1, 1, True)]), CLOUD),
    *[(f"turned {n}", tiff(extratags=[(274, 3, 1, n, True)]), f"orientation {n}") for n in (2, 3, 6, 8)],
    ("zero rows", tiff(tags={257: 0}), "is 0 x 7 pixels|cannot be read"),
    ("too wide", tiff(tags={256: 20_000}), "is 5 x 20000 pixels"),
    *[
        (f"{what}{', zlib' if how else ''}", tiff(tags={code: value}, **how), "is incomplete")
        for how in ({}, {"compression": "zlib"})
        for what, code, value in (
            ("no strip", 273, 0), ("empty strip", 279, 0), ("short strip", 279, 20), ("strip elsewhere", 273, 10**6)
        )
    ],
    ("half of the strips", tiff(rowsperstrip=5, tags={278: 2}), "has 1 strips or tiles, not 3"),
    ("cut off", tiff()[:-50], "is incomplete"),
    ("not a TIFF", b"no cloud", "cannot be read as a TIFF"),
    ("empty", b"", "cannot be read as a TIFF"),
]  # fmt: skip
