"""The networks that LSFA builds on: colour backbones, point encoder, adaptors (torch)."""

from asperity.calibration.networks.torch_networks import TorchNetworks, build

__all__ = ["TorchNetworks", "build"]
