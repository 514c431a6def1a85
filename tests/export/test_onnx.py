"""ONNX Runtime on every exported graph gives torch's tokens, and no graph uses what TensorRT 10.3 cannot parse."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from calibration.networks import TorchNetworks, build
from calibration.networks.point_mae import PointBn, PointEncoder
from calibration.networks.vit import VisionTransformer
from calibration.procedural_stations import cell_network
from calibration.profiles import PROFILES, Profile
from export.onnx import OPSET, TENSORRT_OPERATORS, check_operators, export_graphs
from runtime.errors import DataError, EngineError, UsageError
from runtime.manifest import Network

Arrays = dict[str, np.ndarray]
TOLERANCE = 2e-5
"""Largest difference between ONNX Runtime and torch, relative to the largest value: float32 in another order."""


def network(profile: Profile, slots: int) -> Network:
    return msgspec.structs.replace(
        cell_network(), profile=profile.name, image_px=profile.image_px, grid=profile.grid, rgb_grid=profile.rgb_grid,
        rgb_channels=profile.rgb_channels, groups=profile.groups, group_size=profile.group_size,
        points_channels=profile.points_channels, adaptor="lsfa", rgb_slots=profile.rgb_grid**2, points_slots=slots,
    )  # fmt: skip


def calibrated(profile: Profile, *, seeded: bool) -> TorchNetworks:
    """Networks with adaptors; seeded ones with stirred statistics and biases, so that folding is seen to matter."""
    torch.set_num_threads(1)
    networks = build(profile, seeded=seeded)
    networks.set_adaptors(*networks.new_adaptors(seed=3))
    if seeded:
        generator = torch.Generator().manual_seed(5)
        for module in networks.modules.values():
            for name, tensor in module.state_dict().items():
                if name.endswith("running_var"):
                    tensor.uniform_(0.5, 2.0, generator=generator)
                elif tensor.is_floating_point() and tensor.ndim == 1:
                    tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return networks


def inputs_of(given: Network, seed: int = 0) -> dict[str, Arrays]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    points = {
        name: {"tokens": normal(slots, given.points_channels), "counts": rng.integers(1, 90, slots).astype(np.float32)}
        for name, slots in (("adaptor_points", given.points_slots), ("adaptor_points_full", given.grid**2))
    }
    return {
        "rgb": {"image": normal(1, 3, given.image_px, given.image_px)},
        "points": {"groups": normal(given.groups, given.group_size, 3), "centres": normal(given.groups, 3)},
        "adaptor_rgb": {"tokens": normal(given.rgb_slots, given.rgb_channels)},
        **points,
    }


def by_torch(networks: TorchNetworks, name: str, given: Arrays) -> np.ndarray:
    if name == "rgb":
        return networks.rgb(given["image"])
    if name == "points":
        return networks.points(given["groups"], given["centres"])
    if name == "adaptor_rgb":
        return networks.adapt_rgb(given["tokens"])
    return networks.adapt_points(given["tokens"], given["counts"])


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def check_graphs(paths: list[Path], networks: TorchNetworks, given: Network) -> None:
    inputs = inputs_of(given)
    for path in paths:
        arrays = inputs[path.stem]
        got = session(path).run(None, arrays)[0]
        expected = by_torch(networks, path.stem, arrays)
        scale = np.abs(expected).max()
        assert np.abs(got - expected).max() <= TOLERANCE * scale, path.stem
        # The control: an input whose first token, group or image moved gives another answer, so a constant graph cannot
        # pass. A single number would not do: among 128 points of a group it drowns in the max.
        key = next(iter(arrays))
        moved = {**arrays, key: arrays[key].copy()}
        moved[key][0] += 3.0
        assert np.abs(session(path).run(None, moved)[0] - expected).max() > 10 * TOLERANCE * scale, path.stem


def check_form(path: Path) -> None:
    model = onnx.load(path)
    check_operators(model, path.name)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert not {n.op_type for n in model.graph.node} & {"BatchNormalization", "Shape", "Pad", "Loop", "If", "Cast"}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    assert all(i.data_location == onnx.TensorProto.DEFAULT for i in model.graph.initializer)
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchNetworks, Network, list[Path]]:
    profile = PROFILES["lite"]
    given = network(profile, 448)
    networks = calibrated(profile, seeded=False)
    return networks, given, export_graphs(networks, given, tmp_path_factory.mktemp("lite"))


def test_lite_in_onnx_runtime_is_lite_in_torch(lite: tuple[TorchNetworks, Network, list[Path]]) -> None:
    networks, given, paths = lite
    names = ["rgb", "points", "adaptor_rgb", "adaptor_points", "adaptor_points_full"]
    assert [path.stem for path in paths] == names
    check_graphs(paths, networks, given)


def test_graphs_keep_to_tensorrt_and_to_static_float32(lite: tuple[TorchNetworks, Network, list[Path]]) -> None:
    for path in lite[2]:
        check_form(path)
    # Not among them: anything that TensorRT 10's parser refuses.
    assert not TENSORRT_OPERATORS & {"Attention", "Mod", "NonZero", "Unique", "Multinomial", "Det", "SequenceAt"}


def test_inputs_and_outputs_have_the_bundles_names(lite: tuple[TorchNetworks, Network, list[Path]]) -> None:
    from runtime.bundle_checks import check_graph

    _, given, paths = lite
    for path in paths:
        check_graph(path.read_bytes(), path.stem, given)


def test_slots_of_the_whole_grid_need_no_second_graph_and_no_adaptor_no_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(module: nn.Module, inputs: dict[str, torch.Tensor], output: str, path: Path) -> Path:
        shapes.append((path.stem, *(tuple(value.shape) for value in inputs.values())))
        return path

    shapes: list[tuple[object, ...]] = []
    monkeypatch.setattr("export.onnx._write", record)
    networks = calibrated(PROFILES["lite"], seeded=True)
    given = network(PROFILES["lite"], 448)
    export_graphs(networks, given, tmp_path)
    assert shapes[3:] == [("adaptor_points", (448, 384), (448,)), ("adaptor_points_full", (784, 384), (784,))]
    shapes.clear()
    export_graphs(networks, msgspec.structs.replace(given, points_slots=784), tmp_path)
    assert [shape[0] for shape in shapes] == ["rgb", "points", "adaptor_rgb", "adaptor_points"]
    shapes.clear()
    export_graphs(networks, frozen(given), tmp_path)
    assert [shape[0] for shape in shapes] == ["rgb", "points"]
    del networks.modules["adaptor_rgb"]
    with pytest.raises(UsageError, match="no adaptors"):
        export_graphs(networks, given, tmp_path)


def frozen(given: Network) -> Network:
    return msgspec.structs.replace(given, adaptor="none", rgb_slots=0, points_slots=0)


def test_operators_outside_the_list_are_refused() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    for domain, kind in (("", "NonZero"), ("com.microsoft", "MatMul")):
        node = onnx.helper.make_node(kind, ["x"], ["y"], domain=domain)
        model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [value]))
        with pytest.raises(EngineError, match=kind):
            check_operators(model, "toy.onnx")


def reduced(name: str, vit: VisionTransformer, points: PointEncoder, slots: int) -> tuple[TorchNetworks, Network]:
    """A profile's layers, but fewer of them and on fewer tokens."""
    profile = PROFILES[name]
    networks = TorchNetworks(profile, vit, points, (), "cpu")
    networks.set_adaptors(*networks.new_adaptors(seed=1))
    rng = np.random.default_rng(0)
    networks.fit_point_statistics([rng.normal(size=(24, 16, 3)).astype(np.float32) for _ in range(2)])
    given = msgspec.structs.replace(
        network(profile, slots), image_px=4 * vit.patch_embed.proj.kernel_size[0], rgb_grid=4, rgb_slots=16, groups=24,
        group_size=16, grid=9,
    )  # fmt: skip
    return networks, given


