"""Checks and timings of the CUDA kernels: ``make gpu-check`` and ``make gpu-bench``."""
