"""The networks' layers: sizes of the paper, exact reductions, and the published forms they must equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from asperity.calibration.networks.adaptor import Adaptor
from asperity.calibration.networks.efficientnet_lite0 import EfficientNetLite0
from asperity.calibration.networks.point_mae import point_mae
from asperity.calibration.networks.vit import dino_vitb8, dinov2_vits14, resize_positions
from asperity.calibration.profiles import PROFILES
from tests.calibration.networks.tiny_networks import small_encoder, small_vit


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


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