@pytest.mark.parametrize("point_bn", ["batch", "station"])
def test_paper_at_reduced_depth(point_bn: PointBn, tmp_path: Path) -> None:
    """The ViT, the published mini-PointNet with either statistics, the 768- and 1152-wide adaptors."""
    torch.manual_seed(0)
    vit = VisionTransformer(image_px=32, patch=8, width=768, depth=1, heads=12, layer_scale=False)
    points = PointEncoder(first=(128, 256), second=(512, 384), depth=3, heads=6, taps=(0, 1, 2), point_bn=point_bn)
    networks, given = reduced("paper", vit, points, slots=81)
    paths = export_graphs(networks, given if point_bn == "station" else frozen(given), tmp_path)
    check_graphs(paths, networks, given)
    for path in paths:
        check_form(path)


def test_edge_backbone_with_layer_scale(tmp_path: Path) -> None:
    """`edge` differs by DINOv2's LayerScale and 14-pixel patches; its other graphs are `lite`'s, wider."""
    torch.manual_seed(0)
    vit = VisionTransformer(image_px=56, patch=14, width=384, depth=2, heads=6, layer_scale=True)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.1, 2.0)
    small = PointEncoder(first=(32, 64), second=(128, 192), depth=2, heads=6, taps=(0, 1))
    networks, given = reduced("edge", vit, small, slots=81)
    paths = export_graphs(networks, frozen(given), tmp_path)
    check_graphs(paths, networks, given)
    for path in paths:
        check_form(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    vit = VisionTransformer(image_px=32, patch=8, width=8, depth=0, heads=1, layer_scale=False)
    networks, given = reduced("edge", vit, PointEncoder(first=(4, 4), second=(4, 6), depth=0, heads=6, taps=()), 81)
    with pytest.raises(DataError, match=r"rgb\.onnx cannot be written"):
        export_graphs(networks, frozen(given), tmp_path / "absent")


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["edge", "paper"])
def test_whole_profile(name: str, tmp_path: Path) -> None:
    """Full size, seeded: minutes and gigabytes."""
    profile = PROFILES[name]
    networks = calibrated(profile, seeded=True)
    given = network(profile, profile.grid**2 // 2 // 64 * 64)
    paths = export_graphs(networks, given, tmp_path)
    check_graphs(paths, networks, given)
    for path in paths:
        check_form(path)
