"""Verify and open a bundle: one signed folder is one inspectable product (architecture, "Bundle").

Order of the checks: signature, manifest, list of files, hashes, then the files' contents. Nothing is parsed before its
bytes are known to be the ones a trusted key signed, and every later read is hashed again, so that what is used is what
was verified. The gate judges the golden frames (``runtime.engines.parity_gate``), since that needs an engine.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from asperity.runtime.bundle.banks import Banks, read_banks
from asperity.runtime.bundle.checks import (
    ADAPTOR_GRAPHS,
    BANKS_FILE,
    FROZEN_GRAPHS,
    FULL_GRAPH,
    INPUTS_FILE,
    check_banks,
    check_graph,
    check_heights,
    check_inputs,
    check_manifest,
    check_same_weights,
    file_limits,
    graph_names,
    load_tensors,
)
from asperity.runtime.bundle.surfaces import HEIGHTS_FILE, height_model
from asperity.runtime.errors import BundleError, DataError, SignatureError
from asperity.runtime.files import open_file, read_file, shown
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Frame, Prepared, Silhouette, Window
from asperity.runtime.manifest import FORMAT, File, GoldenFrame, Manifest
from asperity.runtime.security.signing_keys import TrustStore, check_signature
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json
from asperity.runtime.vision.height_residual import HeightModel
from asperity.runtime.vision.picture_files import decode_tiff, open_png

__all__ = ["ADAPTOR_GRAPHS", "FROZEN_GRAPHS", "Bundle", "CalibrationInputs", "open_bundle"]

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "signature"
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_SIGNATURE_BYTES = 4096
MAX_FILES = 256
MAX_BUNDLE_BYTES = 16 * 2**30
HASHED_AT_ONCE_BYTES = 2**20
SAFE_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/){0,2}[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
WIRE_DIGITS = 12
COPY_AGAIN = "copy the bundle again or export it again"


@dataclass(frozen=True, slots=True)
class CalibrationInputs:
    """Model inputs of the frames that set the threshold, and what the reference said of them (lsfa 11)."""

    image: ByteArray  # n x image_px x image_px x 3
    cloud: FloatArray  # n x cloud_px x cloud_px x 3, mm
    inspect: BoolArray  # n x grid x grid
    scores: FloatArray  # n, fused scores by the torch reference
    side_px: int
    geometry: ByteArray | None = None  # n x image_px x image_px x 3
    height: FloatArray | None = None  # n x grid^2 x H
    descriptor: FloatArray | None = None  # n x grid^2 x D

    def __len__(self) -> int:
        return len(self.scores)

    def prepared(self, index: int) -> Prepared:
        """One input as an engine takes it. Window and silhouette are not stored: they do not enter a score."""
        return Prepared(
            image=self.image[index],
            cloud=self.cloud[index],
            inspect=self.inspect[index],
            window=Window(x_px=0, y_px=0, side_px=self.side_px),
            silhouette=Silhouette(area_mm2=0.0, length_mm=0.0, width_mm=0.0, height_mm=0.0, missing_share=0.0),
            geometry=None if self.geometry is None else self.geometry[index],
            height=None if self.height is None else self.height[index],
            descriptor=None if self.descriptor is None else self.descriptor[index],
        )


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose bytes are the ones listed in ``manifest``. Made by ``open_bundle``, which verifies everything."""

    path: Path
    manifest: Manifest
    digest: str
    """sha256 of the manifest's bytes, hex; the bundle's identity."""
    key_id: str
    """The trusted key that signed it."""

    @property
    def wire_id(self) -> str:
        """The digest's first 12 digits: ``bundle`` in results and states."""
        return self.digest[:WIRE_DIGITS]

    def read(self, name: str) -> bytes:
        """A listed file's bytes, hashed at this read. Raises BundleError when they are not the signed ones."""
        for file in self.manifest.files:
            if file.path == name:
                return _read_listed(self.path, file)
        raise BundleError(f"bundle {self.path} has no file {name}; {COPY_AGAIN}")

    def graph_names(self) -> tuple[str, ...]:
        """The ONNX graphs this bundle has, without ``.onnx``."""
        return graph_names(self.manifest.network)

    def graph(self, name: str) -> bytes:
        """An ONNX graph's bytes by its name without ``.onnx``."""
        return self.read(f"{name}.onnx")

    def banks(self) -> Banks:
        """Both memory banks; checked for shape, dtype and finiteness."""
        tensors = load_tensors(self.read(BANKS_FILE), BANKS_FILE)
        check_banks(tensors, self.manifest)
        return read_banks(tensors, self.manifest.decision)

    def heights(self) -> HeightModel | None:
        """The mean part, where heights are a modality; checked for shape, dtype and finiteness."""
        if self.manifest.network.height is None:
            return None
        tensors = load_tensors(self.read(HEIGHTS_FILE), HEIGHTS_FILE)
        check_heights(tensors, self.manifest)
        return height_model(tensors)

    def calibration_inputs(self) -> CalibrationInputs:
        """Inputs of the calibration frames, for engines that take their own threshold."""
        tensors = load_tensors(self.read(INPUTS_FILE), INPUTS_FILE)
        check_inputs(tensors, self.manifest)
        return CalibrationInputs(
            image=tensors["image"],
            cloud=tensors["cloud"],
            inspect=tensors["inspect"].astype(bool),
            scores=tensors["scores"].astype(np.float32),
            side_px=self.manifest.geometry.side_px,
            geometry=tensors.get("geometry"),
            height=tensors.get("height"),
            descriptor=tensors.get("descriptor"),
        )

    def golden_frames(self) -> Iterator[tuple[GoldenFrame, Frame]]:
        """The golden frames as a camera would send them, with what the exporter's engine said of each."""
        for seq, golden in enumerate(self.manifest.golden):
            yield golden, self._golden_frame(golden, seq)

    def _golden_frame(self, golden: GoldenFrame, seq: int) -> Frame:
        geometry = self.manifest.geometry
        rgb_name, xyz_name = f"golden/rgb/{golden.name}.png", f"golden/xyz/{golden.name}.tiff"
        rgb = _decode_png(self.read(rgb_name), rgb_name, geometry.height_px, geometry.width_px, "RGB")
        try:
            xyz = decode_tiff(self.read(xyz_name))
        except DataError as error:
            raise BundleError(f"bundle file {xyz_name} {error}; export the bundle again") from None
        if xyz.shape != rgb.shape or xyz.dtype != np.float32:
            raise BundleError(
                f"bundle file {xyz_name} is {xyz.dtype} {xyz.shape}, not float32 {rgb.shape}; {COPY_AGAIN}"
            )
        return Frame(
            camera="golden", camera_session="golden", seq=seq, rgb=rgb, xyz=xyz, unit=geometry.unit, part_id=golden.name
        )

    def inspect_mask(self) -> BoolArray | None:
        """height_px x width_px, True where the recipe inspects; None: everywhere."""
        return self._mask(self.manifest.geometry.inspect_mask)

    def ignore_mask(self) -> BoolArray | None:
        """height_px x width_px, True where the recipe ignores; None: nowhere."""
        return self._mask(self.manifest.geometry.ignore_mask)

    def _mask(self, name: str | None) -> BoolArray | None:
        if name is None:
            return None
        geometry = self.manifest.geometry
        mask: BoolArray = _decode_png(self.read(name), name, geometry.height_px, geometry.width_px, "L") != 0
        return mask


