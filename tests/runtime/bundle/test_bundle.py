"""A bundle opens only whole, unaltered, signed by a trusted key and of sense; everything else is refused by name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.errors import BundleError, SignatureError
from asperity.runtime.security.signing_keys import TrustStore
from tests.bundle_factory import (
    GRID,
    HEIGHT_PX,
    POINTS_CHANNELS,
    RGB_CHANNELS,
    SCORES,
    WIDTH_PX,
    ToyBundle,
    toy_graphs,
    zeroed,
)
from tests.runtime.bundle.refusals import refused


@pytest.mark.parametrize("kind", ["none", "lsfa"])
def test_a_whole_bundle_opens_with_everything_in_it(pristine: dict[str, ToyBundle], kind: str) -> None:
    toy = pristine[kind]
    bundle = open_bundle(toy.path, toy.trust)
    assert bundle.key_id == toy.key.key_id
    assert bundle.wire_id == bundle.digest[:12]
    assert set(bundle.graph_names()) == {p.stem for p in toy.path.glob("*.onnx")}
    assert bundle.graph("rgb") == (toy.path / "rgb.onnx").read_bytes()
    banks = bundle.banks()
    assert banks["rgb"].memory.rows.shape == (20, RGB_CHANNELS)
    assert banks["points"].memory.rows.shape == (15, POINTS_CHANNELS)
    inputs = bundle.calibration_inputs()
    assert len(inputs) == len(SCORES)
    assert inputs.prepared(3).inspect.shape == (GRID, GRID)
    golden = list(bundle.golden_frames())
    assert [g.kind for g, _ in golden] == ["normal", "normal", "near", "spoiled_geometry", "spoiled_colour"]
    assert all(frame.shape_px == (HEIGHT_PX, WIDTH_PX) and frame.unit == "mm" for _, frame in golden)
    assert bundle.inspect_mask() is None and bundle.ignore_mask() is None


def test_masks_are_read(toy: ToyBundle) -> None:
    pixels = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    pixels[:5] = 255
    (toy.path / "masks").mkdir()
    Image.fromarray(pixels).save(toy.path / "masks" / "ignore.png")
    toy.edit(lambda m: m["geometry"].update(ignore_mask="masks/ignore.png"))
    mask = open_bundle(toy.path, toy.trust).ignore_mask()
    assert mask is not None and mask.sum() == 5 * WIDTH_PX
    Image.fromarray(np.full_like(pixels, 1)).save(toy.path / "masks" / "ignore.png")
    toy.reseal()
    refused(toy, "ignore mask")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    trust = TrustStore(tmp_path / "keys")
    with pytest.raises(BundleError, match="there is no bundle at"):
        open_bundle(tmp_path / "absent", trust)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        open_bundle(tmp_path / "empty", trust)


ALL_FILES = [
    "manifest.json", "rgb.onnx", "points.onnx", "adaptor_rgb.onnx", "adaptor_points.onnx", "adaptor_points_full.onnx",
    "banks.safetensors", "calibration_inputs.safetensors", "golden/rgb/near.png", "golden/xyz/colour.tiff",
]  # fmt: skip


@pytest.mark.parametrize("name", ALL_FILES)
def test_one_changed_byte_is_found(toy: ToyBundle, name: str) -> None:
    data = bytearray((toy.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (toy.path / name).write_bytes(data)
    refused(toy, name)


@pytest.mark.parametrize("name", [*ALL_FILES, "signature"])
def test_a_missing_file_is_named(toy: ToyBundle, name: str) -> None:
    (toy.path / name).unlink()
    refused(toy, name)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_cut_or_grown_file_is_found(toy: ToyBundle, name: str) -> None:
    whole = (toy.path / name).read_bytes()
    for data in (whole[: len(whole) // 2], whole + b"\0", b""):
        (toy.path / name).write_bytes(data)
        refused(toy, name)


def test_a_file_that_the_manifest_does_not_list(toy: ToyBundle) -> None:
    (toy.path / "golden" / "run_me.py").write_text("pass")
    refused(toy, "golden/run_me.py", "remove")


def test_a_listed_file_that_no_bundle_has(toy: ToyBundle) -> None:
    (toy.path / "extra.onnx").write_bytes(b"x")
    toy.reseal()
    refused(toy, "extra.onnx")


def test_a_link_is_not_followed(toy: ToyBundle, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.onnx"
    shutil.move(toy.path / "rgb.onnx", elsewhere)
    (toy.path / "rgb.onnx").symlink_to(elsewhere)
    refused(toy, "rgb.onnx", "link")


def test_a_linked_folder_and_a_pipe_are_not_followed(toy: ToyBundle, tmp_path: Path) -> None:
    shutil.move(toy.path / "golden", tmp_path / "golden")
    (toy.path / "golden").symlink_to(tmp_path / "golden")
    refused(toy, "golden", "link")
    (toy.path / "golden").unlink()
    shutil.move(tmp_path / "golden", toy.path / "golden")
    (toy.path / "manifest.json").unlink()
    os.mkfifo(toy.path / "manifest.json")
    refused(toy, "manifest.json")


@pytest.mark.parametrize(
    "path", ["../rgb.onnx", "/etc/passwd", "golden/../rgb.onnx", "a//b", ".hidden", "golden\\rgb", "a/b/c/d", ""]
)
def test_a_listed_path_cannot_leave_the_bundle(toy: ToyBundle, path: str) -> None:
    values = toy.manifest()
    values["files"][0]["path"] = path
    import msgspec

    data = msgspec.json.encode(values)
    (toy.path / "manifest.json").write_bytes(data)
    (toy.path / "signature").write_bytes(toy.key.sign(data))
    refused(toy, "not a path inside the bundle", repr(path))


@pytest.mark.parametrize("name", ["rgb", "points", "adaptor_rgb", "adaptor_points", "adaptor_points_full"])
def test_a_zeroed_graph_is_refused_though_signed(toy: ToyBundle, name: str) -> None:
    path = toy.path / f"{name}.onnx"
    path.write_bytes(zeroed(path.read_bytes()))
    toy.reseal()
    refused(toy, f"{name}.onnx", "zeros")


@pytest.mark.parametrize("name", ["rgb", "points"])
@pytest.mark.parametrize("value", [0.0, 3.0, np.nan, np.inf])
def test_a_constant_or_infinite_bank_is_refused_though_signed(toy: ToyBundle, name: str, value: float) -> None:
    banks = load_file(toy.path / "banks.safetensors")
    banks[name] = np.full_like(banks[name], value)
    save_file(banks, toy.path / "banks.safetensors")
    toy.reseal()
    refused(toy, "banks.safetensors", name)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e20])
def test_a_bank_with_one_number_beyond_reason_is_refused_though_signed(toy: ToyBundle, value: float) -> None:
    banks = load_file(toy.path / "banks.safetensors")
    banks["points"][3, 2] = value
    save_file(banks, toy.path / "banks.safetensors")
    toy.reseal()
    refused(toy, "banks.safetensors", "points", "beyond")


def test_banks_of_another_dtype_or_name_are_refused(toy: ToyBundle) -> None:
    banks = load_file(toy.path / "banks.safetensors")
    save_file({**banks, "rgb": banks["rgb"].astype(np.float16)}, toy.path / "banks.safetensors")
    toy.reseal()
    refused(toy, "rgb", "float16")
    save_file({"rgb": banks["rgb"]}, toy.path / "banks.safetensors")
    toy.reseal()
    refused(toy, "points")
    (toy.path / "banks.safetensors").write_bytes(b"not tensors")
    toy.reseal()
    refused(toy, "safetensors")


def test_graphs_that_do_not_load_or_swap_places_are_refused(toy: ToyBundle) -> None:
    whole = (toy.path / "rgb.onnx").read_bytes()
    for data in (b"not a model", whole[: len(whole) // 2], (toy.path / "points.onnx").read_bytes()):
        (toy.path / "rgb.onnx").write_bytes(data)
        toy.reseal()
        refused(toy, "rgb.onnx")


def test_a_graph_with_a_weight_that_is_no_number_is_refused(toy: ToyBundle) -> None:
    graph = onnx.load_from_string(toy_graphs("none")["rgb"])
    kernel = onnx.numpy_helper.to_array(graph.graph.initializer[0]).copy()
    kernel[0, 0, 0, 0] = np.nan
    graph.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(kernel, "kernel"))
    (toy.path / "rgb.onnx").write_bytes(graph.SerializeToString())
    toy.reseal()
    refused(toy, "rgb.onnx", "kernel", "not finite")


def test_the_two_sizes_of_an_adaptor_must_be_one_adaptor(toy: ToyBundle) -> None:
    (toy.path / "adaptor_points_full.onnx").write_bytes(toy_graphs("lsfa", seed=9)["adaptor_points_full"])
    toy.reseal()
    refused(toy, "adaptor_points_full.onnx", "two sizes")


def test_a_graph_that_keeps_weights_in_another_file_is_refused(toy: ToyBundle) -> None:
    graph = onnx.load_from_string(toy_graphs("none")["rgb"])
    kernel = graph.graph.initializer[0]
    kernel.ClearField("raw_data")
    kernel.data_location = onnx.TensorProto.EXTERNAL
    entry = kernel.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    (toy.path / "rgb.onnx").write_bytes(graph.SerializeToString())
    toy.reseal()
    refused(toy, "rgb.onnx", "another file")


def test_what_is_read_later_is_what_was_verified(toy: ToyBundle) -> None:
    bundle = open_bundle(toy.path, toy.trust)
    (toy.path / "rgb.onnx").write_bytes(toy_graphs("lsfa", seed=5)["rgb"])
    with pytest.raises(BundleError, match=r"rgb\.onnx was modified"):
        bundle.graph("rgb")
    with pytest.raises(BundleError, match="no file"):
        bundle.read("../secret")


def test_signatures(toy: ToyBundle, tmp_path: Path) -> None:
    stranger = TrustStore(tmp_path / "stranger")
    with pytest.raises(SignatureError, match="does not trust") as caught:
        open_bundle(toy.path, stranger)
    assert "asperity keys trust" in str(caught.value) and toy.key.key_id in str(caught.value)

    data = (toy.path / "manifest.json").read_bytes()
    (toy.path / "signature").write_bytes(stranger.key_for_signing().sign(data))
    refused(toy, "does not trust")

    (toy.path / "signature").write_bytes(toy.key.sign(data + b" "))
    refused(toy, "not what key")

    for junk in (b"", b"{}", b'{"key_id": "x", "signature": "%%"}', b"\xff" * 9, b"x" * 10_000):
        (toy.path / "signature").write_bytes(junk)
        refused(toy, "signature")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutated_graph_or_manifest_escapes_as_another_error(toy: ToyBundle, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["rgb.onnx", "banks.safetensors", "golden/rgb/near.png", "golden/xyz/near.tiff"]))
    path = toy.path / name
    whole = path.read_bytes()
    mutated = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(mutated)
    toy.reseal()
    try:
        open_bundle(toy.path, toy.trust)
    except BundleError:
        pass
    finally:
        path.write_bytes(whole)
