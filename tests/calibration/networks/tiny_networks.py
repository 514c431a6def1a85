"""Small networks of the published forms, drawn from fixed seeds."""

from __future__ import annotations

import torch

from asperity.calibration.networks.point_mae import PointEncoder
from asperity.calibration.networks.vit import VisionTransformer


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
