"""The networks LSFA stands on: colour backbones, point encoder, adaptors (torch)."""

from calibration.networks.torch_networks import TorchNetworks, build

__all__ = ["TorchNetworks", "build"]