def open_bundle(path: Path, trust: TrustStore) -> Bundle:
    """Verify everything about a bundle that can be verified without an engine, and open it.

    Raises SignatureError (absent, wrong or by a key that is not trusted) or BundleError; each names the file, what is
    wrong with it and what to do. Code that scores with the bundle must also call ``engines.parity_gate.pass_gate``.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(
            f"there is no bundle at {path}; give the folder written by `asperity calibrate` or `asperity export`"
        )
    manifest_bytes = read_manifest(path)
    if not (path / SIGNATURE_FILE).exists():
        raise SignatureError(f"bundle {path} is not signed (no file signature); export it again")
    key_id = check_signature(manifest_bytes, _read_bounded(path, SIGNATURE_FILE, MAX_SIGNATURE_BYTES), trust, path)
    manifest = decode_manifest(manifest_bytes, path)
    _check_listing(path, manifest)
    bundle = Bundle(path=path, manifest=manifest, digest=hashlib.sha256(manifest_bytes).hexdigest(), key_id=key_id)
    check_contents(bundle)
    return bundle


def read_manifest(path: Path) -> bytes:
    """The bytes of a bundle's ``manifest.json``, whose they may be. Raises BundleError."""
    return _read_bounded(path, MANIFEST_FILE, MAX_MANIFEST_BYTES)


def decode_manifest(data: bytes, path: Path) -> Manifest:
    """``manifest.json`` as types. Raises BundleError for another format, unknown fields and impossible values."""

    class Format(msgspec.Struct):
        format: int

    try:
        found = decode_json(data, Format).format
        if found != FORMAT:
            raise BundleError(
                f"bundle {path} has format {found}, but this version of Asperity opens format {FORMAT}; export it "
                "again with the "
                "version installed here"
            )
        manifest = decode_json(data, Manifest)
    except TextRefused as error:
        raise BundleError(f"bundle {path}: manifest.json cannot be used ({error}); {COPY_AGAIN}") from None
    try:
        check_manifest(manifest)
    except BundleError as error:
        raise BundleError(f"bundle {path}: manifest.json {error}; export it again") from None
    return manifest


def check_contents(bundle: Bundle) -> None:
    """Read every file: hashes, graphs, banks, calibration inputs, golden frames, masks. Raises BundleError."""
    for name in bundle.graph_names():
        check_graph(bundle.graph(name), name, bundle.manifest.network)
    if FULL_GRAPH in bundle.graph_names():
        check_same_weights(bundle.graph("adaptor_points"), bundle.graph(FULL_GRAPH))
    bundle.banks()
    bundle.heights()
    bundle.calibration_inputs()
    for _ in bundle.golden_frames():
        pass
    for mask, name in ((bundle.inspect_mask(), "inspect"), (bundle.ignore_mask(), "ignore")):
        if mask is not None and (mask.all() if name == "ignore" else not mask.any()):
            raise BundleError(f"bundle {bundle.path}: the {name} mask leaves nothing to judge; draw it again")


