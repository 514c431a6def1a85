"""What runs on the box: frames in, one verdict each out. No torch, no training code, no pickle."""

__version__ = "0.1.0"