def _check_listing(path: Path, manifest: Manifest) -> None:
    """The folder holds exactly the files that the manifest lists, and those are the ones a bundle has."""
    listed: dict[str, File] = {}
    for file in manifest.files:
        if not SAFE_PATH.fullmatch(file.path) or ".." in file.path:
            raise BundleError(
                f"bundle {path}: manifest.json lists {file.path!r}, which is not a path inside the bundle"
            )
        if file.path in listed:
            raise BundleError(f"bundle {path}: manifest.json lists {file.path} twice; {COPY_AGAIN}")
        listed[file.path] = file
    if sum(file.nbytes for file in manifest.files) > MAX_BUNDLE_BYTES:
        raise BundleError(f"bundle {path} lists more than {MAX_BUNDLE_BYTES} bytes; export it with smaller banks")
    limits = file_limits(manifest)
    expected = limits.keys()
    if missing := sorted(expected - listed.keys()):
        raise BundleError(f"bundle {path}: manifest.json does not list {missing[0]}; {COPY_AGAIN}")
    if strange := sorted(listed.keys() - expected):
        raise BundleError(
            f"bundle {path}: manifest.json lists {shown(strange[0])}, which does not belong in a bundle; {COPY_AGAIN}"
        )
    for name, file in listed.items():
        if not 0 < file.nbytes <= limits[name]:
            raise BundleError(
                f"bundle {path}: {name} is listed with {file.nbytes} bytes, and what the manifest describes takes "
                f"at most {limits[name]}; export the bundle again"
            )
    present = _files_below(path)
    if missing := sorted(listed.keys() - present):
        raise BundleError(f"bundle {path} is incomplete: {missing[0]} is missing; {COPY_AGAIN}")
    if strange := sorted(present - listed.keys() - {MANIFEST_FILE, SIGNATURE_FILE}):
        raise BundleError(
            f"bundle {path} holds {shown(strange[0])}, which manifest.json does not list; remove that file"
        )


def _files_below(path: Path) -> set[str]:
    """Relative paths of all files. Raises BundleError on links, devices, and more files than a bundle may have."""
    found: set[str] = set()
    folders = [path]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = Path(entry.path).relative_to(path).as_posix()
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        found.add(name)
                    else:
                        raise BundleError(f"bundle {path}: {shown(name)} is a link or device, not a file; {COPY_AGAIN}")
                    if len(found) + len(folders) > MAX_FILES:
                        raise BundleError(f"bundle {path} holds more than {MAX_FILES} files; this is not a bundle")
        except OSError as error:
            raise BundleError(
                f"bundle folder {shown(folder)} cannot be listed ({error.strerror}); make it readable"
            ) from None
    return found


def _read_bounded(folder: Path, name: str, limit_bytes: int) -> bytes:
    """A file's bytes, following no link. Raises BundleError when it is absent, no file, or larger than the limit."""
    try:
        return read_file(folder / name, limit_bytes)
    except OSError as error:
        raise BundleError(f"bundle {folder}: {name} cannot be read ({error.strerror}); {COPY_AGAIN}") from None


def _read_listed(folder: Path, file: File) -> bytes:
    """The signed bytes. Another file is found out piece by piece, before memory is taken for it."""
    try:
        with os.fdopen(open_file(folder / file.path), "rb") as opened:
            digest, left = hashlib.sha256(), file.nbytes
            while left > 0 and (piece := opened.read(min(left, HASHED_AT_ONCE_BYTES))):
                digest.update(piece)
                left -= len(piece)
            same = left == 0 and not opened.read(1) and digest.hexdigest() == file.sha256
            opened.seek(0)
            data = opened.read(file.nbytes) if same else b""
    except OSError as error:
        raise BundleError(f"bundle {folder}: {file.path} cannot be read ({error.strerror}); {COPY_AGAIN}") from None
    # Hashed once more: what is used is what was verified, whoever writes to the file meanwhile.
    if len(data) != file.nbytes or hashlib.sha256(data).hexdigest() != file.sha256:
        raise BundleError(f"bundle {folder}: {file.path} was modified or damaged (its sha256 differs); {COPY_AGAIN}")
    return data


def _decode_png(data: bytes, name: str, height_px: int, width_px: int, mode: str) -> ByteArray:
    """Pixels of a PNG of exactly that size: H x W x 3 (mode RGB) or H x W (mode L)."""
    try:
        with open_png(data) as picture:
            if picture.size != (width_px, height_px) or picture.mode != mode:
                raise DataError(
                    f"is {picture.mode} {picture.width} x {picture.height}, not {mode} {width_px} x {height_px}"
                )
            return np.asarray(picture, dtype=np.uint8)
    except DataError as error:
        raise BundleError(f"bundle file {name} {error}; export the bundle again") from None
